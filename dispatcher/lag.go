package dispatcher

import (
	"context"
	"time"

	"postbus.dev/postbus/internal/store"
)

const (
	// countInterval is how often a runner's lag is brought up to date, while it can have
	// changed.
	countInterval = 2 * time.Second
	// recountInterval is how often all of it is counted anew, because retention
	// removes events from the log.
	recountInterval = time.Hour
)

// lag is how many events that match wait in the log behind a runner's cursor.
// Each is counted once: when the tail has passed it, and when it is taken.
type lag struct {
	events int64
	// upTo is the position up to which they are counted. wholeAt is when all of them
	// were counted, zero when that is still to be done. lookedAt is when this was last
	// brought up to date.
	upTo              int64
	wholeAt, lookedAt time.Time
	// oldest is the position of the first of them, and oldestTime when it happened.
	oldest     int64
	oldestTime time.Time
}

// due tells whether to bring it up to date, for a runner and a tail that have come
// this far.
func (l *lag) due(cursor, tail int64, now time.Time) bool {
	if now.Sub(l.lookedAt) < countInterval {
		return false
	}
	return l.whole(now) || tail > max(l.upTo, cursor) || l.lacksOldest(cursor)
}

// whole tells whether all is to be counted anew.
func (l *lag) whole(now time.Time) bool { return now.Sub(l.wholeAt) >= recountInterval }

// lacksOldest tells whether the first event is another one than is known.
func (l *lag) lacksOldest(cursor int64) bool { return l.events > 0 && l.oldest <= cursor }

// taken notes that the event at a position, which matches, was taken from the log.
func (l *lag) taken(position int64) {
	if position <= l.upTo {
		l.events--
	}
}

// behind returns how many events wait in the log, or in the inbox of a live runner. mu is held.
func (r *runner) behind() int64 {
	if r.live {
		return int64(len(r.inbox.events))
	}
	return r.lag.events
}

// wantsCount tells whether the lag is to be brought up to date. mu is held.
func (r *runner) wantsCount(upTo int64) bool {
	return !r.live && r.lag.due(r.ledger.cursor, upTo, r.clock.Now())
}

// count brings the lag up to date, now and then. Nobody else changes it meanwhile,
// unless it begins anew.
func (r *runner) count(ctx context.Context) error {
	upTo := r.tail.at()
	r.mu.Lock()
	due, before, cursor, filter := r.wantsCount(upTo), r.lag, r.ledger.cursor, r.sub.filter
	r.mu.Unlock()
	if !due {
		return nil
	}
	after, err := before.count(ctx, r.log, store.Query{After: cursor, UpTo: upTo, Filter: filter}, r.clock.Now())
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lag == before && !r.live {
		if before.events != after.events {
			r.dirty.Store(true)
		}
		r.lag = after
	}
	return nil
}

// count returns the lag of a query as it is now.
func (l lag) count(ctx context.Context, log store.Log, query store.Query, now time.Time) (lag, error) {
	uncounted := query
	if l.whole(now) {
		l = lag{wholeAt: now}
	}
	uncounted.After = max(query.After, l.upTo)
	more, err := countEvents(ctx, log, uncounted)
	if err != nil {
		return l, err
	}
	l.events += more
	l.upTo, l.lookedAt = max(query.After, query.UpTo), now
	if !l.lacksOldest(query.After) {
		return l, nil
	}
	first, err := firstEvent(ctx, log, query)
	if first != nil {
		l.oldest, l.oldestTime = first.Position, first.Time
	}
	return l, err
}
