package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	// idleSubscriptions is how many there are that nothing happens to.
	idleSubscriptions = 5000
	// idleTime is for how long that is watched.
	idleTime = 30 * time.Second
	// megabyte is a million bytes.
	megabyte = 1e6
)

// idle is what subscriptions cost that nothing happens to: of a dispatcher alone over
// PostgreSQL, which the bars are of, and of the one process that SQLite allows.
func idle(e engine) trial {
	measured, commands := "dispatcher", []string{"controller", "ingress", "dispatcher"}
	memory, share := fact{name: "resident memory", unit: "MB", most: 200}, fact{name: "processor time", unit: "% of a core", digits: 1, most: 2}
	if e == sqliteEngine {
		measured, commands = "the whole in one process", []string{"standalone"}
		memory.most, share.most = 0, 0
	}
	return trial{
		name: fmt.Sprintf("idle, %s, %d subscriptions, %s", e, idleSubscriptions, measured),
		measure: on(e, func(ctx context.Context, i *installation, found *facts) error {
			if err := i.listen(ctx, newReceiver()); err != nil {
				return err
			}
			if err := i.subscribeAlike(ctx, idleSubscriptions); err != nil {
				return err
			}
			if err := i.addStart(ctx, found); err != nil {
				return err
			}
			return i.addIdle(ctx, found, memory, share)
		}, commands...),
	}
}

// addStart adds how long the process takes that delivers, to be ready and to have taken
// its subscriptions over, when it is started again.
func (i *installation) addStart(ctx context.Context, found *facts) error {
	if err := errors.Join(i.awaitQuiet(ctx), i.dispatcher().stop()); err != nil {
		return err
	}
	began := time.Now()
	if err := i.start(ctx, i.dispatcher()); err != nil {
		return err
	}
	found.add(fact{name: "start until it is ready", unit: "s", digits: 2, most: 10}, time.Since(began).Seconds())
	err := i.awaitMetric(ctx, "postbus_dispatcher_owned_deliveries", float64(i.subscriptions))
	found.add(fact{name: "start until it delivers for all", unit: "s", digits: 1, most: 10}, time.Since(began).Seconds())
	return err
}

// addIdle adds what memory the process has that delivers, and what share of a core it
// uses, once it is quiet.
func (i *installation) addIdle(ctx context.Context, found *facts, memory, share fact) error {
	if err := i.awaitQuiet(ctx); err != nil {
		return err
	}
	before, err := usageOf(i.dispatcher().process.PID())
	if err != nil {
		return err
	}
	if err := i.idleFor(ctx, idleTime); err != nil {
		return err
	}
	after, err := usageOf(i.dispatcher().process.PID())
	if err != nil {
		return err
	}
	found.add(share, 100*(after.seconds-before.seconds)/idleTime.Seconds())
	found.add(memory, after.bytes/megabyte)
	if err := i.collectGarbage(ctx); err != nil {
		return err
	}
	told, err := i.readMetrics(ctx)
	found.add(fact{name: "heap that is in use", unit: "MB"}, told.sum("go_memstats_heap_alloc_bytes", nil)/megabyte)
	return err
}

// idleFor lets time go by, and makes profiles meanwhile if somebody wants them.
func (i *installation) idleFor(ctx context.Context, during time.Duration) error {
	if name := "idle-" + string(i.store.engine); i.plane.profiles != "" {
		return errors.Join(i.profileTime(ctx, name, during), i.writeProfile(ctx, "heap", name+".heap.pprof"))
	}
	select {
	case <-time.After(during):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// collectGarbage has the process that delivers collect its garbage.
func (i *installation) collectGarbage(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, i.metrics+"/debug/pprof/heap?gc=1", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("have garbage collected: %w", err)
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// awaitMetric returns once a metric of the process that delivers has a value.
func (i *installation) awaitMetric(ctx context.Context, name string, value float64) error {
	ctx, cancel := context.WithTimeout(ctx, i.patience())
	defer cancel()
	for {
		told, err := i.readMetrics(ctx)
		if err != nil || told.sum(name, nil) == value {
			return err
		}
		select {
		case <-time.After(200 * time.Millisecond): // to ask costs time, with thousands of subscriptions
		case <-ctx.Done():
			return fmt.Errorf("%s is %g, not %g: %w", name, told.sum(name, nil), value, ctx.Err())
		}
	}
}
