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
	r.requests[request.Type] = request
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

// canAnswer: a reactivation waits until all events are seen that belong to the
// buffer, a replay until the one before it is through. mu is held.
func (r *runner) canAnswer(request store.Request) bool {
	switch request.Type {
	case v1alpha1.RequestReactivate, store.RequestReactivateByLink:
		return r.live || r.ledger.life.Deactivation == nil
	case v1alpha1.RequestTest:
		return r.testing != request.Value && r.life.lasts()
	default:
		return !r.ledger.life.Replay.Running()
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
		if r.requests[request.Type] == request {
			r.ledger.answerReactivation(request, r.clock.Now())
			r.finish(request)
		}
	})
}

// test makes one call with an event that is made for it, whatever the state of
// the subscription. It says nothing about the callback's health.
func (r *runner) test(ctx context.Context, request store.Request) {
	r.mu.Lock()
	r.testing = request.Value
	s := r.sub
	r.mu.Unlock()
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

// endTest answers a test, unless another one took its place meanwhile.
func (r *runner) endTest(request store.Request, made attempted, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.testing == request.Value {
		r.testing = ""
	}
	if made.verdict == aborted || r.requests[request.Type] != request {
		return
	}
	result, message := describeTest(made.outcome, took)
	r.ledger.answer(request, made.ended, result, message)
	r.finish(request)
}

// describeTest says how a test ended.
func describeTest(o outcome, took time.Duration) (v1alpha1.RequestResult, string) {
	result, message := v1alpha1.RequestFailed, "The test event was not delivered: "+o.label()
	switch o.verdict {
	case delivered:
		result, message = v1alpha1.RequestDone, "The callback took the test event"
	case deferred:
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
	answer := r.ledger.life.Answers[request.Type]
	r.logger.Info("request is answered", "type", request.Type, "value", request.Value, "result", answer.Result, "answer", answer.Message)
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
	upTo = min(upTo, cursor) // the rest is sent anyway
	plan := replayPlan{of: v1alpha1.ReplayOfRange}
	if after >= upTo {
		return plan, nil
	}
	plan.owed.Spans = []store.Span{{After: after, UpTo: upTo}}
	plan.owed.Events, err = countEvents(ctx, r.log, store.Query{After: after, UpTo: upTo, Filter: s.filter})
	return plan, err
}

func (r *runner) planEvent(ctx context.Context, s *subscription, cursor int64, request store.Request) (replayPlan, error) {
	position, ok := store.EventPosition(request.EventID)
	var found []contact.Event
	if ok {
		var err error
		if found, err = r.log.Read(ctx, store.Query{Positions: []int64{position}, Limit: 1}); err != nil {
			return replayPlan{}, err
		}
	}
	switch {
	case len(found) == 0 || found[0].ID != request.EventID || found[0].List.Namespace != r.key.Namespace:
		return replayPlan{refusal: "The log has no event of this id."}, nil
	case !s.wants(&found[0]):
		return replayPlan{refusal: "The event is none that the subscription asks for."}, nil
	case position > cursor:
		return replayPlan{refusal: "The event was not sent yet, and will be without a replay."}, nil
	}
	return replayPlan{
		of:   v1alpha1.ReplayOfEvent,
		owed: store.Owed{Spans: []store.Span{{After: position - 1, UpTo: position}}, Events: 1},
	}, nil
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
