package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// report tells what was seen, as Markdown.
func report(p *poster, r result, observed []observation) string {
	var text strings.Builder
	accepted := p.accepted()
	slices.SortFunc(accepted, func(a, b acceptance) int { return a.at.Compare(b.at) })
	fmt.Fprintf(&text, "| accepted contacts | their events | not delivered | repeated under the same id | under two ids | out of order | most calls a second of /limited | calls of /gone, within |\n"+
		"| --- | --- | --- | --- | --- | --- | --- | --- |\n| %d | %d | %d | %d | %d | %d | %d | %d, %.1f s |\n",
		r.accepted, 2*r.accepted, len(r.missing), r.again, len(r.twoIDs), len(r.early), r.limited, len(r.gone), r.goneLasted().Seconds())
	if len(p.refused) > 0 {
		text.WriteString("\nCalls that were made again:")
		for _, problem := range slices.Sorted(maps.Keys(p.refused)) {
			fmt.Fprintf(&text, " %s %d times;", problem, p.refused[problem])
		}
		text.WriteString("\n")
	}
	if len(observed) == 0 {
		return text.String()
	}
	text.WriteString("\n| fault | it took | longest time without accepting | slowest accepted |\n| --- | --- | --- | --- |\n")
	for _, o := range observed {
		gap, slowest := during(accepted, o)
		fmt.Fprintf(&text, "| %s | %.1f s | %.1f s | %.1f s |\n", o.name, o.took.Seconds(), gap.Seconds(), slowest.Seconds())
	}
	return text.String()
}

// during returns the longest time without an accepted contact while a fault went
// on, and the longest that an accepted one took. accepted is in order of time.
func during(accepted []acceptance, o observation) (gap, slowest time.Duration) {
	last := o.began
	for _, a := range accepted {
		if a.at.Before(o.began) || a.at.After(o.settled) {
			continue
		}
		gap, slowest, last = max(gap, a.at.Sub(last)), max(slowest, a.took), a.at
	}
	return max(gap, o.settled.Sub(last)), slowest
}
