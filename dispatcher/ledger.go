package dispatcher

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// maxOpen is how many events a subscription may have taken and not delivered.
// At the bound the cursor waits, so a callback that is down costs a bounded
// amount of memory and of checkpoint.
const maxOpen = 1000

// ledger is a subscription's events between being taken from the log and being
// delivered. It decides which may be sent when. It does nothing by itself and
// has no clock: its owner tells it what happened and asks what is next.
//
// An open event is in one of four places:
//
//	take ─▶ due ──next──▶ in flight ──delivered──▶ gone
//	  │      ▲ ▲                │
//	  │      │ └── failed ──────┘  (due again after the next interval)
//	  ▼      │
//	 behind an earlier event of the same contact, until that one is delivered
type ledger struct {
	// cursor is the position up to which events were taken.
	cursor   int64
	ordering v1alpha1.Ordering
	health   store.Health

	open map[int64]*openEvent
	due  dueHeap
	// chains has each contact's open events in order, where they wait for each
	// other: the first is due or in flight, the others are behind it.
	chains   map[int64][]*openEvent
	inFlight int
	retrying int
}

// openEvent is one event of a ledger.
type openEvent struct {
	event *contact.Event
	// attempts is how many have failed.
	attempts int
	// dueAt is when the next attempt may begin.
	dueAt    time.Time
	inFlight bool
	// forgotten: should the attempt under way fail, there is no other.
	forgotten bool
}

// newLedger returns the ledger that was last written to the store. events are
// those that it has open; one that is missing was removed from the log for good.
func newLedger(delivery store.Delivery, events []contact.Event, ordering v1alpha1.Ordering) *ledger {
	l := &ledger{
		cursor: delivery.Cursor, health: delivery.Health, ordering: ordering,
		open: map[int64]*openEvent{},
	}
	stored := map[int64]store.OpenEvent{}
	for _, open := range delivery.Open {
		stored[open.Position] = open
	}
	for i := range events {
		state := stored[events[i].Position]
		l.open[events[i].Position] = &openEvent{event: &events[i], attempts: state.Attempts, dueAt: state.NextAttempt}
		l.retrying += min(state.Attempts, 1)
	}
	l.arrange()
	return l
}

// room is how many events can be taken.
func (l *ledger) room() int { return maxOpen - len(l.open) }

// take opens an event. Its position is above all that were taken before.
func (l *ledger) take(event *contact.Event, now time.Time) {
	l.cursor = event.Position
	e := &openEvent{event: event, dueAt: now}
	l.open[event.Position] = e
	l.place(e)
}

// place makes an event due, or puts it behind an earlier one of its contact.
func (l *ledger) place(e *openEvent) {
	if l.ordering == v1alpha1.OrderingPerContact {
		chain := l.chains[e.event.Contact.ID]
		l.chains[e.event.Contact.ID] = append(chain, e)
		if len(chain) > 0 {
			return
		}
	}
	if !e.inFlight {
		heap.Push(&l.due, e)
	}
}

// setOrdering changes whether a contact's events wait for each other. Those in
// flight stay there.
func (l *ledger) setOrdering(ordering v1alpha1.Ordering) {
	if l.ordering != ordering {
		l.ordering = ordering
		l.arrange()
	}
}

// arrange places all open events anew.
func (l *ledger) arrange() {
	l.due = nil
	l.chains = map[int64][]*openEvent{}
	for _, e := range l.sorted() {
		l.place(e)
	}
}

func (l *ledger) sorted() []*openEvent {
	all := make([]*openEvent, 0, len(l.open))
	for _, e := range l.open {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *openEvent) int { return cmp.Compare(a.event.Position, b.event.Position) })
	return all
}

// next returns an event that may be sent now, which is then in flight, or nil.
func (l *ledger) next(now time.Time) *openEvent {
	if len(l.due) == 0 || l.due[0].dueAt.After(now) {
		return nil
	}
	e := heap.Pop(&l.due).(*openEvent)
	e.inFlight = true
	l.inFlight++
	return e
}

// nextDue returns when the next event may be sent; zero when none waits.
func (l *ledger) nextDue() time.Time {
	if len(l.due) == 0 {
		return time.Time{}
	}
	return l.due[0].dueAt
}

// settle notes how an attempt ended. intervals are the waits before the
// retries; the last one is repeated.
func (l *ledger) settle(e *openEvent, o outcome, now time.Time, intervals []time.Duration) {
	e.inFlight = false
	l.inFlight--
	switch o.verdict {
	case delivered:
		l.health.LastSuccess = now
		l.health.FailingSince = time.Time{}
		l.close(e)
	case givenUp:
		l.close(e)
	case failed:
		l.retrying += 1 - min(e.attempts, 1)
		e.attempts++
		e.dueAt = now.Add(intervals[min(e.attempts, len(intervals))-1])
		l.noteFailure(e, o, now)
		l.again(e)
	case aborted:
		l.again(e)
	}
}

// forget drops the open events of a person from before this one.
func (l *ledger) forget(event *contact.Event) {
	for position, e := range l.open {
		if position >= event.Position || e.event.List != event.List || e.event.Address != event.Address {
			continue
		}
		if e.inFlight {
			e.forgotten = true
			continue
		}
		delete(l.open, position)
		l.retrying -= min(e.attempts, 1)
	}
	l.arrange()
}

func (l *ledger) noteFailure(e *openEvent, o outcome, now time.Time) {
	if l.health.FailingSince.IsZero() {
		l.health.FailingSince = now
	}
	l.health.LastFailure = &store.Failure{Time: now, Reason: o.reason, HTTPStatus: o.status, Attempts: e.attempts}
}

// again makes an event due that was in flight, unless the ordering was changed
// meanwhile and an earlier one of its contact is open.
func (l *ledger) again(e *openEvent) {
	if e.forgotten {
		l.close(e)
		return
	}
	if chain := l.chains[e.event.Contact.ID]; len(chain) == 0 || chain[0] == e {
		heap.Push(&l.due, e)
	}
}

// close removes an event that has been delivered and lets the next one of its
// contact go.
func (l *ledger) close(e *openEvent) {
	delete(l.open, e.event.Position)
	l.retrying -= min(e.attempts, 1)
	chain := l.chains[e.event.Contact.ID]
	at := slices.Index(chain, e)
	if at < 0 {
		return
	}
	if len(chain) == 1 {
		delete(l.chains, e.event.Contact.ID)
		return
	}
	chain = slices.Delete(chain, at, at+1)
	l.chains[e.event.Contact.ID] = chain
	if at == 0 && !chain[0].inFlight {
		heap.Push(&l.due, chain[0])
	}
}

// openEvents returns what the store keeps of the open events.
func (l *ledger) openEvents() []store.OpenEvent {
	var all []store.OpenEvent
	for _, e := range l.sorted() {
		stored := store.OpenEvent{Position: e.event.Position, Attempts: e.attempts}
		if e.attempts > 0 {
			stored.NextAttempt = e.dueAt
		}
		all = append(all, stored)
	}
	return all
}

// dueHeap orders events by when they are due, and by position where that is
// the same.
type dueHeap []*openEvent

func (h dueHeap) Len() int      { return len(h) }
func (h dueHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h dueHeap) Less(i, j int) bool {
	if !h[i].dueAt.Equal(h[j].dueAt) {
		return h[i].dueAt.Before(h[j].dueAt)
	}
	return h[i].event.Position < h[j].event.Position
}
func (h *dueHeap) Push(x any) { *h = append(*h, x.(*openEvent)) }
func (h *dueHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}
