package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// trial finds out several things at once that have no limit of their own beside them.
type trial struct {
	name string
	// measure adds a value to each of its facts a round.
	measure func(ctx context.Context, p *plane, found *facts) error
}

// trials are all that there are.
func trials() []trial {
	all := []trial{disk()}
	for _, e := range []engine{sqliteEngine, postgresEngine} {
		all = append(all, keepUp(e), neighbours(e), replaying(e), idle(e), backlog(e), growth(e), apiWrites(e), attacks(e))
	}
	return all
}

// on returns what measures on an installation of its own: of one process, unless
// commands name others.
func on(e engine, measure func(ctx context.Context, i *installation, found *facts) error, commands ...string) func(context.Context, *plane, *facts) error {
	if len(commands) == 0 {
		commands = []string{"standalone"}
	}
	return func(ctx context.Context, p *plane, found *facts) (err error) {
		i, err := p.installOf(ctx, e, 1, commands...)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, i.close()) }()
		return measure(ctx, i, found)
	}
}

// fact is something that was found out.
type fact struct {
	// name is what it is, behind the name of the trial.
	name string
	unit string
	// digits is how many are told behind the point.
	digits int
	// most and least are bars; 0 where there are none.
	most, least float64
	values      []float64
}

// facts are what the rounds of a trial found out, in the order of the first.
type facts struct{ all []*fact }

// add adds a value to a fact, which begins with it the first time.
func (f *facts) add(found fact, value float64) {
	for _, known := range f.all {
		if known.name == found.name {
			known.values = append(known.values, value)
			return
		}
	}
	found.values = []float64{value}
	f.all = append(f.all, &found)
}

// try measures a trial in rounds.
func try(ctx context.Context, p *plane, t trial, rounds int, found *facts) error {
	for range rounds {
		if err := t.measure(ctx, p, found); err != nil {
			return err
		}
	}
	for _, fact := range found.all {
		fact.name = t.name + ": " + fact.name
	}
	return nil
}

// row is the fact as a row of the table.
func (f *fact) row() string {
	measured := spreadOf(f.values).number(f.digits)
	if len(f.values) == 1 {
		measured = fmt.Sprintf("%.*f", f.digits, f.values[0])
	}
	return fmt.Sprintf("| %s | %s | %s |", f.name, strings.TrimSpace(measured+" "+f.unit), f.bar())
}

// bar is what is asked of it, and whether that was missed.
func (f *fact) bar() string {
	median, bar, missed := spreadOf(f.values).median, "", false
	switch {
	case f.most > 0:
		bar, missed = fmt.Sprintf("at most %g", f.most), median > f.most
	case f.least > 0:
		bar, missed = fmt.Sprintf("at least %g", f.least), median < f.least
	}
	if missed {
		bar += missedMark
	}
	return bar
}
