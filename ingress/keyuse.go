package ingress

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/store"
)

// KeyUseNoter keeps when API keys were last used.
type KeyUseNoter interface {
	// NoteKeyUse notes when keys were last used.
	NoteKeyUse(ctx context.Context, uses map[store.KeyName]time.Time) error
}

// lastWriteTimeout is how long the write at the end may take.
const lastWriteTimeout = 5 * time.Second

// keyUses remembers which keys were used, and writes that to the store now and
// then, all keys together: a call must not cost a write. What it holds is
// bounded by the number of ApiKeys. A process that is killed loses the uses of
// one interval.
type keyUses struct {
	store   KeyUseNoter
	objects client.Reader
	mutex   sync.Mutex
	last    map[store.KeyName]time.Time
}

// note remembers that a key was used.
func (u *keyUses) note(key *v1alpha1.ApiKey, now time.Time) {
	u.mutex.Lock()
	defer u.mutex.Unlock()
	u.remember(store.KeyName{Namespace: key.Namespace, Name: key.Name}, now)
}

// remember needs the mutex.
func (u *keyUses) remember(name store.KeyName, at time.Time) {
	if u.last == nil {
		u.last = map[store.KeyName]time.Time{}
	}
	if at.After(u.last[name]) {
		u.last[name] = at
	}
}

// take returns what is remembered, and remembers it no longer.
func (u *keyUses) take() map[store.KeyName]time.Time {
	u.mutex.Lock()
	defer u.mutex.Unlock()
	uses := u.last
	u.last = nil
	return uses
}

// giveBack remembers again what was taken, beside what was noted since.
func (u *keyUses) giveBack(uses map[store.KeyName]time.Time) {
	u.mutex.Lock()
	defer u.mutex.Unlock()
	for name, at := range uses {
		u.remember(name, at)
	}
}

// write writes what is remembered to the store, and keeps it when that fails.
func (u *keyUses) write(ctx context.Context) error {
	uses := u.take()
	maps.DeleteFunc(uses, func(name store.KeyName, _ time.Time) bool { return u.isGone(ctx, name) })
	if len(uses) == 0 {
		return nil
	}
	if err := u.store.NoteKeyUse(ctx, uses); err != nil {
		u.giveBack(uses)
		return fmt.Errorf("write when keys were used: %w", err)
	}
	return nil
}

// isGone tells whether the ApiKey was deleted. The controller removes what the
// store has of it, and a late write would bring that back.
func (u *keyUses) isGone(ctx context.Context, name store.KeyName) bool {
	key := &v1alpha1.ApiKey{}
	err := u.objects.Get(ctx, client.ObjectKey(name), key, client.UnsafeDisableDeepCopy)
	return apierrors.IsNotFound(err) || key.DeletionTimestamp != nil
}

// startUpkeep writes key uses and drops idle rate limits at every interval. The
// function that it returns ends that, and writes for the last time.
func (k *keyring) startUpkeep(ctx context.Context, interval time.Duration) (stop func()) {
	upkeep, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		k.upkeep(upkeep, interval)
	}()
	return func() {
		cancel()
		<-ended
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWriteTimeout)
		defer cancel()
		if err := k.uses.write(last); err != nil {
			logr.FromContextOrDiscard(ctx).Error(err, "last uses of keys are lost")
		}
	}
}

// upkeep runs until the context ends. Of failures that follow each other only
// the first is logged.
func (k *keyring) upkeep(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	broken := false
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		k.limits.dropIdle(k.now())
		err := k.uses.write(ctx)
		if err != nil && !broken && ctx.Err() == nil {
			logr.FromContextOrDiscard(ctx).Error(err, "last uses of keys wait for the store")
		}
		broken = err != nil
	}
}
