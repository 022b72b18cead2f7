package main

import (
	"context"
	"fmt"
	"time"
)

const (
	// quietTime is for how long a process must have been quiet, quietShare how much of a
	// core it may use then.
	quietTime  = 2 * time.Second
	quietShare = 0.1
)

// awaitQuiet returns once all processes have done what there was to do, such as to
// write thousands of statuses or to vacuum a table, so that it is not in what is measured
// next.
func (i *installation) awaitQuiet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, i.patience())
	defer cancel()
	for {
		share, err := i.coreShare(ctx, quietTime)
		if err != nil || share < quietShare {
			return err
		}
	}
}

// coreShare returns how much of a core all processes together use for so long.
func (i *installation) coreShare(ctx context.Context, during time.Duration) (share float64, err error) {
	before, err := i.usedSeconds()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	select {
	case <-time.After(during):
	case <-ctx.Done():
		return 0, fmt.Errorf("%s does not become quiet: %w", i.namespace, ctx.Err())
	}
	after, err := i.usedSeconds()
	return (after - before) / time.Since(began).Seconds(), err
}

func (i *installation) usedSeconds() (seconds float64, err error) {
	for _, c := range i.components {
		used, err := usageOf(c.process.PID())
		if err != nil {
			return 0, err
		}
		seconds += used.seconds
	}
	database, err := i.databaseSeconds()
	return seconds + database, err
}
