package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	// flushRate is how many flushes a second the disk is asked for, and flushTime for how
	// long.
	flushRate = 200
	flushTime = 10 * time.Second
	// flushed is how many bytes each has: a page of both engines, or half of one.
	flushed = 4096
)

// disk is how long the disk takes that the stores are on, with nothing of Postbus: no
// contact is accepted in less, and where it stalls the latencies tell of that.
func disk() trial {
	return trial{
		name: "the disk",
		measure: func(ctx context.Context, p *plane, found *facts) error {
			took, err := flushes(ctx, filepath.Join(p.folder, "flushed"))
			if err != nil {
				return err
			}
			for _, percent := range []int{50, 99, 100} {
				name := fmt.Sprintf("a flush of %d bytes at %d/s, p%d", flushed, flushRate, percent)
				found.add(fact{name: name, unit: "ms", digits: 2}, percentile(took, percent))
			}
			return nil
		},
	}
}

// flushes returns how long each flush of a file took.
func flushes(ctx context.Context, path string) (took []time.Duration, err error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("measure the disk: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(path)) }()
	ticker := time.NewTicker(time.Second / flushRate)
	defer ticker.Stop()
	for range int(flushTime.Seconds() * flushRate) {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		began := time.Now()
		if _, err := file.Write(make([]byte, flushed)); err != nil {
			return nil, fmt.Errorf("measure the disk: %w", err)
		}
		if err := file.Sync(); err != nil {
			return nil, fmt.Errorf("measure the disk: %w", err)
		}
		took = append(took, time.Since(began))
	}
	return took, nil
}
