package main

import (
	"context"
	"errors"
	"fmt"
)

// figure is something to be measured beside its limit.
type figure struct {
	name string
	unit string
	// bar is the least ratio of the figure to its limit; 0 where there is none.
	bar float64
	// prepare makes what the rounds need. Both are measured once to warm up.
	prepare func(ctx context.Context, p *plane) (subject, error)
}

// subject is a figure that is ready to be measured.
type subject interface {
	// measure measures Postbus, and limit what the figure is compared with.
	measure(ctx context.Context) (measurement, error)
	limit(ctx context.Context) (float64, error)
	// close ends and removes what was prepared.
	close() error
}

// measurement is what Postbus did in a round, and what that took.
type measurement struct {
	perSecond float64
	// cost is that of 10,000 contacts or calls.
	cost cost
}

// figures are all that there are.
func figures() []figure {
	var all []figure
	for _, e := range []engine{sqliteEngine, postgresEngine} {
		for _, callers := range []int{1, 16, 64, 256} {
			all = append(all, accepting(acceptingCase{engine: e, callers: callers, format: formFormat}))
		}
		all = append(all,
			accepting(acceptingCase{engine: e, callers: 64, format: jsonFormat}),
			accepting(acceptingCase{engine: e, callers: 64, format: formFormat, known: true}),
		)
		all = append(all, deliverings(e)...)
	}
	return all
}

// result is what the rounds of a figure gave.
type result struct {
	figure
	measured, limits, ratios []float64
	// seconds and megabytes are processor time and allocations for 10,000, database is the
	// processor time of the database's server.
	seconds, megabytes, database []float64
}

// measure measures a figure and its limit in turn.
func measure(ctx context.Context, p *plane, f figure, rounds int) (r result, err error) {
	r.figure = f
	s, err := f.prepare(ctx, p)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for round := range rounds + 1 {
		measured, err := s.measure(ctx)
		if err != nil {
			return r, err
		}
		limit, err := s.limit(ctx)
		if err != nil {
			return r, fmt.Errorf("its limit: %w", err)
		}
		if round == 0 {
			continue // to warm up
		}
		r.measured = append(r.measured, measured.perSecond)
		r.limits = append(r.limits, limit)
		r.ratios = append(r.ratios, measured.perSecond/limit)
		r.seconds = append(r.seconds, measured.cost.seconds)
		r.megabytes = append(r.megabytes, measured.cost.bytes/megabyte)
		r.database = append(r.database, measured.cost.database)
	}
	return r, nil
}
