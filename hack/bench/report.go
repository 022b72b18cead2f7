package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
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

// row is the result as a row of the table.
func (r result) row() string {
	bar := ""
	if r.bar > 0 {
		bar = fmt.Sprintf("%.2f", r.bar)
	}
	return fmt.Sprintf("| %s | %s %s | %s | %s | %s | %s | %s |", r.name, spreadOf(r.measured).number(0), r.unit,
		spreadOf(r.limits).number(0), spreadOf(r.ratios).number(2), bar, spreadOf(r.seconds).number(2), spreadOf(r.megabytes).number(0))
}

// report is what was measured in one run.
type report struct {
	rounds    int
	results   []result
	latencies []latencyResult
}

// text is the tables with what they were made by.
func (r report) text() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%d rounds, medians, and in brackets the least and the greatest. Made by %s on %s.\n", r.rounds, runtime.Version(), machine())
	if len(r.results) > 0 {
		text.WriteString("\n| | Postbus | limit | ratio | bar | CPU s for 10,000 | MB allocated for 10,000 |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	}
	for _, result := range r.results {
		text.WriteString(result.row() + "\n")
	}
	if len(r.latencies) > 0 {
		text.WriteString("\n| ms from post to callback | p50 | p95 | p99 | bar |\n| --- | --- | --- | --- | --- |\n")
	}
	for _, result := range r.latencies {
		text.WriteString(result.row() + "\n")
	}
	return text.String()
}

// machine names what this runs on.
func machine() string {
	model := runtime.GOARCH
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
			}
		}
	}
	return fmt.Sprintf("%d cores of %s, %s", runtime.NumCPU(), model, runtime.GOOS)
}

// write puts the report between the marks of a file.
func (r report) write(path string) error {
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
	return nil
}
