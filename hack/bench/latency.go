package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
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
	engine engine
	// perSecond is how many contacts are posted in a second; 0 for half of what are
	// accepted at most.
	perSecond int
}

// latencies are all that are measured.
func latencies() (all []latency) {
	for _, e := range []engine{sqliteEngine, postgresEngine} {
		for _, perSecond := range []int{50, 200, 1000, 0} {
			all = append(all, latency{engine: e, perSecond: perSecond})
		}
	}
	return all
}

func (l latency) name() string {
	rate := strconv.Itoa(l.perSecond)
	if l.perSecond == 0 {
		rate = "half of the most"
	}
	return fmt.Sprintf("latency, %s: %s contacts a second", l.engine, rate)
}

// latencyResult are percentiles, in milliseconds, of each round.
type latencyResult struct {
	latency
	// rate is how many contacts were posted in a second.
	rate int
	// refused is how many of all were, as there were too many calls at a time.
	refused       int
	p50, p95, p99 []float64
}

func (r latencyResult) row() string {
	bar := ""
	if r.bar() > 0 {
		bar = fmt.Sprint(r.bar())
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s |", r.title(),
		spreadOf(r.p50).number(1), spreadOf(r.p95).number(1), spreadOf(r.p99).number(1), bar)
}

// title is its name, with the rate where that was measured, and how many were refused.
func (r latencyResult) title() string {
	title := r.name()
	if r.perSecond == 0 {
		title += fmt.Sprintf(" (%d)", r.rate)
	}
	if r.refused > 0 {
		title += fmt.Sprintf(", %d refused", r.refused)
	}
	return title
}

// bar is the most that the 99th percentile may be, in milliseconds; 0 where nothing is
// asked.
func (l latency) bar() float64 {
	if l.perSecond == 200 {
		return latencyBar.Seconds() * 1000
	}
	return 0
}

// measureLatency measures one latency in rounds, after one to warm up.
func measureLatency(ctx context.Context, p *plane, l latency, rounds int) (r latencyResult, err error) {
	r = latencyResult{latency: l, rate: l.perSecond}
	if r.rate == 0 {
		most, err := p.mostAccepted(ctx, l.engine)
		if err != nil {
			return r, err
		}
		r.rate = int(most / 2)
	}
	installed, err := p.install(ctx, l.engine, 1)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, installed.close()) }()
	times := newArrivals()
	if err := installed.listen(ctx, times); err != nil {
		return r, err
	}
	if err := installed.subscribeAlike(ctx, 1); err != nil {
		return r, err
	}
	for round := range rounds + 1 {
		load := steadyLoad{name: strconv.Itoa(round), perSecond: r.rate, during: latencyTime}
		took, err := times.timed(ctx, installed, load)
		if err != nil {
			return r, err
		}
		if round > 0 {
			r.refused += load.contacts() - len(took)
			r.p50 = append(r.p50, percentile(took, 50))
			r.p95 = append(r.p95, percentile(took, 95))
			r.p99 = append(r.p99, percentile(took, 99))
		}
	}
	return r, nil
}

// mostAccepted returns how many contacts a second are accepted from 64 callers: what was
// measured in this run, or is now.
func (p *plane) mostAccepted(ctx context.Context, e engine) (float64, error) {
	if p.accepted[e] == 0 {
		_, err := measure(ctx, p, accepting(acceptingCase{engine: e, callers: 64, format: formFormat}), 1)
		if err != nil {
			return 0, err
		}
	}
	return p.accepted[e], nil
}

// percentile returns a percentile in milliseconds.
func percentile(took []time.Duration, percent int) float64 {
	sorted := slices.Sorted(slices.Values(took))
	return sorted[(len(sorted)-1)*percent/100].Seconds() * 1000
}
