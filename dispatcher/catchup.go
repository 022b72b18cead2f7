package dispatcher

import (
	"context"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// catchUp reads pages until the runner is live or its ledger is nearly full.
func (r *runner) catchUp(ctx context.Context) error {
	for {
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
func (r *runner) wantsPage() bool { return r.takesEvents() && r.ledger.room() >= catchUpRoom }

// nextPage returns what to read next, and the subscription that it is read for;
// nil when nothing is to be read.
func (r *runner) nextPage() (*subscription, store.Query) {
	upTo := r.tail.at()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live || !r.wantsPage() {
		return nil, store.Query{}
	}
	return r.sub, store.Query{
		After: r.ledger.cursor, UpTo: upTo, Filter: r.sub.filter,
		Limit: min(catchUpPage, r.ledger.room()),
	}
}

// takePage takes a page that was read for this subscription. If it was replaced
// meanwhile, another page is wanted.
func (r *runner) takePage(s *subscription, page []contact.Event, query store.Query) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sub != s {
		return
	}
	now := r.clock.Now()
	r.lag.taken(page)
	for i := range page {
		r.ledger.cursor = page[i].Position
		if s.wants(&page[i]) {
			r.ledger.take(&page[i], now)
		}
	}
	if len(page) < query.Limit { // there was no more
		r.ledger.cursor = query.UpTo
	}
	r.dirty = true
	r.rouse()
}
