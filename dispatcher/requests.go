package dispatcher

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/go-logr/logr"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// requestInterval is how often the store is asked for new requests.
const requestInterval = 250 * time.Millisecond

// followRequests hands new requests to the runners until the context ends. A
// runner that starts reads its own.
func (g *registry) followRequests(ctx context.Context) {
	var revision int64
	broken := false
	for ctx.Err() == nil {
		requests, err := g.options.Store.RequestsSince(ctx, revision)
		if err != nil && !broken && ctx.Err() == nil {
			logr.FromContextOrDiscard(ctx).Error(err, "requests can't be read, trying again")
		}
		broken = err != nil
		for _, request := range requests {
			g.ask(request)
			revision = request.Revision
		}
		sleep(ctx, g.options.Clock, requestInterval)
	}
}

// ask has the runner answer a request.
func (r *runner) ask(request store.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note(request)
	r.rouse()
}

// note takes note of a request that has no answer yet. mu is held.
func (r *runner) note(request store.Request) {
	if r.ledger.answered(request) {
		delete(r.requests, request.Type)
		return
	}
	if r.requests[request.Type].Revision <= request.Revision { // they are read in no order at the start
		r.requests[request.Type] = request
	}
}

// wantsAnswer tells whether a request can be answered now. mu is held.
func (r *runner) wantsAnswer() bool {
	for _, request := range r.requests {
		if r.canAnswer(request) {
			return true
		}
	}
	return false
}

// canAnswer reports whether a request can be answered now. A reactivation waits until all events
// are seen that belong to the buffer, and a replay until the one before it has ended. A test waits
// until the controller has checked the newest spec, so that it tries that one. mu is held.
func (r *runner) canAnswer(request store.Request) bool {
	switch request.Type {
	case v1alpha1.RequestReactivate, store.RequestReactivateByLink:
		return (r.live && len(r.inbox.events) == 0) || r.ledger.life.Deactivation == nil
	case v1alpha1.RequestTest:
		return r.testing != request.Value && r.life.lasts() && !r.sub.unchecked && !r.clock.Now().Before(r.postponedUntil)
	default:
		return !r.sub.unproven && !r.ledger.life.Replay.Running()
	}
}

// answerAll answers the requests that can be answered now.
func (r *runner) answerAll(ctx, attempts context.Context) error {
	r.mu.Lock()
	var requests []store.Request
	for _, request := range r.requests {
		if r.canAnswer(request) {
			requests = append(requests, request)
		}
	}
	r.mu.Unlock()
	for _, request := range requests {
		if err := r.answer(ctx, attempts, request); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) answer(ctx, attempts context.Context, request store.Request) error {
	switch request.Type {
	case v1alpha1.RequestReactivate, store.RequestReactivateByLink:
		r.reactivate(request)
		return nil
	case v1alpha1.RequestTest:
		r.test(attempts, request)
		return nil
	default:
		return r.replay(ctx, request)
	}
}

// replay begins a replay, or refuses it.
func (r *runner) replay(ctx context.Context, request store.Request) error {
	plan, err := r.plan(ctx, request)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.Now()
	switch {
	case r.requests[request.Type] != request || !r.canAnswer(request):
		return nil // another one took its place
	case r.ledger.life.Deactivation != nil:
		plan.refusal = "The subscription is deactivated: reactivate it first."
	}
	if plan.refusal != "" {
		r.ledger.answer(request, now, v1alpha1.RequestRefused, plan.refusal)
	} else {
		r.ledger.startReplay(plan.of, plan.owed, now)
		r.ledger.answer(request, now, v1alpha1.RequestDone, fmt.Sprintf("A replay of %d events was begun.", plan.owed.Events))
	}
	r.finish(request)
	return nil
}

// reactivate answers a reactivation, at a position of the tail up to which all
// events were counted.
func (r *runner) reactivate(request store.Request) {
	r.tail.leave(r, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		// What is in the inbox is of the buffer, and is to be counted before.
		if r.requests[request.Type] == request && len(r.inbox.events) == 0 {
			r.ledger.answerReactivation(request, r.clock.Now())
			r.finish(request)
		}
	})
}

