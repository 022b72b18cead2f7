package dispatcher

import (
	"slices"
	"time"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

const (
	// maxReplayed is how many events of a replay are open at once.
	maxReplayed = maxOpen / 2
	// replayLag is for how long calls may be made up for that a busy process was
	// late with. It bounds how many leave in one go.
	replayLag = 5 * time.Millisecond
)

// A replay takes what is owed, span by span, beside the live events:
//
//	owed ──takeOwed──▶ open, due at the pace of rules.replayGap ──▶ sent
//	live ──take──────▶ open ─▶ free, or waiting until the replay has passed the
//	                           last earlier event of the same contact
//
// So one contact's events keep their order, and other live events wait for
// nothing. What was open when the buffer's replay began waits as live events do.
// All of a replay are due since it began, so that they go in order of position.

// replayBuffer sends what is open and what is owed.
func (l *ledger) replayBuffer(now time.Time, total int64) {
	l.life.Replay = &store.Replay{Of: v1alpha1.ReplayOfBuffer, Total: total, StartedAt: now}
	l.replayed, l.replayedBytes, l.waiting = 0, 0, nil
	for _, e := range l.open {
		if e.inFlight && !e.replayed {
			l.replayedInFlight++
		}
		e.replayed, e.waitFor = true, 0
		l.awaitReplay(e)
		e.retries, e.firstAttempt, e.waitEnds, e.dueAt = 0, time.Time{}, time.Time{}, now
		l.replayed++
		l.replayedBytes += bytesOf(e.event)
	}
	l.arrange()
	l.finishReplay(now)
}

// startReplay sends what these are, which are so many.
func (l *ledger) startReplay(of v1alpha1.ReplayContent, owed store.Owed, now time.Time) {
	l.life.Replay = &store.Replay{Of: of, Total: owed.Events, StartedAt: now}
	l.life.Owed = owed
	l.finishReplay(now)
}

// replayRoom is how many events of a replay can be taken. Those that wait for earlier
// ones of it take no room: where they had all of it, it would never come to those.
func (l *ledger) replayRoom() int {
	if !l.life.Replay.Running() || l.life.Deactivation != nil {
		return 0
	}
	taken := l.replayed + l.undecidedReplay.events
	for _, e := range l.waiting {
		if e.replayed {
			taken--
		}
	}
	return max(0, maxReplayed-taken)
}

// replayMayGo tells whether a call of a replay may be made now.
func (l *ledger) replayMayGo(now time.Time, rules *rules) bool {
	return l.replayedInFlight < rules.maxReplayed && !now.Before(l.replayAt)
}

// noteReplayed notes that a call of a replay is made.
func (l *ledger) noteReplayed(now time.Time, rules *rules) {
	l.replayedInFlight++
	l.replayAt = later(l.replayAt, now.Add(-replayLag)).Add(rules.replayGap)
}

// takeOwed takes an event that is owed. One that is open already is on its way, and
// was not dropped for good if it had been.
func (l *ledger) takeOwed(event *contact.Event) {
	l.takeOut(event.Position)
	if open := l.open[event.Position]; open != nil {
		open.forgotten = false
		l.life.Replay.Total--
		return
	}
	e := &openEvent{event: event, dueAt: l.life.Replay.StartedAt, replayed: true}
	l.add(e)
	l.place(e)
}

// dropOwed drops an event that was owed.
func (l *ledger) dropOwed(position int64) {
	l.takeOut(position)
	l.life.Replay.Total--
}

// leaveOut notes that an event was counted that is not to be sent.
func (l *ledger) leaveOut() {
	l.life.Owed.Events = max(0, l.life.Owed.Events-1)
	l.life.Replay.Total--
}

// takeOut notes that an event is owed no more, nor set aside.
func (l *ledger) takeOut(position int64) {
	l.taken = append(l.taken, position)
	l.aside = slices.DeleteFunc(l.aside, func(other int64) bool { return other == position })
	l.life.Owed.Events = max(0, l.life.Owed.Events-1)
}

// passOwed notes that the first span was taken up to a position. At its end the
// next one follows.
func (l *ledger) passOwed(position int64, now time.Time) {
	spans := l.life.Owed.Spans
	if position < spans[0].UpTo {
		spans[0].After = position
	} else {
		l.life.Owed.Spans = slices.Delete(spans, 0, 1)
	}
	l.letGo()
	l.finishReplay(now)
}

// passAside is passOwed for what was set aside.
func (l *ledger) passAside(position int64, now time.Time) {
	aside := &l.life.Owed.Aside
	aside.After = position
	if position >= aside.UpTo {
		*aside = store.Span{}
	}
	l.finishReplay(now)
}

// replayedUpTo is the position up to which nothing is owed.
func (l *ledger) replayedUpTo() int64 {
	if len(l.life.Owed.Spans) == 0 {
		return unknownPosition
	}
	return l.life.Owed.Spans[0].After
}

// awaitReplay has an event wait that comes after what is owed, until it is known
// whether there are earlier ones of its contact.
func (l *ledger) awaitReplay(e *openEvent) {
	if l.ordering == v1alpha1.OrderingPerContact && e.event.Position > l.replayedUpTo() {
		e.waitFor = unknownPosition
		l.waiting = append(l.waiting, e)
	}
}

// letGo makes the events due that no longer have to wait.
func (l *ledger) letGo() {
	upTo := l.replayedUpTo()
	l.waiting = slices.DeleteFunc(l.waiting, func(e *openEvent) bool {
		if e.waitFor > upTo {
			return false
		}
		e.waitFor = 0
		l.queue(e)
		return true
	})
}

// unchecked returns the waiting events of which it is not known what for.
func (l *ledger) unchecked() (events []*openEvent) {
	if l.life.Deactivation != nil {
		return nil
	}
	for _, e := range l.waiting {
		if e.waitFor == unknownPosition {
			events = append(events, e)
		}
	}
	return events
}

// owedEnd is the last position that is owed, 0 when none is.
func (l *ledger) owedEnd() int64 {
	spans := l.life.Owed.Spans
	if len(spans) == 0 {
		return 0
	}
	return spans[len(spans)-1].UpTo
}

// countReplayed counts an event that a replay is through with.
func (l *ledger) countReplayed(e *openEvent, sent bool) {
	if !e.replayed || !l.life.Replay.Running() {
		return
	}
	if sent {
		l.life.Replay.Sent++
	} else {
		l.life.Replay.Failed++
	}
}

// finishReplay ends a replay that has nothing left to do. Its total is what it
// really had then: people may have been forgotten.
func (l *ledger) finishReplay(now time.Time) {
	replay, owed := l.life.Replay, &l.life.Owed
	if !replay.Running() || l.replayed > 0 || len(owed.Spans) > 0 || owed.Aside != (store.Span{}) {
		return
	}
	*owed = store.Owed{}
	replay.FinishedAt = now
	replay.Total = replay.Sent + replay.Failed
	l.letGo()
}

// interruptReplay ends a replay because the callback is deactivated. What is left
// of it is buffered; what was set aside before stays so.
func (l *ledger) interruptReplay(now time.Time) {
	replay, owed := l.life.Replay, &l.life.Owed
	if !replay.Running() {
		return
	}
	replay.FinishedAt, replay.Interrupted = now, true
	if owed.Aside != (store.Span{}) {
		*owed = store.Owed{}
	}
}
