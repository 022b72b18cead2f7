package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"k8s.io/client-go/rest"
)

const (
	// writingSubscriptions is how many there are while writes are counted.
	writingSubscriptions = 100
	// writesTime is for how long they are counted.
	writesTime = 30 * time.Second
)

// apiWrites is how often the API server is written to on account of a subscription, in
// an hour: while nothing happens, and while it gets an event each second.
func apiWrites(e engine) trial {
	return trial{
		name: fmt.Sprintf("API server, %s, %d subscriptions", e, writingSubscriptions),
		measure: on(e, func(ctx context.Context, i *installation, found *facts) error {
			if err := i.listen(ctx, newReceiver()); err != nil {
				return err
			}
			if err := i.subscribeAlike(ctx, writingSubscriptions); err != nil {
				return err
			}
			if err := i.awaitQuiet(ctx); err != nil {
				return err
			}
			err := i.plane.addWrites(ctx, found, "while idle", func() error {
				select {
				case <-time.After(writesTime):
				case <-ctx.Done():
				}
				return ctx.Err()
			})
			if err != nil {
				return err
			}
			return i.plane.addWrites(ctx, found, "with an event a second each", func() error {
				_, err := postSteadily(ctx, 1, int(writesTime.Seconds()), func(n int) posted {
					return i.contact(0, fmt.Sprintf("contact-%d@example.com", n))
				})
				return err
			})
		}),
	}
}

// addWrites adds the writes that are made meanwhile.
func (p *plane) addWrites(ctx context.Context, found *facts, name string, meanwhile func() error) error {
	before, err := p.writes(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := meanwhile(); err != nil {
		return err
	}
	after, err := p.writes(ctx)
	hours := time.Since(began).Hours()
	found.add(fact{name: "writes a subscription and hour " + name, digits: 1}, (after.subscriptions-before.subscriptions)/hours/writingSubscriptions)
	found.add(fact{name: "other writes an hour " + name}, (after.others-before.others)/hours)
	return err
}

// writes are how often the API server was written to: subscriptions with their status,
// and whatever else Postbus writes, such as its Lease.
type writes struct{ subscriptions, others float64 }

// writes asks the API server how often that was.
func (p *plane) writes(ctx context.Context) (w writes, err error) {
	client, err := rest.HTTPClientFor(p.cluster.Config)
	if err != nil {
		return w, fmt.Errorf("make a client of the API server: %w", err)
	}
	client.Timeout = startPatience
	return readWrites(ctx, client, p.cluster.Config.Host+"/metrics")
}

func readWrites(ctx context.Context, client *http.Client, url string) (w writes, err error) {
	told, err := readMetrics(ctx, client, url)
	if err != nil {
		return w, err
	}
	const requests = "apiserver_request_total"
	w.subscriptions = told.sum(requests, func(labels map[string]string) bool {
		return writing(labels) && labels["resource"] == "webhooksubscriptions"
	})
	w.others = told.sum(requests, func(labels map[string]string) bool {
		return writing(labels) && slices.Contains([]string{"apikeys", "contactlists", "secrets", "events", "leases"}, labels["resource"])
	})
	return w, nil
}

// writing tells whether a series is of requests that change something.
func writing(labels map[string]string) bool {
	return slices.Contains([]string{"POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"}, labels["verb"])
}
