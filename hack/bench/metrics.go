package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// metrics are what a process told of itself at one time, by the metrics' names.
type metrics map[string]*dto.MetricFamily

// readMetrics reads metrics in the text format.
func readMetrics(ctx context.Context, client *http.Client, url string) (metrics, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	defer response.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		return nil, fmt.Errorf("read metrics of %s: %w", url, err)
	}
	return families, nil
}

// sum adds the values of a metric, of those of its series that fit; all where fits is
// nil. It is 0 where there are none.
func (m metrics) sum(name string, fits func(labels map[string]string) bool) (sum float64) {
	for _, series := range m[name].GetMetric() {
		labels := map[string]string{}
		for _, label := range series.GetLabel() {
			labels[label.GetName()] = label.GetValue()
		}
		if fits == nil || fits(labels) {
			// A series has one of them, the others are 0.
			sum += series.GetCounter().GetValue() + series.GetGauge().GetValue() + series.GetUntyped().GetValue()
		}
	}
	return sum
}

// The kernel's units: of processor time a hundredth of a second, of memory a page.
const ticksPerSecond = 100

// usage is what the kernel says that a process has used: processor time until now, and
// the memory that it has now. Nothing has to be asked of the process for that, which
// would cost it as much as it uses while it is idle.
type usage struct {
	seconds, bytes float64
	// ended is the processor time of its children that have ended.
	ended float64
}

func usageOf(pid int) (u usage, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, fmt.Errorf("ask what a process uses: %w", err)
	}
	return parseUsage(string(text))
}

// secondsOf is the processor time of processes of which the first has started the others,
// and of those of its children that have ended.
func secondsOf(pids []int) (seconds float64, err error) {
	for n, pid := range pids {
		used, err := usageOf(pid)
		if n > 0 && errors.Is(err, os.ErrNotExist) { // it has ended meanwhile
			continue
		}
		if err != nil {
			return 0, err
		}
		seconds += used.seconds
		if n == 0 {
			seconds += used.ended
		}
	}
	return seconds, nil
}

// parseUsage reads what proc_pid_stat(5) describes. What stands in brackets is the
// program's name, with whatever is in that.
func parseUsage(text string) (u usage, err error) {
	const utime, stime, cutime, cstime, rss = 14 - 3, 15 - 3, 16 - 3, 17 - 3, 24 - 3 // counted from the third, behind the brackets
	fields := strings.Fields(text[strings.LastIndex(text, ")")+1:])
	if len(fields) <= rss {
		return u, fmt.Errorf("ask what a process uses: %d fields", len(fields))
	}
	var numbers [5]float64
	for i, field := range []int{utime, stime, cutime, cstime, rss} {
		if numbers[i], err = strconv.ParseFloat(fields[field], 64); err != nil {
			return u, fmt.Errorf("ask what a process uses: %w", err)
		}
	}
	return usage{
		seconds: (numbers[0] + numbers[1]) / ticksPerSecond, ended: (numbers[2] + numbers[3]) / ticksPerSecond,
		bytes: numbers[4] * float64(os.Getpagesize()),
	}, nil
}
