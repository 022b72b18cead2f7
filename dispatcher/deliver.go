package dispatcher

import (
	"context"
	"time"
)

// What is in this file makes a runner's attempts: it begins them, makes them and
// notes how they ended.

// begun is an attempt that is in flight.
type begun struct {
	of   *openEvent
	sub  *subscription
	made call
	// body is what the attempt has taken of the budget of bodies.
	body reservation
}

// begin puts the next event in flight that may be sent now, or returns nil. mu is
// held.
func (r *runner) begin(now time.Time) *begun {
	if !r.mayBegin() || now.Before(r.postponedUntil) || !r.pace.allows(now) || !r.budget.allows(now) {
		return nil
	}
	if !r.calls.take(r.ledger.inFlight) {
		return nil
	}
	body, ok := r.reserve()
	if !ok {
		r.calls.give(r.ledger.inFlight + 1)
		return nil
	}
	e := r.ledger.next(now, &r.sub.rules)
	if r.ledger.unsaved {
		r.ledger.unsaved = false
		r.dirty.Store(true)
	}
	if e == nil {
		r.bodies.give(body.taken)
		r.calls.give(r.ledger.inFlight + 1)
		return nil
	}
	r.pace.begin(now)
	b := &begun{of: e, sub: r.sub, body: body}
	b.made = call{event: e.event, number: e.attempts + 1, replayed: e.replayed, held: e.held, body: &b.body}
	return b
}

// deliver makes an attempt, and then the next one that may begin once it has ended,
// as long as there is one.
func (r *runner) deliver(ctx context.Context, next *begun) {
	for next != nil {
		next = r.settle(next, r.attempt(ctx, next.sub, next.made))
	}
}

// mayBegin tells whether an attempt may be begun now, were one due. mu is held.
func (r *runner) mayBegin() bool {
	return !r.ended && !r.sub.held && r.ledger.inFlight < r.sub.maxInFlight && r.calls.left(r.ledger.inFlight) && r.hasBodyRoom() &&
		r.life.lasts()
}

// attempted is how an attempt ended, and when.
type attempted struct {
	outcome
	ended time.Time
	// cause is why it was postponed.
	cause error
}

// postponement is how long a subscription begins no attempt after one was postponed. It begins
// earlier when the controller has written status, which is heard of.
const postponement = time.Second

// attempt tries once to deliver an event, and tells of it.
func (r *runner) attempt(ctx context.Context, s *subscription, made call) attempted {
	began := r.clock.Now()
	if !r.life.lasts() { // the process may have been stopped before it came here
		return attempted{outcome: outcome{verdict: aborted}, ended: began}
	}
	ctx, span := r.beginSpan(ctx, made)
	o, cause := r.deliverer.attempt(ctx, s, made)
	endSpan(span, o)
	ended := r.clock.Now()
	if o.verdict == deferred { // which nobody needs to know but who looks at metrics
		return attempted{outcome: o, ended: ended}
	}
	event := made.event
	if verbose := r.logger.V(1); verbose.Enabled() {
		verbose.Info("attempt", "event", event.ID, "type", event.Type, "attempt", made.number, "test", made.test,
			"outcome", o.label(), "status", o.status, "cause", cause, "duration", ended.Sub(began).String())
	}
	if o.verdict == givenUp && o.reason != mailObsolete {
		r.logger.Info("event is given up", "event", event.ID, "list", event.List.Namespace+"/"+event.List.Name,
			"contact", event.Contact.ID, "outcome", o.label(), "status", o.status, "cause", cause)
	}
	if o.verdict == postponed { // there was no call
		return attempted{outcome: o, ended: ended, cause: cause}
	}
	if r.tell != nil {
		r.tell(attemptOf(made, o, began, ended))
	}
	if !made.test {
		r.observe(o, ended.Sub(began), ended.Sub(event.Time))
		if r.tally != nil {
			r.tally.note(made, o, ended.Sub(event.Time))
		}
	}
	return attempted{outcome: o, ended: ended}
}

// settle notes how an attempt ended, and begins the next one in its place.
func (r *runner) settle(ended *begun, made attempted) *begun {
	if r.checkpoint != nil && made.verdict == delivered {
		defer r.checkpoint()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls.give(r.ledger.inFlight)
	r.release(&ended.body, made.outcome)
	r.ledger.settle(ended.of, made.outcome, made.ended, &r.sub.rules)
	switch made.verdict {
	case aborted, deferred:
	case postponed:
		r.postpone(made)
	default:
		r.postponed = false
		r.dirty.Store(true)
	}
	next := r.begin(made.ended)
	// While there are as many in flight as may be, there is nothing for the loop.
	if next == nil || r.ledger.inFlight < r.sub.maxInFlight || r.wantsStore() && !r.reading {
		r.rouse()
	}
	return next
}

// postpone has no attempt begin for a while, after one that was postponed. mu is held.
func (r *runner) postpone(made attempted) {
	if !r.postponed {
		r.logger.Info("Waiting for the controller to check what calls need", "cause", made.cause.Error())
	}
	r.postponed, r.postponedUntil = true, made.ended.Add(postponement)
}
