package dispatcher

import (
	"context"
	"slices"
	"time"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// What is in this file evaluates a subscription's filter. No lock is held meanwhile:
//
//	log reader ──offer──▶ inbox ──────▶ filter ──take──▶ ledger
//	pages of the log ───▶   │
//	pages of a replay ──▶ owed inbox ─▶ filter ──takeOwed──▶ ledger
//
// Events that need no evaluation pass straight through, unless others are before them.

// inbox has events that the filter has not been asked about, in the order of the log. The
// cursor is before the first of them.
type inbox struct {
	events []*contact.Event
	// bytes is the size of the events, see bytesOf.
	bytes int64
	// upTo is the position that is passed once none is left.
	upTo int64
	// generation rises when the events are dropped, for another spec to choose from them.
	generation int
}

// first returns the next event, nil when there is none.
func (i *inbox) first() *contact.Event {
	if len(i.events) == 0 {
		return nil
	}
	return i.events[0]
}

// push adds an event behind all others.
func (i *inbox) push(event *contact.Event) {
	i.events = append(i.events, event)
	i.bytes += bytesOf(event)
}

// pop removes the next event.
func (i *inbox) pop() {
	i.bytes -= bytesOf(i.events[0])
	i.events[0] = nil
	if i.events = i.events[1:]; len(i.events) == 0 {
		i.events = nil
	}
}

// forget removes the events that an event erases, and returns them.
func (i *inbox) forget(event *contact.Event) (removed []*contact.Event) {
	i.events = slices.DeleteFunc(i.events, func(other *contact.Event) bool {
		removes := event.Removes(other)
		if removes {
			removed = append(removed, other)
			i.bytes -= bytesOf(other)
		}
		return removes
	})
	return removed
}

// drop removes all events.
func (i *inbox) drop() {
	i.events, i.bytes = nil, 0
	i.generation++
}

// owedInbox is the inbox of a replay. It has one page of a span, or of what was set aside.
type owedInbox struct {
	inbox
	// loaded: a page was read that is not passed yet.
	loaded bool
	// span is what was left of the page's span, which tells a replay from another.
	span store.Span
	// aside: the page is of what was set aside.
	aside bool
}

// countInboxes has the events of the inboxes count in the room of the ledger. mu is held.
func (r *runner) countInboxes() {
	r.ledger.countUndecided(
		undecided{events: len(r.inbox.events), bytes: r.inbox.bytes},
		undecided{events: len(r.owed.events), bytes: r.owed.bytes})
}

// cursor returns the position up to which the events were taken, where the log reader has
// offered all up to this one. mu is held.
func (r *runner) cursor(offered int64) int64 {
	switch first := r.inbox.first(); {
	case first != nil:
		return max(r.ledger.cursor, first.Position-1)
	case r.live:
		return max(r.ledger.cursor, offered)
	default:
		return r.ledger.cursor
	}
}

// passTo notes that all events up to a position are taken or in the inbox. mu is held.
func (r *runner) passTo(position int64) {
	r.inbox.upTo = max(r.inbox.upTo, position)
	r.passInbox()
}

// passInbox moves the cursor where nothing is in the inbox. mu is held.
func (r *runner) passInbox() {
	if len(r.inbox.events) == 0 && !r.live {
		r.ledger.cursor = max(r.ledger.cursor, r.inbox.upTo)
	}
}

// receive takes an event that matches the store's filter, or puts it into the inbox. It
// reports false, and does nothing, if there is no room for the event. mu is held.
func (r *runner) receive(event *contact.Event, now time.Time) bool {
	waits := len(r.inbox.events) > 0 || r.sub.evaluates(event)
	if (waits || r.sub.mayWant(event)) && !r.ledger.fits(event) {
		return false
	}
	if waits {
		r.inbox.push(event)
		r.countInboxes()
		return true
	}
	r.take(event, true, now)
	return true
}

// take takes an event that matches the store's filter, when the subscription's own filter
// chooses it. mu is held.
func (r *runner) take(event *contact.Event, chosen bool, now time.Time) {
	r.lag.taken(event.Position)
	r.ledger.cursor = event.Position
	if chosen && r.sub.mayWant(event) {
		r.ledger.take(event, now)
		r.dirty.Store(true)
	}
}

// drain takes the events from the inbox that the filter need not be asked about, up to the
// first that it must be. mu is held.
func (r *runner) drain(now time.Time) {
	defer r.countInboxes()
	for first := r.inbox.first(); first != nil && !r.sub.evaluates(first); first = r.inbox.first() {
		r.inbox.pop()
		r.take(first, true, now)
	}
	r.passInbox()
}

// dropInboxes has the events in the inboxes read again, for another spec. mu is held.
func (r *runner) dropInboxes() {
	r.ledger.cursor = r.cursor(r.ledger.cursor)
	r.inbox.drop()
	r.inbox.upTo = r.ledger.cursor
	r.owed.drop()
	r.owed.loaded = false
	r.countInboxes()
}

// forgetInboxes drops the events that an event erases. mu is held.
func (r *runner) forgetInboxes(event *contact.Event) {
	for _, removed := range r.inbox.forget(event) {
		r.lag.taken(removed.Position)
	}
	r.drain(event.Time)
	r.owed.forget(event)
	r.drainOwed(event.Time)
}

// toSift is an event that the filter is to be asked about.
type toSift struct {
	event *contact.Event
	sub   *subscription
	// owed: it is of the replay's inbox, which has this generation.
	owed       bool
	generation int
}

// beginSifting reports whether the filter is to be asked about something and nobody does that.
func (r *runner) beginSifting() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sifting {
		return false
	}
	_, r.sifting = r.nextToSift()
	return r.sifting
}

