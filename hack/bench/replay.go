package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"postbus.dev/postbus/api/v1alpha1"
)

const (
	// replayedEvents is how many events are replayed.
	replayedEvents = 100_000
	// liveRate is how many live events there are in a second meanwhile, and liveTime for
	// how long at a time they are measured.
	liveRate = 100
	liveTime = 10 * time.Second
	// mostReplayed is the highest spec.replay.requestsPerSecond.
	mostReplayed = 10_000
)

// replaying is how fast events are sent again, and how long live events take that go to
// the same callback meanwhile.
func replaying(e engine) trial {
	return trial{
		name: fmt.Sprintf("replay, %s", e),
		measure: on(e, func(ctx context.Context, i *installation, found *facts) error {
			r := &replayed{installation: i, again: newReceiver(), live: newArrivals()}
			if err := r.listen(ctx, r); err != nil {
				return err
			}
			// It begins behind these.
			if err := (importing{name: "before", contacts: replayedEvents}).run(ctx, i); err != nil {
				return err
			}
			until := time.Now()
			err := r.subscribe(ctx, 1, func(int) v1alpha1.WebhookSubscriptionSpec {
				spec := i.calling(1)
				spec.Replay.RequestsPerSecond = mostReplayed
				return spec
			})
			if err != nil {
				return err
			}
			return r.measure(ctx, until, found)
		}),
	}
}

// replayed is an installation with a subscription whose live events are told from those
// that are sent again.
type replayed struct {
	*installation
	again *receiver
	live  *arrivals
}

// ServeHTTP takes a call.
func (r *replayed) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if request.Header.Get("postbus-replay") == "true" {
		r.again.ServeHTTP(w, request)
		return
	}
	r.live.ServeHTTP(w, request)
}

// measure measures live events without a replay, and then with one, until it ends.
func (r *replayed) measure(ctx context.Context, until time.Time, found *facts) error {
	for _, name := range []string{"warm", "alone"} {
		took, err := r.live.timed(ctx, r.installation, steadyLoad{name: name, perSecond: liveRate, during: liveTime})
		if err != nil {
			return err
		}
		if name == "alone" {
			addLive(found, "live events without it", took)
		}
	}
	arrived := r.again.expect(replayedEvents)
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q,%q:%q}}}`,
		v1alpha1.AnnotationReplaySince, until.Add(-time.Hour).Format(time.RFC3339), v1alpha1.AnnotationReplayUntil, until.Add(time.Second).Format(time.RFC3339))
	if err := r.patchAll(ctx, patch); err != nil {
		return err
	}
	var beside []time.Duration
	for n := 0; r.again.count() < replayedEvents; n++ {
		took, err := r.live.timed(ctx, r.installation, steadyLoad{name: "beside-" + strconv.Itoa(n), perSecond: liveRate, during: time.Second})
		if err != nil {
			return err
		}
		beside = append(beside, took...)
	}
	perSecond, err := arrived(ctx)
	found.add(fact{name: fmt.Sprintf("%d events, of %d/s that are allowed", replayedEvents, mostReplayed), unit: "calls/s"}, perSecond)
	addLive(found, "live events beside it", beside)
	return err
}

// addLive adds percentiles of how long live events took.
func addLive(found *facts, name string, took []time.Duration) {
	for _, percent := range []int{50, 99} {
		found.add(fact{name: fmt.Sprintf("%s, p%d", name, percent), unit: "ms", digits: 1}, percentile(took, percent))
	}
}
