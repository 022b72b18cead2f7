package store

import (
	"context"
	"time"
)

// Owners shares out the deliveries of a store among the dispatchers that use it,
// so that each row has one owner and nobody else writes it.
//
// A dispatcher joins, and joins again well before its time is up; whoever does not
// is dead to the others. The times are by the store's clock, so the clocks of
// dispatchers need not agree. Which rows a dispatcher ought to own is for the
// dispatchers to decide; the store sees to it that no two of them own one.
type Owners interface {
	// Join makes a dispatcher one of the living for this long, and returns the
	// names of all of them, in order.
	Join(ctx context.Context, dispatcher string, lasting time.Duration) (living []string, err error)
	// Leave makes a dispatcher one of the living no more. It owns nothing then.
	Leave(ctx context.Context, dispatcher string) error
	// ClaimDelivery makes a dispatcher that has joined the owner of a row, and
	// returns the row with a Token that it never had before: from then on the
	// checkpoints of earlier owners are refused. Errors are ErrOwned, when the owner
	// is another one of the living, and ErrNotFound.
	ClaimDelivery(ctx context.Context, key SubscriptionKey, dispatcher string) (Delivery, error)
	// ReleaseDelivery leaves a row to others; it does nothing when the dispatcher
	// does not own it.
	ReleaseDelivery(ctx context.Context, key SubscriptionKey, dispatcher string) error
	// WaitForOwners returns a number that rises with each dispatcher that joins
	// for the first time or leaves, and with each row that is released; it waits
	// until that is above this one. It may rise for nothing. One that dies without
	// a word is noticed by joining alone.
	WaitForOwners(ctx context.Context, after int64) (int64, error)
}
