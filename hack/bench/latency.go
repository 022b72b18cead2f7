package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	// latencyTime is how long a round posts contacts.
	latencyTime = 10 * time.Second
	// latencyBar is the most that the 99th percentile may be at 200 contacts a
	// second.
	latencyBar = 25 * time.Millisecond
)

// latency is how long it takes from when a contact is posted until the callback has
// its event.
type latency struct {
	engine    engine
	perSecond int
}

// latencies are all that are measured.
func latencies() (all []latency) {
	for _, e := range []engine{sqliteEngine, postgresEngine} {
		for _, perSecond := range []int{50, 200, 1000} {
			all = append(all, latency{engine: e, perSecond: perSecond})
		}
	}
	return all
}

func (l latency) name() string {
	return fmt.Sprintf("latency, %s: %d contacts a second", l.engine, l.perSecond)
}

// latencyResult are percentiles, in milliseconds, of each round.
type latencyResult struct {
	latency
	p50, p95, p99 []float64
}

func (r latencyResult) row() string {
	bar := ""
	if r.perSecond == 200 {
		bar = fmt.Sprint(latencyBar.Milliseconds())
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s |", r.name(),
		spreadOf(r.p50).number(1), spreadOf(r.p95).number(1), spreadOf(r.p99).number(1), bar)
}

// measureLatency measures one latency in rounds, after one to warm up.
func measureLatency(ctx context.Context, p *plane, l latency, rounds int) (r latencyResult, err error) {
	r.latency = l
	times := &arrivals{at: map[string]time.Time{}}
	s := &deliveringSubject{engine: l.engine, subscriptions: 1, handler: times}
	if err := s.prepare(ctx, p); err != nil {
		return r, errors.Join(err, s.close())
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.suspend(ctx, false); err != nil {
		return r, err
	}
	for round := range rounds + 1 {
		took, err := l.round(ctx, s.installed, times, round)
		if err != nil {
			return r, err
		}
		if round > 0 {
			r.p50 = append(r.p50, percentile(took, 50))
			r.p95 = append(r.p95, percentile(took, 95))
			r.p99 = append(r.p99, percentile(took, 99))
		}
	}
	return r, nil
}

// round posts contacts at the rate, however long each takes, and returns how long
// their events took to arrive.
func (l latency) round(ctx context.Context, installed *installation, times *arrivals, round int) ([]time.Duration, error) {
	contacts := int(latencyTime.Seconds()) * l.perSecond
	began := make([]time.Time, contacts)
	tick := time.NewTicker(time.Second / time.Duration(l.perSecond))
	defer tick.Stop()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}, Timeout: startPatience}
	defer client.CloseIdleConnections()
	errs := make(chan error, contacts)
	var calls sync.WaitGroup
	for n := range contacts {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		began[n] = time.Now()
		calls.Go(func() {
			errs <- post(ctx, client, posted{
				url: installed.ingress + contactPath, contentType: "application/x-www-form-urlencoded",
				body: fmt.Sprintf("key=%s&email=%s&permission=2", installed.key, latencyAddress(round, n)),
			})
		})
	}
	calls.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return nil, err
		}
	}
	took := make([]time.Duration, contacts)
	for n := range took {
		arrived, err := times.await(ctx, latencyAddress(round, n))
		if err != nil {
			return nil, err
		}
		took[n] = arrived.Sub(began[n])
	}
	return took, nil
}

func latencyAddress(round, n int) string { return fmt.Sprintf("contact-%d-%d@example.com", round, n) }

// percentile returns a percentile in milliseconds.
func percentile(took []time.Duration, percent int) float64 {
	sorted := slices.Sorted(slices.Values(took))
	return sorted[(len(sorted)-1)*percent/100].Seconds() * 1000
}
