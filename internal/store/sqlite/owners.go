package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/rising"
)

const claimDelivery = `UPDATE deliveries SET token = ? WHERE namespace = ? AND name = ? RETURNING ` + deliveryColumns

// owners are the dispatchers of the one process that has the store open, so they
// live and die with it and nothing of them is written.
type owners struct {
	mu sync.Mutex
	// living has until when each dispatcher lives.
	living map[string]time.Time
	owner  map[store.SubscriptionKey]string
	// changes is how often that has changed.
	changes rising.Number
}

func newOwners() *owners {
	return &owners{living: map[string]time.Time{}, owner: map[store.SubscriptionKey]string{}}
}

// Join implements store.Owners.
func (s *Store) Join(_ context.Context, dispatcher string, lasting time.Duration) ([]string, error) {
	o, now := s.owners, time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	maps.DeleteFunc(o.living, func(_ string, until time.Time) bool { return until.Before(now) })
	if _, known := o.living[dispatcher]; !known {
		o.changes.Rise()
	}
	o.living[dispatcher] = now.Add(lasting)
	return slices.Sorted(maps.Keys(o.living)), nil
}

// Leave implements store.Owners.
func (s *Store) Leave(_ context.Context, dispatcher string) error {
	o := s.owners
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.living, dispatcher)
	maps.DeleteFunc(o.owner, func(_ store.SubscriptionKey, owner string) bool { return owner == dispatcher })
	o.changes.Rise()
	return nil
}

// ClaimDelivery implements store.Owners.
func (s *Store) ClaimDelivery(ctx context.Context, key store.SubscriptionKey, dispatcher string) (delivery store.Delivery, err error) {
	if err := s.owners.claim(key, dispatcher); err != nil {
		return store.Delivery{}, err
	}
	err = s.writer.do(ctx, func(tx *transaction) error {
		delivery, err = scanDelivery(tx.row(tx.claimDelivery, tx.nextRevision(), key.Namespace, key.Name))
		return err
	})
	if err == nil {
		return delivery, nil
	}
	if errors.Is(err, sql.ErrNoRows) {
		err = store.ErrNotFound
	}
	return store.Delivery{}, errors.Join(fmt.Errorf("claim the delivery state: %w", err), s.ReleaseDelivery(ctx, key, dispatcher))
}

func (o *owners) claim(key store.SubscriptionKey, dispatcher string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	owner := o.owner[key]
	if owner != dispatcher && o.living[owner].After(time.Now()) {
		return fmt.Errorf("claim the delivery state: %w: %s", store.ErrOwned, owner)
	}
	o.owner[key] = dispatcher
	return nil
}

// ReleaseDelivery implements store.Owners.
func (s *Store) ReleaseDelivery(_ context.Context, key store.SubscriptionKey, dispatcher string) error {
	o := s.owners
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.owner[key] == dispatcher {
		delete(o.owner, key)
		o.changes.Rise()
	}
	return nil
}

// WaitForOwners implements store.Owners.
func (s *Store) WaitForOwners(ctx context.Context, after int64) (int64, error) {
	return s.owners.changes.Wait(ctx, after)
}
