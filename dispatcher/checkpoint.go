package dispatcher

import (
	"context"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"

	"postbus.dev/postbus/internal/store"
)

const (
	// checkpointInterval is how often changed ledgers are written: what a
	// process that dies sends again is what happened in this time.
	checkpointInterval = 250 * time.Millisecond
	// rowsOfInterval is how many rows are written as often as that. Of more of them that
	// change all the time each is written less often, every longestInterval at least.
	rowsOfInterval  = 100
	longestInterval = 2 * time.Second
	// lastTries is how many checkpoints in a row may fail before the rows of runners
	// that have ended are left to others without their last one: 10 s of them, which a
	// dispatcher whose store is away does not live to see.
	lastTries = 40
	// defaultIdleInterval bounds what is read again after a start.
	defaultIdleInterval = time.Minute
)

// checkpointer writes the ledgers of all runners that have changed.
type checkpointer struct {
	registry *registry
	tail     *tail
	store    Store
	metrics  *metrics
	// soon asks for a checkpoint before its time.
	soon chan struct{}
	// rows is how many the last checkpoint had.
	rows int
	// failed is how many checkpoints in a row could not be written while the store
	// took the dispatcher for alive.
	failed int
}

func newCheckpointer(registry *registry, tail *tail, metrics *metrics) *checkpointer {
	c := &checkpointer{registry: registry, tail: tail, store: registry.options.Store, metrics: metrics, soon: make(chan struct{}, 1)}
	registry.checkpoint = c.hurry
	return c
}

// hurry has the next checkpoint written now: what it has not when the process
// dies would be sent twice.
func (c *checkpointer) hurry() {
	select {
	case c.soon <- struct{}{}:
	default: // one will be written that comes after this
	}
}

// run writes until the context ends.
func (c *checkpointer) run(ctx context.Context) {
	clock := c.registry.options.Clock
	lastIdle := clock.Now()
	for ctx.Err() == nil {
		c.pause(ctx, clock)
		idle := clock.Since(lastIdle) >= c.registry.options.IdleInterval
		if idle {
			lastIdle = clock.Now()
		}
		c.write(ctx, idle)
		c.registry.recent.write(ctx, clock.Now(), false)
		if idle {
			c.scrub(ctx)
		}
	}
}

// pause waits until it is time for a checkpoint, or somebody is in a hurry.
func (c *checkpointer) pause(ctx context.Context, clock clock.Clock) {
	timer := clock.NewTimer(intervalOf(c.rows))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-c.soon:
	case <-timer.C():
	}
}

// intervalOf returns how long to wait after a checkpoint of so many rows.
func intervalOf(rows int) time.Duration {
	return min(checkpointInterval*time.Duration(1+max(0, rows-1)/rowsOfInterval), longestInterval)
}

// scrub has the store forget the people that every subscription was told of.
func (c *checkpointer) scrub(ctx context.Context) {
	logger := logr.FromContextOrDiscard(ctx)
	switch scrubbed, err := c.store.ScrubForgotten(ctx); {
	case err != nil && ctx.Err() == nil:
		logger.Error(err, "people were not forgotten, trying again")
	case scrubbed > 0:
		logger.Info("people are forgotten", "events", scrubbed)
	}
}

// write writes once, and leaves to others what is written for the last time. What
// could not be written is written the next time. It alone writes rows, so nothing of
// a runner is on its way to the store when its row is released.
func (c *checkpointer) write(ctx context.Context, idle bool) {
	all, ended := c.registry.owned()
	written := c.save(ctx, all, func(running *entry) bool {
		_, last := ended[running]
		return idle || last
	})
	switch {
	case written || !c.registry.members.lives():
		c.failed = 0
	default:
		c.failed++
	}
	if written || c.failed >= lastTries {
		c.registry.release(ctx, ended)
	}
}

// save writes what has changed of these runners, and reports whether the store has
// it. idle asks for cursors too that have merely moved.
func (c *checkpointer) save(ctx context.Context, all []*entry, idle func(*entry) bool) (written bool) {
	changed, progress := c.collect(all, idle)
	if c.rows = len(progress); c.rows == 0 {
		return true
	}
	gone, err := c.store.Checkpoint(ctx, progress)
	if err != nil {
		for i, r := range changed {
			r.notWritten(&progress[i])
		}
		if ctx.Err() == nil {
			c.metrics.checkpointErrors.Inc()
			logr.FromContextOrDiscard(ctx).Error(err, "checkpoint was not written, trying again", "subscriptions", len(changed))
		}
		return false
	}
	for _, key := range gone {
		c.registry.lost(key)
	}
	return true
}

// collect takes the snapshots of runners, one by one: the tail reads on between them.
// Of thousands most have nothing to write, and are passed by without a lock.
func (c *checkpointer) collect(all []*entry, idle func(*entry) bool) (changed []*runner, progress []store.Progress) {
	for _, running := range all {
		idle := idle(running)
		if !idle && !running.runner.dirty.Load() {
			continue
		}
		if written, ok := c.tail.snapshot(running.runner, idle); ok {
			running.runner.logNews()
			changed = append(changed, running.runner)
			progress = append(progress, written)
		}
	}
	return changed, progress
}
