package ingress

import (
	"github.com/prometheus/client_golang/prometheus"
)

// What Options says unless it says otherwise. They suit a pod of two cores: a
// call takes milliseconds, and what 256 of them and 1000 connections hold fits
// into the memory that docs/ingress.md states.
const (
	DefaultMaxConnections = 1000
	DefaultMaxRequests    = 256
)

// A body of less than smallBody bytes, and a call has a tenth of that, needs no
// other room than its call. Of larger ones maxLargeBodies are held at a time.
const (
	smallBody      = 16 << 10
	maxLargeBodies = 8
)

// Imports and exports hold a batch or a page of contacts for as long as they
// last, which can be hours. They leave the gate of calls and have gates of their own.
const (
	maxImports = 8
	maxExports = 16
)

// maxHTTP2 is how many HTTP/2 connections are open at a time. Each can have maxStreams
// requests whose headers are in memory before any handler runs, and of thousands of
// short fields a header takes 180 KiB. Together they are still more requests than are
// answered at a time.
const maxHTTP2 = 64

// maxAnswers is how many answers are sent at a time, those of probes and refusals
// among them. An answer takes a fraction of a millisecond where the caller reads it.
const maxAnswers = 256

// limits are the gates of one ingress.
type limits struct {
	connections  *gate
	largeHeaders *gate
	http2        *gate
	// calls has every request but probes, imports and exports.
	calls       *gate
	largeBodies *gate
	answers     *gate
	// requests has the calls whose key is known and whose body has been read.
	requests, imports, exports *keyedGate
	// slow counts the imports and exports that were slower than their minimum rate.
	slowImports, slowExports prometheus.Counter
}

func newLimits(options Options, metrics *Metrics) *limits {
	connections, calls := options.MaxConnections, options.MaxRequests
	if connections == 0 {
		connections = DefaultMaxConnections
	}
	if calls == 0 {
		calls = DefaultMaxRequests
	}
	counter := metrics.turnedAway.WithLabelValues
	door := func(capacity int, limit string) *gate {
		return &gate{capacity: capacity, turnedAway: counter(limit)}
	}
	// One key gets a part of the capacity, and one namespace three quarters of it,
	// so that neither can shut out all others.
	keyed := func(capacity, perKey int, limit string) *keyedGate {
		return &keyedGate{
			gate:     gate{capacity: capacity, turnedAway: counter(limit)},
			requests: limit, perKey: perKey, perNamespace: max(perKey, capacity*3/4),
			keyRefused: counter(limit + perKeySuffix), namespaceRefused: counter(limit + perNamespaceSuffix),
		}
	}
	return &limits{
		connections:  door(connections, limitConnections),
		largeHeaders: door(maxLargeHeaders, limitLargeHeaders),
		http2:        door(maxHTTP2, limitHTTP2),
		calls:        door(calls, limitRequests),
		largeBodies:  door(maxLargeBodies, limitLargeBodies),
		answers:      door(maxAnswers, limitAnswers),
		requests:     keyed(calls, (calls+1)/2, limitRequests),
		imports:      keyed(maxImports, maxImports/4, limitImports),
		exports:      keyed(maxExports, maxExports/4, limitExports),
		slowImports:  counter(limitImportRate),
		slowExports:  counter(limitExportRate),
	}
}
