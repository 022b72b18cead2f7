package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"postbus.dev/postbus/api/v1alpha1"
)

const (
	// neighbourRate is how many events a second a healthy callback gets, for neighbourWarm
	// before it is measured for neighbourTime.
	neighbourRate = 200
	neighbourWarm = 5 * time.Second
	neighbourTime = 10 * time.Second
	// neighbourBar is the most that neighbours may lengthen its 99th percentile.
	neighbourBar = 1.2
)

// neighbourhoods are what callbacks there are by their paths, the healthy one first: it
// alone, beside others that are well, and beside those that hang, answer 500, and send
// their answer byte by byte.
var neighbourhoods = [][]string{
	{"/healthy"},
	{"/healthy", "/well", "/well", "/well"},
	{"/healthy", "/hangs", "/fails", "/trickles"},
}

// neighbours is how much slower a healthy callback gets its events when there are
// callbacks beside it, of the same events, that are down. Each round measures all
// neighbourhoods, so that what else the machine does is in each, every other one in the
// other direction. The store is in memory: where a disk stalls, a 99th percentile tells
// of the disk alone.
func neighbours(e engine) trial {
	backwards := true
	return trial{
		name: fmt.Sprintf("neighbours, %s", e),
		measure: func(ctx context.Context, p *plane, found *facts) (err error) {
			backwards = !backwards
			place, err := p.newStoreInMemory(ctx, e, "postbus")
			if err != nil {
				return err
			}
			i, err := p.installOver(ctx, place, 1, "standalone")
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, i.close()) }()
			p99, err := i.inNeighbourhoods(ctx, backwards)
			if err != nil {
				return err
			}
			found.add(fact{name: "p99 of a healthy callback alone", unit: "ms", digits: 2}, p99[0])
			found.add(fact{name: "beside three that are well, times as long", digits: 2}, p99[1]/p99[0])
			found.add(fact{name: "beside ones that hang, fail and trickle, times as long", digits: 2, most: neighbourBar}, p99[2]/p99[0])
			return nil
		},
	}
}

// inNeighbourhoods returns the 99th percentile of a healthy callback in each
// neighbourhood, in milliseconds.
func (i *installation) inNeighbourhoods(ctx context.Context, backwards bool) (p99 [3]float64, err error) {
	healthy := newArrivals()
	if err := i.listen(ctx, neighbourly(healthy)); err != nil {
		return p99, err
	}
	order := []int{0, 1, 2}
	if backwards {
		slices.Reverse(order)
	}
	for _, n := range order {
		if p99[n], err = i.besides(ctx, healthy, n); err != nil {
			return p99, err
		}
	}
	return p99, nil
}

// besides returns the 99th percentile of a healthy callback in one neighbourhood.
func (i *installation) besides(ctx context.Context, healthy *arrivals, neighbourhood int) (p99 float64, err error) {
	paths := neighbourhoods[neighbourhood]
	err = i.subscribe(ctx, len(paths), func(n int) v1alpha1.WebhookSubscriptionSpec {
		spec := i.calling(len(paths))
		spec.Callback.URL += paths[n]
		return spec
	})
	if err != nil {
		return 0, err
	}
	var took []time.Duration
	for _, load := range []steadyLoad{{name: "warm", during: neighbourWarm}, {name: "measured", during: neighbourTime}} {
		load.name, load.perSecond = fmt.Sprint(load.name, neighbourhood), neighbourRate
		if took, err = healthy.timed(ctx, i, load); err != nil {
			return 0, err
		}
	}
	return percentile(took, 99), i.unsubscribe(ctx)
}

// neighbourly are callbacks, of which one tells when it is called.
func neighbourly(healthy http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /healthy", healthy)
	mux.HandleFunc("POST /well", func(_ http.ResponseWriter, request *http.Request) { _, _ = io.Copy(io.Discard, request.Body) })
	mux.HandleFunc("POST /hangs", func(_ http.ResponseWriter, request *http.Request) {
		_, _ = io.Copy(io.Discard, request.Body) // otherwise nobody sees that the caller has gone
		<-request.Context().Done()
	})
	mux.HandleFunc("POST /fails", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	mux.HandleFunc("POST /trickles", trickle)
	return mux
}

// trickle answers with a byte every 100 ms, and never ends.
func trickle(w http.ResponseWriter, request *http.Request) {
	_, _ = io.Copy(io.Discard, request.Body)
	control := http.NewResponseController(w)
	for request.Context().Err() == nil {
		if _, err := w.Write([]byte("x")); err != nil || control.Flush() != nil {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-request.Context().Done():
		}
	}
}
