package dispatcher

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"postbus.dev/postbus/api/v1alpha1"
)

// What is in this file decides which of a ledger's open events may be sent, and
// when.

// chain are a contact's open events, by position.
type chain struct {
	events []*openEvent
	// busy: one of them is in flight.
	busy bool
}

// place puts an event into its contact's chain, and makes it due if it is the
// first there.
func (l *ledger) place(e *openEvent) {
	if l.ordering == v1alpha1.OrderingPerContact {
		c := l.chains[subjectOf(e.event)]
		if c == nil {
			c = &chain{}
			l.chains[subjectOf(e.event)] = c
		}
		at := len(c.events)
		for at > 0 && c.events[at-1].event.Position > e.event.Position {
			at--
		}
		c.events = slices.Insert(c.events, at, e)
		c.busy = c.busy || e.inFlight
	}
	l.queue(e)
}

// queue makes an event due, unless another one has to go before it.
func (l *ledger) queue(e *openEvent) {
	if e.queued || !l.mayGo(e) {
		return
	}
	e.queued = true
	if e.replayed {
		heap.Push(&l.dueReplayed, e)
	} else {
		heap.Push(&l.due, e)
	}
}

// mayGo tells whether no other event stands in the way of this one.
func (l *ledger) mayGo(e *openEvent) bool {
	if e.inFlight || e.waitFor > l.replayedUpTo() {
		return false
	}
	c := l.chains[subjectOf(e.event)]
	return c == nil || (!c.busy && c.events[0] == e)
}

// setOrdering changes whether a contact's events wait for each other, and for a replay.
// Those in flight stay there.
func (l *ledger) setOrdering(ordering v1alpha1.Ordering) {
	if l.ordering == ordering {
		return
	}
	l.ordering = ordering
	if ordering == v1alpha1.OrderingNone {
		for _, e := range l.waiting {
			e.waitFor = 0
		}
		l.waiting = nil
	}
	l.arrange()
}

// arrange places all open events anew.
func (l *ledger) arrange() {
	l.due, l.dueReplayed = nil, nil
	l.chains = map[subject]*chain{}
	for _, e := range l.sorted() {
		e.queued = false
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
// Live events come before those of a replay.
func (l *ledger) next(now time.Time, rules *rules) *openEvent {
	if l.life.Deactivation != nil {
		return nil
	}
	e := l.pop(&l.due, now)
	for e != nil && l.hold(e, now, rules.notices) {
		e = l.pop(&l.due, now)
	}
	if e == nil && l.replayMayGo(now, rules) {
		if e = l.pop(&l.dueReplayed, now); e != nil {
			l.noteReplayed(now, rules)
		}
	}
	if e == nil {
		return nil
	}
	if e.attempts == 0 || e.firstAttempt.IsZero() {
		e.firstAttempt = now
	}
	e.inFlight = true
	l.inFlight++
	if c := l.chains[subjectOf(e.event)]; c != nil {
		c.busy = true
	}
	return e
}

// pop returns the first event of a heap that is due and may go, or nil.
func (l *ledger) pop(h *dueHeap, now time.Time) *openEvent {
	for len(*h) > 0 && !(*h)[0].dueAt.After(now) {
		e := heap.Pop(h).(*openEvent)
		e.queued = false
		if l.mayGo(e) {
			return e
		}
	}
	return nil
}

// nextDue returns when the next event may be sent; zero when none waits.
func (l *ledger) nextDue(rules *rules) time.Time {
	if l.life.Deactivation != nil {
		return time.Time{}
	}
	var due time.Time
	if len(l.due) > 0 {
		due = l.due[0].dueAt
	}
	if len(l.dueReplayed) > 0 && l.replayedInFlight < rules.maxReplayed {
		if at := later(l.dueReplayed[0].dueAt, l.replayAt); due.IsZero() || at.Before(due) {
			due = at
		}
	}
	return due
}

// dueHeap orders events by when they are due, and by position where that is
// the same.
type dueHeap []*openEvent

func (h dueHeap) Len() int      { return len(h) }
func (h dueHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h dueHeap) Less(i, j int) bool {
	return cmp.Or(h[i].dueAt.Compare(h[j].dueAt), cmp.Compare(h[i].event.Position, h[j].event.Position)) < 0
}
func (h *dueHeap) Push(x any) { *h = append(*h, x.(*openEvent)) }
func (h *dueHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}
