package dispatcher

import (
	"context"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// catchUp reads pages until the runner is live or its ledger is nearly full.
func (r *runner) catchUp(ctx context.Context) error {
	for {
		if r.tail.feed(r) {
			r.tail.join(r)
			continue
		}
		s, query := r.nextPage()
		if s == nil {
			return nil
		}
		if query.After < query.UpTo {
			page, err := r.log.Read(ctx, query)
			if err != nil {
				return err
			}
			r.takePage(s, page, query)
		}
		r.tail.join(r)
	}
}

// wantsPage tells whether more events can be taken. mu is held.
func (r *runner) wantsPage() bool {
	return r.takesEvents() && len(r.inbox.events) == 0 && r.ledger.hasPageRoom()
}

// nextPage returns what to read next, and the subscription that it is read for;
// nil when nothing is to be read.
func (r *runner) nextPage() (*subscription, store.Query) {
	upTo := r.tail.at()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live || !r.wantsPage() {
		return nil, store.Query{}
	}
	return r.sub, withinSpan(store.Query{
		After: r.ledger.cursor, UpTo: upTo, Filter: r.sub.filter,
		Limit: min(catchUpPage, r.ledger.room()), MaxBytes: pageOf(r.ledger.byteRoom()),
	})
}

// takePage takes a page that was read for this subscription, as far as there is room and the
// filter need not be asked; what the filter must decide goes into the inbox. If the subscription
// was replaced since, another page is wanted.
func (r *runner) takePage(s *subscription, page []contact.Event, query store.Query) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sub != s {
		return
	}
	now, upTo := r.clock.Now(), query.UpTo
	if query.Full(page) {
		upTo = page[len(page)-1].Position
	}
	for i := range page {
		if !r.receive(&page[i], now) { // it is read again
			upTo = page[i].Position - 1
			break
		}
	}
	r.passTo(upTo)
	r.dirty.Store(true)
	r.rouse()
}

// takeRecent takes what fits of the events behind the cursor, where the window has all
// of them, up to a position. It returns false when it does not, and when nothing is to
// be taken. The tail's lock is held.
func (r *runner) takeRecent(recent *window, upTo int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live || !r.wantsPage() {
		return false
	}
	events, complete := recent.behind(r.ledger.cursor)
	if !complete {
		return false
	}
	now := r.clock.Now()
	page := events[:min(len(events), catchUpPage)]
	passed := r.ledger.cursor
	for len(page) > 0 && r.ledger.room() > 0 {
		if r.sub.filter.Matches(page[0]) && !r.receive(page[0], now) {
			break
		}
		passed, page = page[0].Position, page[1:]
	}
	if len(page) == 0 && len(events) <= catchUpPage {
		// Whoever owned the row before may have been further than this tail.
		passed = max(passed, upTo)
	}
	r.passTo(passed)
	r.dirty.Store(true)
	r.rouse()
	return true
}
