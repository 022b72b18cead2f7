package dispatcher

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// ownCalls is how many calls a subscription may always have under way, so that
	// callbacks that hang take no other's turn.
	ownCalls = 4
	// DefaultMaxCalls is how many calls the subscriptions of a dispatcher share where
	// Options.MaxCalls says nothing: some 200 MB.
	DefaultMaxCalls = 4096
	// sharedCallRetry is the wait of a subscription that got no shared call, unless one
	// of its own ends before.
	sharedCallRetry = time.Second
)

// sharedCalls are the calls that the subscriptions of a dispatcher may have under way
// beyond ownCalls of each: what a thousand callbacks that hang take of its memory and
// files is bounded by them. One that gets none asks again when one of its own ends, and
// after sharedCallRetry, as those may hang too.
type sharedCalls struct {
	most int64
	used atomic.Int64
	// told is the metric of used.
	told prometheus.Gauge
}

// left tells whether a subscription that has so many calls under way may have one more.
func (c *sharedCalls) left(underWay int) bool {
	return underWay < ownCalls || c.used.Load() < c.most
}

// take takes one more for a subscription that has so many under way, if there is one.
func (c *sharedCalls) take(underWay int) bool {
	if underWay < ownCalls {
		return true
	}
	if c.used.Add(1) > c.most {
		c.used.Add(-1)
		return false
	}
	c.told.Inc()
	return true
}

// give gives back the last of so many calls that a subscription has under way.
func (c *sharedCalls) give(underWay int) {
	if underWay > ownCalls {
		c.used.Add(-1)
		c.told.Dec()
	}
}
