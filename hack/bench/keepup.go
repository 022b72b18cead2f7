package main

import (
	"context"
	"fmt"
	"time"
)

const (
	// fanOut is to how many subscriptions each event goes.
	fanOut = 1000
	// fanOutRate is how many events there are in a second, fanOutTime for how long.
	fanOutRate = 100
	fanOutTime = 10 * time.Second
)

// keepUp is how well a great many calls are kept up with: 1,000 subscriptions that match
// each of 100 events a second. What it tells beside is what a bare client does.
func keepUp(e engine) trial {
	return trial{
		name: fmt.Sprintf("keeping up, %s, %d events/s to %d subscriptions", e, fanOutRate, fanOut),
		measure: on(e, func(ctx context.Context, i *installation, found *facts) error {
			receiver := newReceiver()
			if err := i.listen(ctx, receiver); err != nil {
				return err
			}
			if err := i.subscribeAlike(ctx, fanOut); err != nil {
				return err
			}
			bare, err := i.fanOutLimit(ctx, receiver)
			if err != nil {
				return err
			}
			before, began := receiver.count(), time.Now()
			_, err = postSteadily(ctx, fanOutRate, fanOutRate*int(fanOutTime.Seconds()), func(n int) posted {
				return i.contact(0, fmt.Sprintf("contact-%d@example.com", n))
			})
			calls, took := float64(receiver.count()-before), time.Since(began).Seconds()
			found.add(fact{name: "calls", unit: "calls/s"}, calls/took)
			found.add(fact{name: "a bare client's", unit: "calls/s"}, bare)
			found.add(fact{name: "ratio of these", digits: 2}, calls/took/bare)
			found.add(fact{name: "how far behind at the end", unit: "s", digits: 1}, max(0, took-calls/fanOut/fanOutRate))
			if err != nil {
				return err
			}
			began = time.Now()
			err = i.dispatcher().stop()
			found.add(fact{name: "stop while it is behind", unit: "s", digits: 1, most: stopPatience.Seconds()}, time.Since(began).Seconds())
			return err
		}),
	}
}

// fanOutLimit has one event sent to all, and returns how many such calls a second a bare
// client makes.
func (i *installation) fanOutLimit(ctx context.Context, receiver *receiver) (perSecond float64, err error) {
	arrived := receiver.expect(fanOut)
	if _, err := load(ctx, 1, 1, func(int) posted { return i.contact(0, "first@example.com") }); err != nil {
		return 0, err
	}
	if _, err := arrived(ctx); err != nil {
		return 0, err
	}
	if err := i.awaitQuiet(ctx); err != nil {
		return 0, err
	}
	return bareCallsTo(ctx, i.callback.url, receiver, 40*fanOut, maxCallers)
}
