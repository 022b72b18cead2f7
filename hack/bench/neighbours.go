package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"postbus.dev/postbus/api/v1alpha1"
)

const (
	// neighbourRate is how many events a second a healthy callback gets, neighbourTime
	// for how long.
	neighbourRate = 200
	neighbourTime = 5 * time.Second
	// neighbourBar is the most that neighbours may lengthen its 99th percentile.
	neighbourBar = 1.2
)

// neighbourPaths are what callbacks are called by: the healthy one first, and then those
// that hang, answer 500, and send their answer byte by byte.
var neighbourPaths = []string{"/healthy", "/hangs", "/fails", "/trickles"}

// neighbours is how much slower a healthy callback gets its events when there are
// callbacks beside it, of the same events, that are down. Each round measures both, so
// that what else the machine does is in both.
func neighbours(e engine) trial {
	return trial{
		name: fmt.Sprintf("neighbours, %s", e),
		measure: on(e, func(ctx context.Context, i *installation, found *facts) (err error) {
			healthy := newArrivals()
			if err := i.listen(ctx, neighbourhood(healthy)); err != nil {
				return err
			}
			var p99 [2]float64
			for n, callbacks := range []int{1, len(neighbourPaths)} {
				if p99[n], err = i.besides(ctx, healthy, callbacks); err != nil {
					return err
				}
			}
			found.add(fact{name: "p99 of a healthy callback alone", unit: "ms", digits: 2}, p99[0])
			found.add(fact{name: "p99 beside ones that hang, fail and trickle", unit: "ms", digits: 2}, p99[1])
			found.add(fact{name: "ratio of these", digits: 2, most: neighbourBar}, p99[1]/p99[0])
			return nil
		}),
	}
}

// besides returns the 99th percentile of a healthy callback, in milliseconds, when there
// are so many callbacks.
func (i *installation) besides(ctx context.Context, healthy *arrivals, callbacks int) (p99 float64, err error) {
	err = i.subscribe(ctx, callbacks, func(n int) v1alpha1.WebhookSubscriptionSpec {
		spec := i.calling(callbacks)
		spec.Callback.URL += neighbourPaths[n]
		return spec
	})
	if err != nil {
		return 0, err
	}
	var took []time.Duration
	for _, load := range []steadyLoad{{name: "warm", during: neighbourTime}, {name: "measured", during: neighbourTime}} {
		load.name, load.perSecond = fmt.Sprint(load.name, callbacks), neighbourRate
		if took, err = healthy.timed(ctx, i, load); err != nil {
			return 0, err
		}
	}
	return percentile(took, 99), i.unsubscribe(ctx)
}

// neighbourhood are callbacks, of which one is healthy.
func neighbourhood(healthy http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /healthy", healthy)
	mux.HandleFunc("POST /hangs", func(_ http.ResponseWriter, request *http.Request) {
		_, _ = io.Copy(io.Discard, request.Body) // otherwise nobody sees that the caller has gone
		<-request.Context().Done()
	})
	mux.HandleFunc("POST /fails", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	mux.HandleFunc("POST /trickles", func(w http.ResponseWriter, request *http.Request) {
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
	})
	return mux
}
