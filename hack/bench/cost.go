package main

import (
	"context"
	"fmt"
	"net/http"
)

// cost is what a process has used: processor time, of its own and of the kernel for
// it, and memory that it allocated, whether or not that is free again.
type cost struct {
	seconds, bytes float64
	// database is the processor time of the database's server; 0 where there is none.
	database float64
}

// costOf is how many contacts or calls costs are told of.
const costOf = 10_000

// since returns the cost of so many contacts or calls that were all there was since
// before, for costOf of them.
func (c cost) since(before cost, done int) cost {
	share := float64(costOf) / float64(done)
	return cost{
		seconds: (c.seconds - before.seconds) * share, bytes: (c.bytes - before.bytes) * share,
		database: (c.database - before.database) * share,
	}
}

// cost asks the process what it has used until now.
func (i *installation) cost(ctx context.Context) (used cost, err error) {
	told, err := i.readMetrics(ctx)
	if err != nil {
		return used, err
	}
	used = cost{seconds: told.sum("process_cpu_seconds_total", nil), bytes: told.sum("go_memstats_alloc_bytes_total", nil)}
	if used.seconds == 0 || used.bytes == 0 {
		return used, fmt.Errorf("%s has no processor time or no memory", i.metrics)
	}
	used.database, err = i.databaseSeconds()
	return used, err
}

// databaseSeconds is the processor time of the database's server; 0 where there is none.
func (i *installation) databaseSeconds() (float64, error) {
	if i.store.engine == sqliteEngine {
		return 0, nil
	}
	server, err := i.plane.server.Processes()
	if err != nil {
		return 0, err
	}
	return secondsOf(server)
}

// readMetrics reads the metrics of the process that delivers.
func (i *installation) readMetrics(ctx context.Context) (metrics, error) {
	return readMetrics(ctx, http.DefaultClient, i.metrics+"/metrics")
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
