package dispatcher

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// deactivate ends all calls. What is open stays so, and what comes is counted into
// the buffer, until somebody reactivates the subscription (Mailingwork's rule).
func (l *ledger) deactivate(now time.Time, rules *rules) {
	// Notices and links name a deactivation by its time, as the log has it: PostgreSQL
	// keeps microseconds.
	now = now.Truncate(time.Microsecond)
	l.life.Deactivation = &store.Deactivation{At: now, Until: now.Add(rules.window)}
	l.interruptReplay(now)
	if l.owedEnd() != l.cursor || len(l.life.Owed.Spans) == 0 {
		l.life.Owed.Spans = append(l.life.Owed.Spans, store.Span{After: l.cursor, UpTo: l.cursor})
	}
	told := contact.Operation{
		Reason: l.health.LastFailure.Reason, HTTPStatus: l.health.LastFailure.HTTPStatus,
		FailingSince: l.health.FailingSince, BufferedUntil: l.life.Deactivation.Until, Events: l.buffered(),
	}
	l.raise(contact.EventDeactivated, now, told)
	for _, told.Recipient = range rules.notify {
		l.raise(contact.EventNotice, now, told)
	}
}

// buffer counts an event that came after the deactivation: what came up to the
// end of the window is owed, the rest is lost.
func (l *ledger) buffer(event *contact.Event) {
	d := l.life.Deactivation
	if !d.Ended && !event.Time.After(d.Until) {
		l.life.Owed.Spans[len(l.life.Owed.Spans)-1].UpTo = event.Position
		l.life.Owed.Events++
		return
	}
	d.Ended = true
	if d.Lost++; d.Lost == 1 {
		d.LostFrom, d.LostTo = event.Time, event.Time
	}
	if event.Time.Before(d.LostFrom) {
		d.LostFrom = event.Time
	}
	d.LostTo = later(d.LostTo, event.Time)
}

// buffered is how many events wait for a reactivation.
func (l *ledger) buffered() int64 { return int64(len(l.open)) + l.life.Owed.Events }

// reactivate lets calls be made again, from what comes now on, and before that of
// the buffered events where replay says so. It returns how many these were.
func (l *ledger) reactivate(now time.Time, replay bool) int64 {
	buffered := l.buffered()
	l.life.Deactivation = nil
	l.health.FailingSince = time.Time{}
	if replay {
		l.replayBuffer(now, buffered)
	} else {
		l.dropBuffer()
	}
	l.raise(contact.EventReactivated, now, contact.Operation{Replay: replay, Events: buffered})
	return buffered
}

// dropBuffer drops all that is owed or open. Of what is in flight the outcome is
// awaited, as it may have arrived; it is of no replay any more.
func (l *ledger) dropBuffer() {
	l.life.Owed = store.Owed{}
	for _, e := range l.open {
		if !e.inFlight {
			l.remove(e)
			continue
		}
		e.forgotten = true
		if e.replayed {
			e.replayed = false
			l.replayed--
			l.replayedBytes -= bytesOf(e.event)
			l.replayedInFlight--
		}
	}
	l.arrange()
}

// deactivationDue is when the callback will be deactivated if no call succeeds;
// zero when that is not to be foreseen.
func (l *ledger) deactivationDue(rules *rules) (due time.Time) {
	if rules.deactivation != v1alpha1.DeactivateOnUnreachable || l.life.Deactivation != nil || l.health.FailingSince.IsZero() {
		return due
	}
	for _, e := range l.open {
		if e.attempts == 0 || !l.health.LastSuccess.Before(e.firstAttempt) {
			continue
		}
		last := e.waitEnds
		for _, interval := range rules.intervals[min(e.retries, len(rules.intervals)):] {
			last = last.Add(interval)
		}
		if due.IsZero() || last.Before(due) {
			due = last
		}
	}
	return due
}

// raiseFailing tells that calls begin to fail. A callback that answers by turns
// raises no more than one such event in the time before a retry.
func (l *ledger) raiseFailing(now time.Time, rules *rules) {
	if rules.deactivation == "" || now.Before(l.failingRaisedAt.Add(rules.intervals[0])) {
		return
	}
	l.failingRaisedAt = now
	failure := l.health.LastFailure
	l.raise(contact.EventFailing, now, contact.Operation{
		Reason: failure.Reason, HTTPStatus: failure.HTTPStatus, FailingSince: now, DeactivationDue: l.deactivationDue(rules),
	})
}

// raise has an operational event appended to the log by the next checkpoint.
func (l *ledger) raise(kind v1alpha1.EventType, now time.Time, operation contact.Operation) {
	operation.Kind, operation.Name = kindSubscription, l.key.Name
	l.operations++
	l.raised = append(l.raised, contact.Event{
		List: contact.ListKey{Namespace: l.key.Namespace}, Type: kind, Time: now, Operation: &operation,
	})
}

// answerReactivation reactivates, if that can be done, and says what became of it.
func (l *ledger) answerReactivation(request store.Request, now time.Time) {
	d := l.life.Deactivation
	switch {
	case d == nil:
		l.answer(request, now, v1alpha1.RequestRefused, "The subscription is not deactivated: there is nothing to reactivate.")
	case request.Type == store.RequestReactivateByLink && !d.At.Equal(request.DeactivatedAt):
		l.answer(request, now, v1alpha1.RequestRefused, "The link was of an earlier deactivation.")
	default:
		buffered := l.reactivate(now, request.Replay)
		message := fmt.Sprintf("Reactivated, %d buffered events are dropped.", buffered)
		if request.Replay {
			message = fmt.Sprintf("Reactivated, %d buffered events are sent.", buffered)
		}
		l.answer(request, now, v1alpha1.RequestDone, message)
	}
}

// answer notes what became of a request.
func (l *ledger) answer(request store.Request, now time.Time, result v1alpha1.RequestResult, message string) {
	if l.life.Answers == nil {
		l.life.Answers = map[store.RequestType]store.Answer{}
	}
	l.life.Answers[request.Type] = store.Answer{Value: request.Value, Result: result, Message: message, Time: now}
}

// answered tells whether a request has its answer.
func (l *ledger) answered(request store.Request) bool {
	answer, ok := l.life.Answers[request.Type]
	return ok && answer.Value == request.Value
}

// cloneLife returns a copy that shares nothing.
func cloneLife(life store.Life) store.Life {
	if life.Deactivation != nil {
		deactivation := *life.Deactivation
		life.Deactivation = &deactivation
	}
	if life.Replay != nil {
		replay := *life.Replay
		life.Replay = &replay
	}
	life.Owed.Spans = slices.Clone(life.Owed.Spans)
	life.Answers = maps.Clone(life.Answers)
	life.Notices = slices.Clone(life.Notices)
	return life
}