// test makes one call with an event that is made for it, unless the controller has refused the
// spec. It says nothing about the callback's health.
func (r *runner) test(ctx context.Context, request store.Request) {
	s := r.beginTest(request)
	if s == nil {
		return
	}
	r.attempts.Go(func() {
		began := r.clock.Now()
		body := &reservation{runner: r}
		made := r.attempt(ctx, s, call{event: testEvent(s, began), number: 1, test: true, body: body})
		r.endTest(request, made, made.ended.Sub(began))
		r.mu.Lock()
		defer r.mu.Unlock()
		r.release(body, made.outcome)
	})
}

// beginTest returns the subscription that is tried, or nil.
func (r *runner) beginTest(request store.Request) *subscription {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.requests[request.Type] != request || r.sub.unchecked:
		return nil // another test took its place, or the spec has changed
	case !r.sub.accepted:
		r.ledger.answer(request, r.clock.Now(), v1alpha1.RequestRefused, "The spec can't be used: see the condition Accepted.")
		r.finish(request)
		return nil
	}
	r.testing = request.Value
	return r.sub
}

// endTest answers a test, unless another one took its place meanwhile.
func (r *runner) endTest(request store.Request, made attempted, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.testing == request.Value {
		r.testing = ""
	}
	if made.verdict == postponed {
		r.postpone(made)
		r.rouse()
	}
	if made.verdict == aborted || made.verdict == postponed || r.requests[request.Type] != request {
		return
	}
	result, message := describeTest(made.outcome, took)
	r.ledger.answer(request, made.ended, result, message)
	r.finish(request)
}

// describeTest says how a test ended.
func describeTest(o outcome, took time.Duration) (v1alpha1.RequestResult, string) {
	result, message := v1alpha1.RequestFailed, "The test event was not delivered: "+o.label()
	if o.verdict == delivered {
		result, message = v1alpha1.RequestDone, "The callback took the test event"
	}
	if o.verdict == deferred {
		message += ": " + errNoRoom.Error()
	}
	if o.status != 0 {
		message += fmt.Sprintf(" (%d)", o.status)
	}
	return result, message + fmt.Sprintf(", after %s.", took.Round(time.Millisecond))
}

// testEvent returns an event such as the subscription asks for, about nobody.
func testEvent(s *subscription, now time.Time) *contact.Event {
	event := &contact.Event{
		ID: "test_" + rand.Text(), List: contact.ListKey{Namespace: s.key.Namespace, Name: "test"},
		Source: contact.SourceAPI, Time: now,
		Contact: contact.Contact{
			Email: "test@example.invalid", Permission: contact.PermissionSingleOptIn, CreatedAt: now, UpdatedAt: now, Revision: 1,
		},
	}
	if slices.Equal(s.filter.Types, []v1alpha1.EventType{contact.EventNone}) && len(s.filter.Operations) > 0 {
		return testOperation(s, event)
	}
	if len(s.filter.Lists) > 0 {
		event.List.Name = s.filter.Lists[0]
	}
	if len(s.filter.Sources) > 0 {
		event.Source = s.filter.Sources[0]
	}
	types := s.filter.Types
	if len(types) == 0 {
		types = []v1alpha1.EventType{contact.EventSubscribe}
	}
	for _, event.Type = range types {
		if s.format.knows(event) {
			break
		}
	}
	return event
}

// finish notes that a request was answered. mu is held.
func (r *runner) finish(request store.Request) {
	delete(r.requests, request.Type)
	r.answers = append(r.answers, answered{request, r.ledger.life.Answers[request.Type]})
	r.changed()
}

// replayPlan is what a replay would send, or why there is none.
type replayPlan struct {
	of      v1alpha1.ReplayContent
	owed    store.Owed
	refusal string
}

// plan finds out what a request wants replayed.
func (r *runner) plan(ctx context.Context, request store.Request) (replayPlan, error) {
	r.mu.Lock()
	s, cursor := r.sub, r.ledger.cursor
	r.mu.Unlock()
	switch request.Type {
	case v1alpha1.RequestReplayRange:
		return r.planRange(ctx, s, cursor, request)
	case v1alpha1.RequestReplayEvent:
		return r.planEvent(ctx, s, cursor, request)
	case v1alpha1.RequestReplayFailed:
		return r.planAside(ctx)
	default:
		return replayPlan{refusal: fmt.Sprintf("This version of the dispatcher does not know requests of the type %s.", request.Type)}, nil
	}
}

