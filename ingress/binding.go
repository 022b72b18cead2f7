package ingress

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"postbus.dev/postbus/api/v1alpha1"
)

// ObjectBindings tells which objects may use the data of their namespace.
type ObjectBindings interface {
	// IsBound reports whether the object of a UID may.
	IsBound(ctx context.Context, object string) (bool, error)
}

// bindings remembers which lists the store has bound to their namespace. The store is
// asked once for each list: a binding lasts as long as the list. Status is not enough, as
// authors of lists may have the right to write it.
type bindings struct {
	store ObjectBindings

	mu    sync.RWMutex
	known map[types.UID]struct{}
}

func newBindings(store ObjectBindings) *bindings {
	return &bindings{store: store, known: map[types.UID]struct{}{}}
}

// check returns errListNotReady unless the list may use the data under its name.
func (b *bindings) check(ctx context.Context, list *v1alpha1.ContactList) error {
	if !list.IsBound() {
		return errListNotReady
	}
	b.mu.RLock()
	_, known := b.known[list.UID]
	b.mu.RUnlock()
	if known {
		return nil
	}
	bound, err := b.store.IsBound(ctx, string(list.UID))
	switch {
	case err != nil:
		return storeProblem(ctx, err)
	case !bound:
		return errListNotReady
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.known[list.UID] = struct{}{}
	return nil
}
