package main

import (
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"strings"
)

// plot is a picture of bars that lie one below the other, with their names before them.
type plot struct {
	title string
	// least and most are the ends of the scale, ticks what is written at it.
	least, most float64
	ticks       []float64
	// logarithmic: the same distance is the same factor.
	logarithmic bool
	rows        []plotRow
}

// plotRow is what has a name: bars, and a line that they are measured by, if it is not 0.
type plotRow struct {
	name string
	bars []plotBar
	bar  float64
}

// plotBar is a median with its spread, and what is written behind it.
type plotBar struct {
	spread spread
	text   string
}

// The measures of a plot, in pixels.
const (
	plotWidth  = 1000
	plotNames  = 410 // where bars begin
	plotEnd    = 940 // where the scale ends; texts stand behind it
	plotTop    = 60
	barHeight  = 12
	rowDistant = 8
)

// plotStyle has texts readable on light and on dark.
const plotStyle = `<style>
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-weight: bold; font-size: 14px }
.name { text-anchor: end }
.tick { text-anchor: middle }
.grid { stroke: #8c959f; stroke-opacity: .35 }
.bar0 { fill: #54aeff } .bar1 { fill: #80ccff } .bar2 { fill: #b6e3ff }
.spread { stroke: #24292f; stroke-width: 1.5 }
.asked { stroke: #cf222e; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.spread { stroke: #e6edf3 }
.bar0 { fill: #388bfd } .bar1 { fill: #1f6feb } .bar2 { fill: #0d419d }
.asked { stroke: #ff7b72 }
}
</style>
`

// svg draws the plot.
func (p plot) svg() string {
	height := plotTop + 20
	for _, row := range p.rows {
		height += len(row.bars)*barHeight + rowDistant
	}
	var out strings.Builder
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s">`+"\n%s", plotWidth, height, html.EscapeString(p.title), plotStyle)
	fmt.Fprintf(&out, `<text class="title" x="10" y="20">%s</text>`+"\n", html.EscapeString(p.title))
	for _, tick := range p.ticks {
		fmt.Fprintf(&out, `<text class="tick" x="%.0f" y="%d">%g</text><path class="grid" d="M%.0f %dV%d"/>`+"\n",
			p.at(tick), plotTop-12, tick, p.at(tick), plotTop-6, height-10)
	}
	top := plotTop
	for _, row := range p.rows {
		p.draw(&out, row, top)
		top += len(row.bars)*barHeight + rowDistant
	}
	out.WriteString("</svg>\n")
	return out.String()
}

// draw draws a row from a height on.
func (p plot) draw(out *strings.Builder, row plotRow, top int) {
	height := len(row.bars) * barHeight
	fmt.Fprintf(out, `<text class="name" x="%d" y="%d">%s</text>`+"\n", plotNames-8, top+height/2+4, html.EscapeString(row.name))
	for n, bar := range row.bars {
		y := top + n*barHeight
		fmt.Fprintf(out, `<rect class="bar%d" x="%d" y="%d" width="%.1f" height="%d"/>`, n%3, plotNames, y, p.at(bar.spread.median)-plotNames, barHeight-1)
		fmt.Fprintf(out, `<path class="spread" d="M%.1f %dH%.1f"/>`, p.at(bar.spread.least), y+barHeight/2, p.at(bar.spread.most))
		fmt.Fprintf(out, `<text x="%.1f" y="%d">%s</text>`+"\n", p.at(bar.spread.most)+6, y+barHeight-2, html.EscapeString(bar.text))
	}
	if row.bar > 0 {
		fmt.Fprintf(out, `<path class="asked" d="M%.1f %dv%d"/>`+"\n", p.at(row.bar), top-3, height+5)
	}
}

// at is where a value is on the scale, or the end of it that is nearest.
func (p plot) at(value float64) float64 {
	value = min(max(value, p.least), p.most)
	share := (value - p.least) / (p.most - p.least)
	if p.logarithmic {
		share = math.Log(value/p.least) / math.Log(p.most/p.least)
	}
	return plotNames + share*(plotEnd-plotNames)
}

// ratioPlot shows how near figures are to their limits.
func ratioPlot(results []result) plot {
	p := plot{title: "Postbus as a share of its limit: median, spread, and what is asked (red)", most: 1.2, ticks: []float64{0, 0.2, 0.4, 0.6, 0.8, 1, 1.2}}
	for _, r := range results {
		ratio := spreadOf(r.ratios)
		p.rows = append(p.rows, plotRow{name: r.name, bar: r.bar, bars: []plotBar{{ratio, fmt.Sprintf("%.2f", ratio.median)}}})
	}
	return p
}

// latencyPlot shows how long events take at each rate.
func latencyPlot(results []latencyResult) plot {
	p := plot{
		title: "Milliseconds from post to callback: p50, p95, p99, and what is asked of p99 (red)",
		least: 0.1, most: 1000, ticks: []float64{0.1, 1, 10, 100, 1000}, logarithmic: true,
	}
	for _, r := range results {
		row := plotRow{name: r.title(), bar: r.bar()}
		for _, percentile := range [][]float64{r.p50, r.p95, r.p99} {
			took := spreadOf(percentile)
			row.bars = append(row.bars, plotBar{took, fmt.Sprintf("%.1f", took.median)})
		}
		p.rows = append(p.rows, row)
	}
	return p
}

// The files of the plots, beside the file that shows them.
const (
	ratioFile   = "benchmarks/ratios.svg"
	latencyFile = "benchmarks/latency.svg"
)

// writePlots writes the plots of what was measured.
func (r *report) writePlots(folder string) error {
	plots := map[string]plot{}
	if len(r.results) > 0 {
		plots[ratioFile] = ratioPlot(r.results)
	}
	if len(r.latencies) > 0 {
		plots[latencyFile] = latencyPlot(r.latencies)
	}
	for name, plot := range plots {
		file := filepath.Join(folder, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return fmt.Errorf("make the folder of plots: %w", err)
		}
		if err := os.WriteFile(file, []byte(plot.svg()), 0o644); err != nil {
			return fmt.Errorf("write a plot: %w", err)
		}
	}
	return nil
}
