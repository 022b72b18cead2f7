package main

import (
	"context"
	"errors"
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
		name: fmt.Sprintf("keeping up, %s: %d events/s to %d subscriptions", e, fanOutRate, fanOut),
		measure: func(ctx context.Context, p *plane, found *facts) (err error) {
			receiver := newReceiver()
			called, err := listen(ctx, receiver)
			if err != nil {
				return err
			}
			defer called.close()
			installed, err := p.install(ctx, e, 1)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, installed.close()) }()
			if err := installed.subscribe(ctx, fanOut, callingAll(called, fanOut)); err != nil {
				return err
			}
			bare, err := fanOutLimit(ctx, installed, receiver, called.url)
			if err != nil {
				return err
			}
			before, began := receiver.count(), time.Now()
			_, err = postSteadily(ctx, fanOutRate, fanOutRate*int(fanOutTime.Seconds()), func(n int) posted {
				return installed.contact(0, fmt.Sprintf("contact-%d@example.com", n))
			})
			if err != nil {
				return err
			}
			calls, took := float64(receiver.count()-before), time.Since(began).Seconds()
			found.add(fact{name: "calls", unit: "calls/s"}, calls/took)
			found.add(fact{name: "a bare client's", unit: "calls/s"}, bare)
			found.add(fact{name: "ratio of these", digits: 2}, calls/took/bare)
			found.add(fact{name: "how far behind after " + fanOutTime.String(), unit: "s", digits: 1}, max(0, took-calls/fanOut/fanOutRate))
			return nil
		},
	}
}

// fanOutLimit has one event sent to all, and returns how many such calls a second a bare
// client makes.
func fanOutLimit(ctx context.Context, installed *installation, receiver *receiver, url string) (perSecond float64, err error) {
	arrived := receiver.expect(fanOut)
	if _, err := load(ctx, 1, 1, func(int) posted { return installed.contact(0, "first@example.com") }); err != nil {
		return 0, err
	}
	if _, err := arrived(ctx); err != nil {
		return 0, err
	}
	if err := installed.awaitQuiet(ctx); err != nil {
		return 0, err
	}
	return bareCallsTo(ctx, url, receiver, 40*fanOut, maxCallers)
}