func (r *runner) planRange(ctx context.Context, s *subscription, cursor int64, request store.Request) (replayPlan, error) {
	after, err := r.log.PositionBefore(ctx, request.Since)
	if err != nil {
		return replayPlan{}, err
	}
	upTo, err := r.log.PositionBefore(ctx, request.Until.Add(1))
	if err != nil {
		return replayPlan{}, err
	}
	space, err := r.spaces.LoadNamespace(ctx, r.key.Namespace)
	if err != nil {
		return replayPlan{}, err
	}
	after = max(after, space.Begins)
	upTo = min(upTo, cursor) // the rest is sent anyway
	plan := replayPlan{of: v1alpha1.ReplayOfRange}
	if after >= upTo {
		return plan, nil
	}
	plan.owed.Spans = []store.Span{{After: after, UpTo: upTo}}
	plan.owed.Events, err = countEvents(ctx, r.log, store.Query{After: after, UpTo: upTo, Filter: r.replayFilter(s)})
	return plan, err
}

// replayFilter returns the filter for a replay: only events of lists that exist match. A
// list that is gone may have been somebody else's, and its events are not read again.
func (r *runner) replayFilter(s *subscription) store.Filter {
	filter := s.filter
	filter.Lists = slices.DeleteFunc(r.lists.names(s.key.Namespace), func(name string) bool {
		return len(s.filter.Lists) > 0 && !slices.Contains(s.filter.Lists, name)
	})
	if len(filter.Lists) == 0 {
		filter.Types = []v1alpha1.EventType{contact.EventNone}
	}
	return filter
}

func (r *runner) planEvent(ctx context.Context, s *subscription, cursor int64, request store.Request) (replayPlan, error) {
	space, err := r.spaces.LoadNamespace(ctx, r.key.Namespace)
	if err != nil {
		return replayPlan{}, err
	}
	position, ok := store.EventPosition(request.EventID)
	var found []contact.Event
	if ok && position > space.Begins {
		if found, err = r.log.Read(ctx, store.Query{Positions: []int64{position}, Limit: 1}); err != nil {
			return replayPlan{}, err
		}
	}
	wanted := false
	if len(found) > 0 {
		var err error
		if wanted, err = r.wants(ctx, s, &found[0]); err != nil {
			return replayPlan{}, err
		}
	}
	switch {
	case len(found) == 0 || found[0].ID != request.EventID || found[0].List.Namespace != r.key.Namespace:
		return replayPlan{refusal: "The log has no event of this id."}, nil
	case !r.lists.has(found[0].List):
		return replayPlan{refusal: fmt.Sprintf("The event's list %s does not exist.", found[0].List.Name)}, nil
	case !wanted:
		return replayPlan{refusal: "The event is none that the subscription asks for."}, nil
	case position > cursor:
		return replayPlan{refusal: "The event was not sent yet, and will be without a replay."}, nil
	}
	return replayPlan{
		of:   v1alpha1.ReplayOfEvent,
		owed: store.Owed{Spans: []store.Span{{After: position - 1, UpTo: position}}, Events: 1},
	}, nil
}

// wants reports whether an event is sent. The error is the context's.
func (r *runner) wants(ctx context.Context, s *subscription, event *contact.Event) (bool, error) {
	chosen := true
	if s.evaluates(event) {
		if err := r.budget.run(ctx, func() { chosen = s.chosen.has(event) }); err != nil {
			return false, err
		}
	}
	return chosen && s.mayWant(event), nil
}

func (r *runner) planAside(ctx context.Context) (replayPlan, error) {
	plan := replayPlan{of: v1alpha1.ReplayOfFailed}
	for {
		page, err := r.aside.SetAsideEvents(ctx, r.key, plan.owed.Aside.UpTo, catchUpPage)
		if err != nil {
			return plan, err
		}
		plan.owed.Events += int64(len(page))
		if len(page) > 0 {
			plan.owed.Aside.UpTo = page[len(page)-1]
		}
		if len(page) < catchUpPage {
			return plan, nil
		}
	}
}
