package testkit

import (
	"context"
	"testing"

	"postbus.dev/postbus/internal/link"
)

// LinkKeys returns the link keys of a store.
func LinkKeys(t testing.TB, store interface {
	LinkKeys(ctx context.Context) (*link.Ring, error)
},
) *link.Ring {
	t.Helper()
	keys, err := store.LinkKeys(t.Context())
	if err != nil {
		t.Fatalf("read the link keys: %v", err)
	}
	return keys
}
