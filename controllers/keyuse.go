package controllers

import (
	"context"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/store"
)

// keyUses remembers when ApiKeys were last used, as the store had it when it
// was last asked.
type keyUses struct {
	mutex sync.Mutex
	last  map[store.KeyName]time.Time
}

func (u *keyUses) of(key store.KeyName) time.Time {
	u.mutex.Lock()
	defer u.mutex.Unlock()
	return u.last[key]
}

// replace remembers what the store has now, and returns the keys that were used
// since.
func (u *keyUses) replace(last map[store.KeyName]time.Time) (used []store.KeyName) {
	u.mutex.Lock()
	defer u.mutex.Unlock()
	for key, at := range last {
		if at.After(u.last[key]) {
			used = append(used, key)
		}
	}
	u.last = last
	return used
}

// keyUseWatch sends the ApiKeys that were used.
type keyUseWatch struct {
	store    KeyUseKeeper
	interval time.Duration
	uses     *keyUses
	changed  changes
}

// Start runs until the context ends.
func (k *keyUseWatch) Start(ctx context.Context) error {
	poll(ctx, k.interval, k.look)
	return nil
}

// look asks for all keys, of which there are not many: ingress may have written
// a use late, so its time says nothing about whether it was seen.
func (k *keyUseWatch) look(ctx context.Context) error {
	last, err := k.store.KeyUses(ctx, time.Time{})
	if err != nil {
		return fmt.Errorf("read when api keys were used: %w", err)
	}
	for _, name := range k.uses.replace(last) {
		key := &v1alpha1.ApiKey{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}}
		if err := k.changed.send(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// mirrorUse owns status.lastUsedTime. A use from before the ApiKey was made was
// of another one of its name.
func (a apiKeys) mirrorUse(_ context.Context, key *v1alpha1.ApiKey) error {
	last := metav1.NewTime(a.uses.of(keyName(key)).Truncate(time.Second))
	seen := key.Status.LastUsedTime
	if !last.Before(&key.CreationTimestamp) && (seen == nil || seen.Before(&last)) {
		key.Status.LastUsedTime = &last
	}
	return nil
}

func keyName(key *v1alpha1.ApiKey) store.KeyName {
	return store.KeyName{Namespace: key.Namespace, Name: key.Name}
}
