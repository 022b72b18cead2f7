// Package rising answers: has it gone on meanwhile?
//
// Engines tell by a number how far the log is, and how often owners have changed.
package rising

import (
	"context"
	"sync"
	"sync/atomic"
)

// Number is a number that only rises, and that others wait for. Its zero value is 0.
// All methods are safe for concurrent use; Load takes no lock.
type Number struct {
	value atomic.Int64

	// mu is held while value rises.
	mu sync.Mutex
	// risen is closed and forgotten when value rises; nil while nobody waits.
	risen chan struct{}
}

// Load returns the number.
func (n *Number) Load() int64 { return n.value.Load() }

// Reach lifts the number to a value, unless it is there already.
func (n *Number) Reach(value int64) {
	if value <= n.value.Load() {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if value > n.value.Load() {
		n.set(value)
	}
}

// Rise lifts the number by one.
func (n *Number) Rise() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.set(n.value.Load() + 1)
}

// set changes the number; mu is held.
func (n *Number) set(value int64) {
	n.value.Store(value)
	if n.risen != nil {
		close(n.risen)
		n.risen = nil
	}
}

// Wait returns the number once it is above this one, or the context's error.
func (n *Number) Wait(ctx context.Context, after int64) (int64, error) {
	for {
		value, risen := n.above(after)
		if risen == nil {
			return value, nil
		}
		select {
		case <-risen:
		case <-ctx.Done():
			return after, ctx.Err()
		}
	}
}

// above returns the number, if it is above this one, or what is closed when it rises.
func (n *Number) above(after int64) (value int64, risen <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if value = n.value.Load(); value > after {
		return value, nil
	}
	if n.risen == nil {
		n.risen = make(chan struct{})
	}
	return value, n.risen
}