// nextToSift returns the event that the filter is asked about next. Live events and those of
// a replay alternate. mu is held.
func (r *runner) nextToSift() (next toSift, found bool) {
	live, owed := r.inbox.first(), r.owed.first()
	if owed != nil && !r.owedIsCurrent() {
		owed = nil
	}
	switch {
	case live == nil && owed == nil:
		return next, false
	case owed == nil || live != nil && !r.siftOwed:
		return toSift{event: live, sub: r.sub, generation: r.inbox.generation}, true
	default:
		return toSift{event: owed, sub: r.sub, owed: true, generation: r.owed.generation}, true
	}
}

// sift asks the filter about all that is in the inboxes. It has its own goroutine, and holds
// no lock while the filter is evaluated.
func (r *runner) sift(ctx context.Context) {
	for {
		r.mu.Lock()
		next, found := r.nextToSift()
		r.sifting = found && ctx.Err() == nil
		r.mu.Unlock()
		if !found || ctx.Err() != nil {
			return
		}
		var chosen bool
		if !r.budget.allows(r.clock.Now()) {
			r.dirty.Store(true) // status tells that events wait
		}
		if r.budget.run(ctx, func() { chosen = next.sub.chosen.has(next.event) }) == nil {
			r.sifted(next, chosen)
		}
	}
}

// sifted takes or leaves out an event that the filter was asked about, unless it was dropped
// meanwhile.
func (r *runner) sifted(next toSift, chosen bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.Now()
	r.siftOwed = !next.owed
	switch {
	case next.owed:
		if r.owed.first() != next.event || r.owed.generation != next.generation || !r.owedIsCurrent() {
			return
		}
		r.owed.pop()
		r.takeOwed(next.event, chosen)
		r.drainOwed(now)
	case r.inbox.first() == next.event && r.inbox.generation == next.generation:
		r.inbox.pop()
		r.take(next.event, chosen, now)
		r.drain(now)
		if !r.live {
			r.dirty.Store(true)
		}
	}
	if chosen || len(r.inbox.events) == 0 {
		r.rouse()
	}
}

// owedIsCurrent reports whether the page of the replay's inbox is what the replay is to send
// next. It is not after another spec, a deactivation or the end of the replay. mu is held.
func (r *runner) owedIsCurrent() bool {
	if !r.owed.loaded || !r.ledger.life.Replay.Running() || r.ledger.life.Deactivation != nil {
		return false
	}
	span, aside := r.owedSpan()
	return span == r.owed.span && aside == r.owed.aside
}

// owedSpan returns what a replay is to send next, and whether that was set aside. mu is held.
func (r *runner) owedSpan() (span store.Span, aside bool) {
	owed := &r.ledger.life.Owed
	if len(owed.Spans) == 0 {
		return owed.Aside, true
	}
	return owed.Spans[0], false
}

// receiveOwed takes a page of what is owed, up to a position, as far as there is room and the
// filter need not be asked. mu is held.
func (r *runner) receiveOwed(page []contact.Event, upTo int64, now time.Time) {
	r.owed.drop()
	r.owed.loaded, r.owed.upTo = true, upTo
	r.owed.span, r.owed.aside = r.owedSpan()
	r.countInboxes()
	for i := range page {
		if r.sub.mayWant(&page[i]) && !r.ledger.fitsReplay(&page[i]) {
			r.owed.upTo = page[i].Position - 1 // the rest is read again
			break
		}
		r.owed.push(&page[i])
		r.countInboxes()
	}
	r.drainOwed(now)
}

// drainOwed is drain for the inbox of a replay. mu is held.
func (r *runner) drainOwed(now time.Time) {
	defer r.countInboxes()
	if !r.owedIsCurrent() {
		return
	}
	for first := r.owed.first(); first != nil && !r.sub.evaluates(first); first = r.owed.first() {
		r.owed.pop()
		r.takeOwed(first, true)
	}
	position := r.owed.upTo
	if first := r.owed.first(); first != nil {
		position = first.Position - 1
	} else {
		r.owed.loaded = false
	}
	if position > r.owed.span.After || !r.owed.loaded {
		r.owed.span.After = position
		if r.owed.aside {
			r.ledger.passAside(position, now)
		} else {
			r.ledger.passOwed(position, now)
		}
	}
	r.changed()
}

// takeOwed takes an event of a replay, or leaves it out. mu is held.
func (r *runner) takeOwed(event *contact.Event, chosen bool) {
	switch {
	case r.owed.aside && !r.lists.has(event.List): // it stays a dead letter: the list may come back
		r.ledger.leaveOut()
	case chosen && r.sub.mayWant(event):
		r.ledger.takeOwed(event)
	case r.owed.aside:
		r.ledger.dropOwed(event.Position)
	case r.ledger.life.Replay.Of == v1alpha1.ReplayOfRange:
		r.ledger.leaveOut() // the store counted it, which knows no filter and no format
	}
}
