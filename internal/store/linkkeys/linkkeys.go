// Package linkkeys keeps a process's copy of a store's link keys up to date.
package linkkeys

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"postbus.dev/postbus/internal/link"
	"postbus.dev/postbus/internal/store"
)

// ErrNoKey: the store has no key that may sign.
var ErrNoKey = errors.New("the store has no link key")

// Load reads the keys of a store that are valid, the one that signs first.
type Load func(ctx context.Context) ([]link.Key, error)

// Keeper keeps a ring up to date, from the first call of Ring on. So a component that needs
// no links needs no right to read their keys.
type Keeper struct {
	load    Load
	ring    link.Ring
	start   sync.Once
	started chan struct{}
	changed chan struct{}
}

// New returns a keeper. Run must be called once.
func New(load Load) *Keeper {
	return &Keeper{load: load, started: make(chan struct{}), changed: make(chan struct{}, 1)}
}

// Ring reads the keys and returns the ring.
func (k *Keeper) Ring(ctx context.Context) (*link.Ring, error) {
	if err := k.reload(ctx); err != nil {
		return nil, err
	}
	k.start.Do(func() { close(k.started) })
	return &k.ring, nil
}

// Changed has the keys read at once.
func (k *Keeper) Changed() {
	select {
	case k.changed <- struct{}{}:
	default: // they will be
	}
}

// Run reads the keys again at an interval and after each Changed, until the context ends. While
// they can't be read, the ring stays as it is.
func (k *Keeper) Run(ctx context.Context) {
	select {
	case <-k.started:
	case <-ctx.Done():
		return
	}
	ticker := time.NewTicker(store.LinkKeysInterval)
	defer ticker.Stop()
	failing := false
	for {
		select {
		case <-ticker.C:
		case <-k.changed:
		case <-ctx.Done():
			return
		}
		err := k.reload(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			logr.FromContextOrDiscard(ctx).Error(err, "Failed to read the link keys, keeping those that are known")
		}
		failing = err != nil
	}
}

func (k *Keeper) reload(ctx context.Context) error {
	keys, err := k.load(ctx)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return ErrNoKey
	}
	k.ring.Replace(keys[0], keys[1:]...)
	return nil
}
