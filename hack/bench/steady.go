package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// postSteadily posts contacts at a rate, however long each takes, and returns when each
// was begun once all are answered; the time of those that are refused is zero. It falls
// behind no clock: where the machine was away the next ones are posted at once.
func postSteadily(ctx context.Context, perSecond, contacts int, contact func(n int) posted) (began []time.Time, err error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}, Timeout: startPatience}
	defer client.CloseIdleConnections()
	began = make([]time.Time, contacts)
	errs := make([]error, contacts)
	var calls sync.WaitGroup
	defer calls.Wait()
	for start, n := time.Now(), 0; n < contacts; n++ {
		select {
		case <-time.After(time.Until(start.Add(time.Duration(n) * time.Second / time.Duration(perSecond)))):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		began[n] = time.Now()
		calls.Go(func() { errs[n] = post(ctx, client, contact(n)) })
	}
	calls.Wait()
	for n, err := range errs {
		switch {
		case errors.Is(err, errRefused):
			began[n] = time.Time{}
		case err != nil:
			return nil, err
		}
	}
	return began, nil
}

// timed posts contacts of a list at a rate, for a time, and returns how long it took
// until the callback had the event of each that was not refused.
func (a *arrivals) timed(ctx context.Context, i *installation, load steadyLoad) ([]time.Duration, error) {
	address := func(n int) string { return fmt.Sprintf("contact-%s-%d@example.com", load.name, n) }
	began, err := postSteadily(ctx, load.perSecond, load.contacts(), func(n int) posted { return i.contact(0, address(n)) })
	if err != nil {
		return nil, err
	}
	var took []time.Duration
	for n := range began {
		if began[n].IsZero() {
			continue
		}
		arrived, err := a.await(ctx, address(n))
		if err != nil {
			return nil, err
		}
		took = append(took, arrived.Sub(began[n]))
	}
	if len(took) == 0 {
		return nil, fmt.Errorf("post %d contacts a second: %w", load.perSecond, errRefused)
	}
	return took, nil
}

// steadyLoad is how contacts are posted.
type steadyLoad struct {
	// name is in their addresses, so that they are new.
	name      string
	perSecond int
	during    time.Duration
}

// contacts is how many they are.
func (l steadyLoad) contacts() int { return int(l.during.Seconds() * float64(l.perSecond)) }
