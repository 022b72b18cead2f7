package dispatcher

import (
	"context"
	"slices"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// minReplayRoom is how much room a ledger must have for events of a replay to be
// read.
const minReplayRoom = maxReplayed / 4

// wantsOwed tells whether something is to be read for a replay. mu is held.
func (r *runner) wantsOwed() bool {
	return r.wantsOwedPage() || len(r.ledger.unchecked()) > 0
}

func (r *runner) wantsOwedPage() bool {
	owed := &r.ledger.life.Owed
	return !r.sub.unproven && !r.owedIsCurrent() && r.ledger.hasReplayPageRoom() && (len(owed.Spans) > 0 || owed.Aside != (store.Span{}))
}

// replayOwed takes pages of what is owed, while there is room.
func (r *runner) replayOwed(ctx context.Context) error {
	for ctx.Err() == nil {
		s, query := r.nextOwed()
		switch {
		case s == nil:
			return nil
		case query.Positions != nil:
			if err := r.replayAside(ctx, s, query); err != nil {
				return err
			}
			continue
		}
		var page []contact.Event
		if query.After < query.UpTo {
			var err error
			if page, err = r.log.Read(ctx, query); err != nil {
				return err
			}
		}
		r.takeOwedPage(s, page, query)
	}
	return ctx.Err()
}

// nextOwed returns what to read next for a replay and the subscription that it is
// read for; nil when nothing is to be read. Of what was set aside the query has
// empty Positions, which are still to be found.
func (r *runner) nextOwed() (*subscription, store.Query) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.wantsOwedPage() {
		return nil, store.Query{}
	}
	owed := &r.ledger.life.Owed
	limit, most := min(catchUpPage, r.ledger.replayRoom()), pageOf(r.ledger.replayByteRoom())
	if len(owed.Spans) == 0 {
		return r.sub, store.Query{After: owed.Aside.After, UpTo: owed.Aside.UpTo, Positions: []int64{}, Limit: limit, MaxBytes: most}
	}
	filter := r.sub.filter
	if r.ledger.life.Replay.Of == v1alpha1.ReplayOfRange {
		filter = r.replayFilter(r.sub)
	}
	return r.sub, withinSpan(store.Query{
		After: owed.Spans[0].After, UpTo: owed.Spans[0].UpTo, Filter: filter, Limit: limit, MaxBytes: most,
	})
}

// takeOwedPage takes a page of the first span that is owed.
func (r *runner) takeOwedPage(s *subscription, page []contact.Event, query store.Query) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sub != s || !r.wantsOwedPage() || len(r.ledger.life.Owed.Spans) == 0 || r.ledger.life.Owed.Spans[0].After != query.After {
		return // it was read for a replay, or a spec, of before
	}
	now := r.clock.Now()
	upTo := query.UpTo
	if query.Full(page) {
		upTo = page[len(page)-1].Position
	}
	r.receiveOwed(page, upTo, now)
}

// replayAside takes a page of what was set aside. What the subscription does not
// ask for today is dropped.
func (r *runner) replayAside(ctx context.Context, s *subscription, query store.Query) error {
	positions, err := r.aside.SetAsideEvents(ctx, r.key, query.After, query.Limit)
	if err != nil {
		return err
	}
	upTo := query.UpTo
	if len(positions) == query.Limit {
		upTo = min(upTo, positions[len(positions)-1])
	}
	var page []contact.Event
	if len(positions) > 0 {
		if page, err = r.log.Read(ctx, store.Query{Positions: positions, Limit: len(positions), MaxBytes: query.MaxBytes}); err != nil {
			return err
		}
		if last := len(page) - 1; last >= 0 && query.Full(page) {
			upTo = min(upTo, page[last].Position)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sub != s || !r.wantsOwedPage() || r.ledger.life.Owed.Aside.After != query.After {
		return nil // as in takeOwedPage
	}
	now := r.clock.Now()
	page = slices.DeleteFunc(page, func(event contact.Event) bool {
		return event.Position > query.UpTo // it was set aside after the request
	})
	r.receiveOwed(page, upTo, now)
	return nil
}

// checkWaiting finds out which events have to wait for a replay.
func (r *runner) checkWaiting(ctx context.Context) error {
	r.mu.Lock()
	events, upTo := r.ledger.unchecked(), r.ledger.owedEnd()
	r.mu.Unlock()
	found := map[*openEvent]int64{}
	for _, e := range events {
		last, err := r.log.LastPosition(ctx, e.event.List, e.event.Address, min(upTo, e.event.Position-1))
		if err != nil {
			return err
		}
		found[e] = last
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for e, last := range found {
		if e.waitFor == unknownPosition {
			e.waitFor = last
		}
	}
	r.ledger.letGo()
	return nil
}

// changed has the ledger written, and the loop look at it. mu is held.
func (r *runner) changed() {
	r.dirty.Store(true)
	r.rouse()
}
