package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// cost is what a process has used: processor time, of its own and of the kernel for
// it, and memory that it allocated, whether or not that is free again.
type cost struct{ seconds, bytes float64 }

// costOf is how many contacts or calls costs are told of.
const costOf = 10_000

// since returns the cost of so many contacts or calls that were all there was since
// before, for costOf of them.
func (c cost) since(before cost, done int) cost {
	share := float64(costOf) / float64(done)
	return cost{seconds: (c.seconds - before.seconds) * share, bytes: (c.bytes - before.bytes) * share}
}

// cost asks the process what it has used until now.
func (i *installation) cost(ctx context.Context) (used cost, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, i.metrics+"/metrics", nil)
	if err != nil {
		return used, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return used, fmt.Errorf("read metrics: %w", err)
	}
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		switch name {
		case "process_cpu_seconds_total":
			used.seconds, err = strconv.ParseFloat(value, 64)
		case "go_memstats_alloc_bytes_total":
			used.bytes, err = strconv.ParseFloat(value, 64)
		}
		if err != nil {
			return used, fmt.Errorf("read the metric %s: %w", name, err)
		}
	}
	if used.seconds == 0 || used.bytes == 0 {
		return used, fmt.Errorf("%s has no processor time or no memory", i.metrics)
	}
	return used, nil
}

// measured makes a measurement of what measure does, which is so many contacts or calls
// and tells how many of them in a second.
func (i *installation) measured(ctx context.Context, name string, done int, measure func() (float64, error)) (m measurement, err error) {
	before, err := i.cost(ctx)
	if err != nil {
		return m, err
	}
	profiled := i.profile(ctx, name)
	if m.perSecond, err = measure(); err != nil {
		return m, err
	}
	after, err := i.cost(ctx)
	if err != nil {
		return m, err
	}
	m.cost = after.since(before, done)
	return m, profiled()
}
