package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The marks in the documentation that the results are written between.
const (
	beginMark = "<!-- make bench writes from here -->\n"
	endMark   = "<!-- to here -->\n"
)

// spread is the median of what rounds gave, and their least and greatest.
type spread struct{ median, least, most float64 }

func spreadOf(values []float64) spread {
	sorted := slices.Sorted(slices.Values(values))
	return spread{median: sorted[len(sorted)/2], least: sorted[0], most: sorted[len(sorted)-1]}
}

// number is the spread with so many digits behind the point.
func (s spread) number(digits int) string {
	return fmt.Sprintf("%.*f (%.*f–%.*f)", digits, s.median, digits, s.least, digits, s.most)
}

// missedMark stands behind a bar that was missed.
const missedMark = ", **missed**"

// row is the result as a row of the table.
func (r result) row() string {
	bar, database := "", ""
	if r.bar > 0 {
		bar = fmt.Sprintf("%.2f", r.bar)
		if spreadOf(r.ratios).median < r.bar {
			bar += missedMark
		}
	}
	if used := spreadOf(r.database); used.most > 0 {
		database = used.number(2)
	}
	return fmt.Sprintf("| %s | %s %s | %s | %s | %s | %s | %s | %s |", r.name, spreadOf(r.measured).number(0), r.unit,
		spreadOf(r.limits).number(0), spreadOf(r.ratios).number(2), bar, spreadOf(r.seconds).number(2), database, spreadOf(r.megabytes).number(0))
}

// report is what was measured in one run.
type report struct {
	rounds int
	// versions are those of what took part.
	versions string
	// took is how long that took.
	took      time.Duration
	results   []result
	latencies []latencyResult
	facts     []*fact
}

// task is something to be measured for a report.
type task struct {
	name string
	run  func(ctx context.Context) error
	// rows are what came of it.
	rows func() []string
}

// tasks are all that can be measured, which they add to the report.
func (r *report) tasks(p *plane) (all []task) {
	for _, f := range figures() {
		all = append(all, task{
			name: f.name,
			run: func(ctx context.Context) error {
				measured, err := measure(ctx, p, f, r.rounds)
				if err == nil {
					r.results = append(r.results, measured)
				}
				return err
			},
			rows: func() []string { return rowsOf(last(r.results)) },
		})
	}
	for _, l := range latencies() {
		all = append(all, task{
			name: l.name(),
			run: func(ctx context.Context) error {
				measured, err := measureLatency(ctx, p, l, r.rounds)
				if err == nil {
					r.latencies = append(r.latencies, measured)
				}
				return err
			},
			rows: func() []string { return rowsOf(last(r.latencies)) },
		})
	}
	for _, t := range trials() {
		found := &facts{}
		all = append(all, task{
			name: t.name,
			run: func(ctx context.Context) error {
				err := try(ctx, p, t, r.rounds, found)
				r.facts = append(r.facts, found.all...)
				return err
			},
			rows: func() []string { return rowsOf(found.all) },
		})
	}
	return all
}

// measure runs the tasks that are asked for, and tells of each when it is done. One that
// fails does not keep the others from being told, which have taken long.
func (r *report) measure(ctx context.Context, p *plane) error {
	var failed []error
	began := time.Now()
	for _, task := range r.tasks(p) {
		if !p.figures.MatchString(task.name) {
			continue
		}
		err := task.run(ctx)
		r.took = time.Since(began)
		told := strings.Join(task.rows(), "\n        ")
		if err != nil {
			err = fmt.Errorf("measure %s: %w", task.name, err)
			failed, told = append(failed, err), err.Error()
		}
		fmt.Fprintf(os.Stderr, "%6s  %s\n", r.took.Round(time.Second), told)
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failed...)
}

// last returns the last of some, or none of none.
func last[T any](all []T) []T { return all[max(0, len(all)-1):] }

// rowed is what a row of a table can be made of.
type rowed interface{ row() string }

func rowsOf[R rowed](found []R) (rows []string) {
	for _, r := range found {
		rows = append(rows, r.row())
	}
	return rows
}

// text is the tables with what they were made by.
func (r *report) text() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%d rounds, medians, and in brackets the least and the greatest. Made in %d minutes by %s on %s.\n",
		r.rounds, int(r.took.Minutes())+1, r.versions, machine())
	if len(r.results) > 0 {
		table(&text, "| | Postbus | limit | ratio | bar | CPU s for 10,000 | PostgreSQL's CPU s for 10,000 | MB allocated for 10,000 |", rowsOf(r.results))
		text.WriteString("\n![The ratios as bars](" + ratioFile + ")\n")
	}
	if len(r.latencies) > 0 {
		table(&text, "| ms from post to callback | p50 | p95 | p99 | bar |", rowsOf(r.latencies))
		text.WriteString("\n![The latencies as bars](" + latencyFile + ")\n")
	}
	table(&text, "| | measured | bar |", rowsOf(r.facts))
	return text.String()
}

// table writes a table, if it has rows.
func table(text *strings.Builder, head string, rows []string) {
	if len(rows) == 0 {
		return
	}
	line := strings.Repeat("| --- ", strings.Count(head, "|")-1) + "|"
	for _, row := range slices.Concat([]string{"", head, line}, rows) {
		text.WriteString(row + "\n")
	}
}

// write puts the report between the marks of a file, and its plots beside that.
func (r *report) write(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read what gets the results: %w", err)
	}
	before, rest, begins := bytes.Cut(text, []byte(beginMark))
	_, after, ends := bytes.Cut(rest, []byte(endMark))
	if !begins || !ends {
		return errors.New("write the results: " + path + " has no marks for them")
	}
	whole := slices.Concat(before, []byte(beginMark+"\n"+r.text()+"\n"+endMark), after)
	if err := os.WriteFile(path, whole, 0o644); err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	return r.writePlots(filepath.Dir(path))
}
