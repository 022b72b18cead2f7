package dispatcher

import (
	"math"
	"slices"
	"time"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// maxOpen is how many events a subscription may have taken and not delivered, and
// half as many of a replay beside them. At the bound the cursor waits, so a
// callback that is down costs a bounded amount of memory and of checkpoint. maxOpenBytes
// and maxReplayedBytes bound their bytes in the same way.
const (
	maxOpen          = 1000
	maxOpenBytes     = 8 << 20
	maxReplayedBytes = maxOpenBytes / 2
	// openEventBytes is what an open event takes beside the event.
	openEventBytes = 256
)

// ledger is a subscription's events between being taken from the log and being
// delivered. It decides which may be sent when, and what becomes of those that
// fail. It does nothing by itself and has no clock: its owner tells it what
// happened and asks what is next.
//
// An open event is in one of four places:
//
//	take ─▶ due ──next──▶ in flight ──delivered──▶ gone
//	  │      ▲ ▲                │ │
//	  │      │ └── failed ──────┘ └─ retries used up ─▶ set aside, or the callback
//	  ▼      │    (due again after the next wait)       is deactivated
//	 behind an earlier event of the same contact, until that one is delivered
//
// What becomes of a callback that is deactivated is in deactivation.go, and how
// events are sent again in replay.go.
type ledger struct {
	key store.SubscriptionKey
	// cursor is the position up to which events were taken.
	cursor   int64
	ordering v1alpha1.Ordering
	health   store.Health
	life     store.Life

	open map[int64]*openEvent
	// due has the events that may be sent at their time, dueReplayed those of a
	// replay. They may hold some that are not the first of their chain any more.
	due, dueReplayed dueHeap
	// chains has each contact's open events in order, and each object's, where they
	// wait for each other: the first may be sent, the others are behind it.
	chains map[subject]*chain
	// waiting are events that may have to wait for a replay to take earlier ones of
	// their contacts.
	waiting []*openEvent
	// replayed is how many of the open events a replay sends, replayedInFlight how
	// many of those in flight, and replayAt when the next one may be sent.
	inFlight, replayed, replayedInFlight int
	replayAt                             time.Time
	// pending has the bytes of all open events, and replayedBytes is how many of them are of
	// those that a replay sends. needed and replayNeeded are the bytes of an event that there
	// was no room for; 0 when there is none.
	pending                             share
	replayedBytes, needed, replayNeeded int64
	// undecidedLive and undecidedReplay are events that the filter has not been asked about.
	// They are not open, but count in the room.
	undecidedLive, undecidedReplay undecided

	// failingRaisedAt is when subscription.failing was raised last.
	failingRaisedAt time.Time
	// setAsides is how many events were set aside.
	setAsides int
	// operations is how many operational events were raised so far, by whichever
	// owner.
	operations int64
	// aside, taken and raised are for the next checkpoint, see store.Progress.
	aside, taken []int64
	raised       []contact.Event
	// unsaved: something changed while the next event was looked for.
	unsaved bool
}

// openEvent is one event of a ledger.
type openEvent struct {
	event *contact.Event
	// attempts is how many have failed, retries how many waits for a retry have
	// begun. The last of these ends at waitEnds.
	attempts, retries int
	waitEnds          time.Time
	// firstAttempt is when the first attempt began.
	firstAttempt time.Time
	// dueAt is when the next attempt may begin.
	dueAt    time.Time
	inFlight bool
	// queued: it is among those due.
	queued bool
	// replayed: a replay sends it.
	replayed bool
	// waitFor is the position that a replay must have reached before.
	waitFor int64
	// forgotten: should the attempt under way fail, there is no other.
	forgotten bool
	// held, of a notice that had to wait, is how many deactivations it tells of.
	held int
}

// rules are what a subscription says of failures and replays.
type rules struct {
	// intervals are the waits before the retries.
	intervals []time.Duration
	// deactivation is what to do with an event that has used them up. Empty, as
	// for mails, the last interval is repeated.
	deactivation v1alpha1.DeactivationPolicy
	// window is how long events are kept after a deactivation.
	window time.Duration
	// notify are the addresses to be mailed of a deactivation.
	notify []string
	// replayGap is the time between two calls of a replay, maxReplayed how many of
	// them may be in flight.
	replayGap   time.Duration
	maxReplayed int
	// notices, when not nil, bound notices.
	notices *noticeLimits
}

// newLedger returns the ledger that was last written to the store. events are
// those that it has open; one that is missing was removed from the log for good.
func newLedger(delivery store.Delivery, events []contact.Event, ordering v1alpha1.Ordering) *ledger {
	l := &ledger{
		key: delivery.Key, cursor: delivery.Cursor, health: delivery.Health, life: cloneLife(delivery.Life), ordering: ordering,
		operations: delivery.Operations, open: map[int64]*openEvent{},
	}
	stored := map[int64]store.OpenEvent{}
	for _, open := range delivery.Open {
		stored[open.Position] = open
	}
	for i := range events {
		state := stored[events[i].Position]
		e := &openEvent{
			event: &events[i], attempts: state.Attempts, retries: state.Retries, firstAttempt: state.FirstAttempt,
			dueAt: state.NextAttempt, waitEnds: state.WaitEnds, replayed: state.Replayed, held: state.Held,
		}
		if e.replayed && e.attempts == 0 {
			e.dueAt = l.life.Replay.StartedAt
		}
		l.add(e)
		l.awaitReplay(e)
	}
	l.arrange()
	return l
}

// add opens an event, without placing it.
func (l *ledger) add(e *openEvent) {
	l.open[e.event.Position] = e
	l.pending.force(bytesOf(e.event))
	if e.replayed {
		l.replayed++
		l.replayedBytes += bytesOf(e.event)
	}
}

// room is how many events can be taken from the end of the log. A replay has room of
// its own, but no more: all that was open at a reactivation is of its replay.
func (l *ledger) room() int {
	if l.life.Deactivation != nil {
		return max(0, maxOpen-l.undecidedLive.events) // those that are decided are counted, not opened
	}
	return max(0, maxOpen-(len(l.open)-min(l.replayed, maxReplayed))-l.undecidedLive.events)
}

// take takes an event that came after all that were taken before.
func (l *ledger) take(event *contact.Event, now time.Time) {
	l.cursor = event.Position
	if l.life.Deactivation != nil {
		l.buffer(event)
		return
	}
	e := &openEvent{event: event, dueAt: now}
	l.add(e)
	l.awaitReplay(e)
	l.place(e)
}

// settle notes how an attempt ended.
func (l *ledger) settle(e *openEvent, o outcome, now time.Time, rules *rules) {
	l.land(e)
	if e.forgotten && o.verdict != delivered {
		l.close(e)
		l.finishReplay(now)
		return
	}
	wasWell := l.health.FailingSince.IsZero()
	switch o.verdict {
	case delivered:
		l.health.LastSuccess = now
		l.health.FailingSince = time.Time{}
		l.countReplayed(e, true)
		l.noteNotice(e.event, now, rules.notices)
		l.close(e)
	case givenUp:
		l.close(e)
	case unsendable:
		l.setAside(e)
	case failed, gone:
		l.fail(e, o, now, rules)
	case hindered:
		l.noteFailure(e, o, now)
		e.dueAt = now.Add(rules.intervals[0])
		l.again(e)
	case postponed, aborted, deferred:
		l.again(e)
	}
	if wasWell && !l.health.FailingSince.IsZero() && l.life.Deactivation == nil {
		l.raiseFailing(now, rules)
	}
	l.finishReplay(now)
}

// land takes an event out of flight.
func (l *ledger) land(e *openEvent) {
	e.inFlight = false
	l.inFlight--
	if e.replayed {
		l.replayedInFlight--
	}
	if c := l.chains[subjectOf(e.event)]; c != nil {
		c.busy = false
	}
}

// fail has an event wait for its next attempt, or decides what becomes of it when
// there is none.
func (l *ledger) fail(e *openEvent, o outcome, now time.Time, rules *rules) {
	e.attempts++
	l.noteFailure(e, o, now)
	switch {
	case l.life.Deactivation != nil:
		// It stays open, and is in the buffer so.
	case o.verdict == gone && rules.deactivation == v1alpha1.DeactivateOnUnreachable:
		l.deactivate(now, rules)
	case now.Before(e.waitEnds):
		// The callback asked for this attempt, it used up no retry.
		e.dueAt = sooner(now, o.retryAfter, e.waitEnds)
	case e.retries < len(rules.intervals) || rules.deactivation == "":
		e.waitEnds = now.Add(rules.intervals[min(e.retries, len(rules.intervals)-1)])
		e.retries++
		e.dueAt = sooner(now, o.retryAfter, e.waitEnds)
	case rules.deactivation == v1alpha1.DeactivateOnUnreachable && l.health.LastSuccess.Before(e.firstAttempt):
		l.deactivate(now, rules)
	default:
		l.setAside(e)
		return
	}
	l.again(e)
}

// sooner returns when an event is due whose wait ends then, and that the callback
// asked for after another time; 0 when it did not ask.
func sooner(now time.Time, asked time.Duration, waitEnds time.Time) time.Time {
	if at := now.Add(asked); asked > 0 && at.Before(waitEnds) {
		return at
	}
	return waitEnds
}

// later returns the later of two times.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// setAside closes an event that nobody has, for somebody to replay it.
func (l *ledger) setAside(e *openEvent) {
	l.aside = append(l.aside, e.event.Position)
	l.setAsides++
	l.countReplayed(e, false)
	l.close(e)
}

func (l *ledger) noteFailure(e *openEvent, o outcome, now time.Time) {
	l.health.LastFailure = &store.Failure{Time: now, Reason: o.reason, HTTPStatus: o.status, Attempts: max(1, e.attempts)}
	if l.health.FailingSince.IsZero() && l.life.Deactivation == nil {
		l.health.FailingSince = now
	}
}

// forget drops the open events that an event removes from the log.
func (l *ledger) forget(event *contact.Event) {
	for _, e := range l.open {
		if !event.Removes(e.event) {
			continue
		}
		if e.inFlight {
			e.forgotten = true
			continue
		}
		l.remove(e)
	}
	l.arrange()
	l.finishReplay(event.Time)
}

// again makes an event due that was in flight, unless an earlier one of its
// contact is open.
func (l *ledger) again(e *openEvent) {
	if c := l.chains[subjectOf(e.event)]; c != nil {
		e = c.events[0]
	}
	l.queue(e)
}

// close removes an event and lets the next one of its contact go.
func (l *ledger) close(e *openEvent) {
	l.remove(e)
	c := l.chains[subjectOf(e.event)]
	if c == nil {
		return
	}
	c.events = slices.DeleteFunc(c.events, func(other *openEvent) bool { return other == e })
	if len(c.events) == 0 {
		delete(l.chains, subjectOf(e.event))
		return
	}
	l.queue(c.events[0])
}

// remove drops an event, whose chain is left to the caller.
func (l *ledger) remove(e *openEvent) {
	delete(l.open, e.event.Position)
	l.pending.give(bytesOf(e.event))
	if e.replayed {
		l.replayed--
		l.replayedBytes -= bytesOf(e.event)
	}
	if e.waitFor != 0 {
		l.waiting = slices.DeleteFunc(l.waiting, func(other *openEvent) bool { return other == e })
	}
}

// openEvents returns what the store keeps of the open events.
func (l *ledger) openEvents() []store.OpenEvent {
	all := make([]store.OpenEvent, 0, len(l.open))
	for _, e := range l.sorted() {
		stored := store.OpenEvent{Position: e.event.Position, Attempts: e.attempts, Retries: e.retries, Replayed: e.replayed, Held: e.held}
		if e.attempts > 0 {
			stored.NextAttempt, stored.FirstAttempt, stored.WaitEnds = e.dueAt, e.firstAttempt, e.waitEnds
		}
		all = append(all, stored)
	}
	return all
}

// unknownPosition is above all positions.
const unknownPosition = math.MaxInt64
