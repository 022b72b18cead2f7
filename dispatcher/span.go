package dispatcher

import (
	"context"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// logSpan is how many positions of the log a query looks at. Of a subscription that
// matches little, and is days behind, one that looked at all of them would take longer
// than the store waits for it, and would never end.
const logSpan = 100_000

// withinSpan returns the first part of a query that one look at the log may have.
func withinSpan(query store.Query) store.Query {
	query.UpTo = min(query.UpTo, query.After+logSpan)
	return query
}

// countEvents counts the events that a query names, which has an end.
func countEvents(ctx context.Context, log store.Log, query store.Query) (count int64, err error) {
	for end := query.UpTo; query.After < end; {
		query.UpTo = end
		query = withinSpan(query)
		part, err := log.CountEvents(ctx, query)
		if err != nil {
			return 0, err
		}
		count += part
		query.After = query.UpTo
	}
	return count, nil
}

// firstEvent returns the first event that a query names, which has an end; nil where
// there is none.
func firstEvent(ctx context.Context, log store.Log, query store.Query) (*contact.Event, error) {
	query.Limit = 1
	for end := query.UpTo; query.After < end; {
		query.UpTo = end
		query = withinSpan(query)
		found, err := log.Read(ctx, query)
		switch {
		case err != nil:
			return nil, err
		case len(found) > 0:
			return &found[0], nil
		}
		query.After = query.UpTo
	}
	return nil, nil //nolint:nilnil // there is none
}
