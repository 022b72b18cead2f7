package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postbus.dev/postbus/api/v1alpha1"
)

// smallBacklog is how many events wait in a backlog that a large one is compared with, and
// how many calls of both are looked at.
const smallBacklog = 100_000

// backlog is what it costs that many events wait for a subscription: the start, and how
// fast it catches up, which must not depend on how many they are.
func backlog(e engine) trial {
	return trial{
		name: fmt.Sprintf("backlog, %s", e),
		measure: on(e, func(ctx context.Context, i *installation, found *facts) error {
			b := &backlogged{installation: i, receiver: newReceiver()}
			if err := b.listen(ctx, b.receiver); err != nil {
				return err
			}
			err := b.subscribe(ctx, 1, func(int) v1alpha1.WebhookSubscriptionSpec {
				spec := b.calling(1)
				spec.Events, spec.Suspend = nil, new(true)
				return spec
			})
			if err != nil {
				return err
			}
			return b.measure(ctx, found)
		}),
	}
}

// backlogged is an installation with one subscription that matches every event.
type backlogged struct {
	*installation
	receiver *receiver
}

func (b *backlogged) measure(ctx context.Context, found *facts) error {
	small := importing{name: "small", contacts: smallBacklog / 2, subscribed: true}
	large := importing{name: "large", contacts: b.plane.backlog / 2, subscribed: true}
	if err := small.run(ctx, b.installation); err != nil {
		return err
	}
	few, err := b.catchUp(ctx, small.events())
	if err != nil {
		return err
	}
	if err := b.suspend(ctx, true); err != nil {
		return err
	}
	began := time.Now()
	if err := large.run(ctx, b.installation); err != nil {
		return err
	}
	found.add(fact{name: "import", unit: "events/s"}, float64(large.events())/time.Since(began).Seconds())
	if err := b.addStart(ctx, found, large.events()); err != nil {
		return err
	}
	many, err := b.catchUp(ctx, min(small.events(), large.events()))
	if err != nil {
		return err
	}
	found.add(fact{name: fmt.Sprintf("catching up with %d", small.events()), unit: "calls/s"}, few)
	found.add(fact{name: fmt.Sprintf("catching up with %d", large.events()), unit: "calls/s"}, many)
	found.add(fact{name: "ratio of these", digits: 2, least: 0.9}, many/few)
	return nil
}

// catchUp lets events go that wait, and returns how many calls a second are made of the
// first of them.
func (b *backlogged) catchUp(ctx context.Context, calls int) (perSecond float64, err error) {
	arrived := b.receiver.expect(calls)
	if err := b.suspend(ctx, false); err != nil {
		return 0, err
	}
	return arrived(ctx)
}

// addStart adds how long it takes with the backlog until Postbus is ready, and until it
// knows again how many events wait.
func (b *backlogged) addStart(ctx context.Context, found *facts, waiting int) error {
	if err := errors.Join(b.awaitQuiet(ctx), b.dispatcher().stop()); err != nil {
		return err
	}
	began := time.Now()
	if err := b.start(ctx, b.dispatcher()); err != nil {
		return err
	}
	found.add(fact{name: fmt.Sprintf("start until it is ready with %d events waiting", waiting), unit: "s", digits: 2, most: 10}, time.Since(began).Seconds())
	err := b.awaitMetric(ctx, "postbus_dispatcher_pending_events", float64(waiting))
	found.add(fact{name: "start until they are counted", unit: "s", digits: 1}, time.Since(began).Seconds())
	return err
}
