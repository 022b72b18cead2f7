package dispatcher

import (
	"context"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/tracing"
)

const (
	// catchUpPage is how many events a runner that lags reads at once, and
	// catchUpRoom how much room its ledger must have for it to read.
	catchUpPage = 512
	catchUpRoom = maxOpen / 4
)

// deliverer makes the attempts of one runner.
type deliverer interface {
	// attempt tries once to deliver an event. The error is for the log: it says
	// more than the outcome where that is no success, and nothing of the person.
	attempt(ctx context.Context, s *subscription, made call) (outcome, error)
	// close frees what is kept between attempts, once the last has ended.
	close()
}

// asideReader reads what was set aside.
type asideReader interface {
	// SetAsideEvents returns positions of set-aside events behind this one.
	SetAsideEvents(ctx context.Context, key store.SubscriptionKey, after int64, limit int) ([]int64, error)
}

// call is an attempt that is to be made. It stays as it is, whatever becomes of the
// event meanwhile.
type call struct {
	event *contact.Event
	// number is 1 for an event's first attempt.
	number int
	// replayed: a replay asks for it. test: the event is none of the log, but made
	// to try the callback.
	replayed, test bool
	// held, of a notice that had to wait, is how many deactivations it tells of.
	held int
	// body is what the attempt takes of the budget of bodies; nil where that is not counted.
	body *reservation
}

// runner delivers the events of one subscription, or opt-in mails. Its loop starts attempts, and
// reading while it lags; each attempt runs on its own and settles itself.
//
// A runner is live while the tail offers it events, and behind otherwise: when
// it has just been started, when its ledger was full, or while it is held.
type runner struct {
	key   store.SubscriptionKey
	token int64
	// life is the dispatcher's in which the row was claimed. After its end no
	// attempt is begun, as another dispatcher may own the row.
	life   *life
	log    store.Log
	aside  asideReader
	spaces namespaceLoader
	// uid is that of the object that the runner delivers for.
	uid    types.UID
	lists  *listBook
	clock  clock.Clock
	tail   *tail
	calls  *sharedCalls
	logger logr.Logger
	// deliverer makes the attempts, observe counts them: the outcome, how long
	// it took and how old the event was then.
	deliverer deliverer
	observe   func(o outcome, took, age time.Duration)
	// tally, when not nil, counts them for this subscription alone. tracing, when not
	// nil, makes their spans.
	tally   *tally
	tracing *tracing.Tracing
	// tell, when not nil, takes what people are told of an attempt.
	tell func(store.Attempt)
	// checkpoint, when not nil, is called with what was delivered, so that the
	// store has it as soon as can be.
	checkpoint func()
	// budget bounds the CPU time of the subscription's expressions; nil for mails.
	budget *expressionBudget

	// bodySize is how much an attempt is expected to hold: as much as the largest of the
	// last ones. It only changes with mu held.
	bodySize atomic.Int64

	wake     chan struct{}
	attempts sync.WaitGroup
	reader   sync.WaitGroup
	sifter   sync.WaitGroup

	// mu guards what follows. The order of locks is: tail.mu, runner.mu, and then one of
	// registry.mu, recentAttempts.mu, tally.mu, expressionBudget.mu. None of them is held over
	// I/O, an evaluation of an expression or a line of the log.
	mu     sync.Mutex
	sub    *subscription
	ledger *ledger
	pace   pace
	// bodies is what the attempts in flight have taken of the budget of bodies. bodyRetry is
	// when one may try again whether its body is smaller than the last ones.
	bodies    share
	bodyRetry time.Time
	live      bool
	// inbox has the events that the filter is to be asked about, owed those of a replay.
	// sifting: that is being done. siftOwed: the next one is of a replay.
	inbox             inbox
	owed              owedInbox
	sifting, siftOwed bool
	// loading: the open events are being read from the store. forgotten are the events that
	// forgot a contact meanwhile.
	loading   bool
	forgotten []*contact.Event
	// ended: no attempt is begun any more.
	ended bool
	// reading: the log is being read. readAgain is when it may be read again
	// after that failed.
	reading   bool
	readAgain time.Time
	// lag are the events that wait in the log.
	lag lag
	// requests are those that have no answer yet, by type.
	requests map[store.RequestType]store.Request
	// testing is the value of the test request that is under way.
	testing string
	// dirty: the ledger has changed since it was last written. It is changed with mu held,
	// but can be looked at without. written is the cursor that was written.
	dirty   atomic.Bool
	written int64
	// postponed: the last attempt that ended was postponed. None begins before postponedUntil.
	postponed      bool
	postponedUntil time.Time
	// toldFailing and toldDeactivated are what was last logged of the health.
	toldFailing, toldDeactivated bool
	// answers are requests that were answered, for the log.
	answers []answered
}

// answered is a request with its answer.
type answered struct {
	request store.Request
	answer  store.Answer
}

// run works until loop ends, and returns when the last attempt has. Attempts
// are cut off when theirs ends.
func (r *runner) run(loop, attempts context.Context) {
	for loop.Err() == nil {
		if r.beginReading() {
			r.reader.Go(func() { r.read(loop, attempts) })
		}
		if r.beginSifting() {
			r.sifter.Go(func() { r.sift(loop) })
		}
		r.pause(loop, r.start(attempts))
	}
	r.end()
	r.reader.Wait()
	r.sifter.Wait()
	r.tail.leave(r, nil)
	r.attempts.Wait()
	r.deliverer.close()
	r.leaveBudget()
}

// joinBudget has the open events count in a budget, which leaveBudget gives back.
func (r *runner) joinBudget(pending *budget) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ledger.pending.move(pending)
}

// leaveBudget gives back what the open events have taken of the budget. They are held until
// the last checkpoint, and for no longer.
func (r *runner) leaveBudget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ledger.pending.move(nil)
}

// end has no other attempt begin.
func (r *runner) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
}

// beginReading tells whether the log is to be read now, which is done beside
// the loop so that attempts don't wait for it.
func (r *runner) beginReading() bool {
	upTo := r.tail.at()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reading || r.clock.Now().Before(r.readAgain) {
		return false
	}
	r.reading = r.wantsStore() || r.wantsCount(upTo)
	return r.reading
}

// wantsStore tells whether more is to be done with the store than to count. mu is
// held.
func (r *runner) wantsStore() bool {
	return !r.live && r.wantsPage() || r.wantsOwed() || r.wantsAnswer()
}

// read does once all that needs the store. A request may be answered by an attempt.
func (r *runner) read(ctx, attempts context.Context) {
	var err error
	answerAll := func(ctx context.Context) error { return r.answerAll(ctx, attempts) }
	for _, part := range []func(context.Context) error{r.catchUp, r.count, answerAll, r.replayOwed, r.checkWaiting} {
		if err = part(ctx); err != nil {
			break
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reading = false
	if err != nil && ctx.Err() == nil {
		r.logger.Error(err, "event log can't be read, trying again")
		r.readAgain = r.clock.Now().Add(readRetry)
	}
	r.rouse()
}

// pause waits for something to do: until next, where that is not zero.
func (r *runner) pause(ctx context.Context, next time.Time) {
	var due <-chan time.Time
	if !next.IsZero() {
		timer := r.clock.NewTimer(next.Sub(r.clock.Now()))
		defer timer.Stop()
		due = timer.C()
	}
	select {
	case <-ctx.Done():
	case <-r.wake:
	case <-due:
	}
}

// rouse lets the loop look again.
func (r *runner) rouse() {
	select {
	case r.wake <- struct{}{}:
	default: // it is going to look anyway
	}
}

// update replaces the subscription. Events that were taken stay taken.
func (r *runner) update(s *subscription) {
	if r.has(s) {
		return
	}
	r.tail.leave(r, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.dropInboxes()
		r.sub = s
		r.postponedUntil = time.Time{}
		r.ledger.setOrdering(s.ordering)
		r.dirty.Store(true)               // when it will be deactivated depends on what the spec says
		r.lag = lag{events: r.lag.events} // until it is counted
	})
	r.rouse()
}

// has tells whether the runner works to this subscription already: most updates
// of an object are of its status.
func (r *runner) has(s *subscription) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return reflect.DeepEqual(r.sub, s)
}

// wantedLists are those whose events the runner may want; one without a name is for all of
// the namespace.
func (r *runner) wantedLists() []contact.ListKey {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sub.lists()
}

// offer hands an event to a runner that is live. It returns false when the
// runner leaves the tail instead, because its ledger is full. The filter is asked later, by
// the runner's own goroutine.
func (r *runner) offer(event *contact.Event) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if event.Position <= r.ledger.cursor || !r.sub.mayWant(event) {
		return true
	}
	defer r.rouse()
	if !r.receive(event, r.clock.Now()) {
		r.live = false
		r.passTo(event.Position - 1)
		return false
	}
	return true
}

// forget drops the open events that an event removes from the log.
func (r *runner) forget(event *contact.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.loading {
		r.forgotten = append(r.forgotten, event)
		return
	}
	r.ledger.forget(event)
	r.forgetInboxes(event)
	// A page that is being read may still have these events: it was asked for by
	// another subscription then, and is not taken.
	same := *r.sub
	r.sub = &same
	r.dirty.Store(true)
	r.rouse()
}

// takesEvents tells whether events are taken from the log. Those of a callback
// that was deactivated are counted, held or not. mu is held.
func (r *runner) takesEvents() bool {
	return !r.sub.unproven && (!r.sub.held || r.ledger.life.Deactivation != nil)
}

// goLive makes the runner live if it has seen all up to this position and can
// take more.
func (r *runner) goLive(position int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.takesEvents() || len(r.inbox.events) > 0 || r.ledger.cursor < position || !r.ledger.hasRoom() {
		return false
	}
	r.live = true
	if r.lag.events != 0 {
		r.dirty.Store(true)
	}
	r.lag = lag{}
	return true
}

// goBehind ends being live, at a position up to which everything was offered.
func (r *runner) goBehind(position int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live {
		r.live = false
		r.passTo(position)
	}
}

// start begins the attempts that may begin now, and returns when to look again;
// zero when only an event or an outcome can bring something to do.
func (r *runner) start(ctx context.Context) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.Now()
	r.pace.set(r.sub.perSecond, now)
	for begun := r.begin(now); begun != nil; begun = r.begin(now) {
		r.attempts.Go(func() { r.deliver(ctx, begun) })
	}
	var next time.Time
	if r.mayBegin() {
		if next = r.ledger.nextDue(&r.sub.rules); !next.IsZero() {
			next = later(later(next, r.pace.next(now)), r.budget.next(now))
		}
	} else if !r.calls.left(r.ledger.inFlight) || !r.hasBodyRoom() { // nobody tells when others give theirs back
		next = now.Add(sharedCallRetry)
	}
	if now.Before(r.postponedUntil) {
		next = r.postponedUntil
	}
	if recount := now.Add(countInterval); !r.live && (next.IsZero() || recount.Before(next)) {
		next = recount
	}
	return next
}

// snapshot returns what to write to the store, if anything. position is the
// tail's; its lock is held. idle asks for a cursor too that has merely moved.
func (r *runner) snapshot(position int64, idle bool) (store.Progress, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	cursor := r.cursor(position)
	if !r.dirty.Load() && !(idle && cursor != r.written) {
		return store.Progress{}, false
	}
	r.dirty.Store(false)
	r.written = cursor
	r.ledger.health.DeactivationDue = r.ledger.deactivationDue(&r.sub.rules)
	progress := store.Progress{
		Delivery: store.Delivery{
			Key: r.key, Token: r.token, Cursor: cursor, Open: r.ledger.openEvents(),
			Behind: r.behind(), Health: r.ledger.health, Life: cloneLife(r.ledger.life),
			Operations: r.ledger.operations,
		},
		Aside: r.ledger.aside, Taken: r.ledger.taken, Raised: r.ledger.raised,
	}
	r.ledger.aside, r.ledger.taken, r.ledger.raised = nil, nil, nil
	return progress, true
}

// notWritten says that a snapshot did not reach the store.
func (r *runner) notWritten(progress *store.Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dirty.Store(true)
	// What was set aside and then taken out again is not to be set aside.
	before := slices.DeleteFunc(progress.Aside, func(position int64) bool { return slices.Contains(r.ledger.taken, position) })
	r.ledger.aside = append(before, r.ledger.aside...)
	r.ledger.taken = append(progress.Taken, r.ledger.taken...)
	r.ledger.raised = append(progress.Raised, r.ledger.raised...)
}

// logNews logs answers, and that the callback or the mail server has begun or ceased to fail,
// was deactivated or reactivated. It runs after checkpoints, so a callback that fails and
// succeeds in turn can't flood the log. No lock is held while it logs.
func (r *runner) logNews() {
	r.mu.Lock()
	answers, health := r.answers, r.ledger.health
	message := r.healthNews()
	r.answers = nil
	r.mu.Unlock()
	for _, a := range answers {
		r.logger.Info("request is answered", "type", a.request.Type, "value", a.request.Value, "result", a.answer.Result, "answer", a.answer.Message)
	}
	switch failure := health.LastFailure; {
	case message == "":
	case failure == nil:
		r.logger.Info(message)
	default:
		r.logger.Info(message, "since", health.FailingSince, "reason", failure.Reason, "status", failure.HTTPStatus)
	}
}

// healthNews returns what is to be logged of the health, empty when nothing is. mu is held.
func (r *runner) healthNews() (message string) {
	health := &r.ledger.health
	deactivated := r.ledger.life.Deactivation != nil
	failing := !health.FailingSince.IsZero() && !deactivated
	switch {
	case deactivated == r.toldDeactivated && failing == r.toldFailing:
		return ""
	case deactivated && !r.toldDeactivated:
		message = "callback is deactivated"
	case r.toldDeactivated && !deactivated:
		message = "callback is reactivated"
	case failing:
		message = "deliveries fail"
	default:
		message = "deliveries succeed again"
	}
	r.toldDeactivated, r.toldFailing = deactivated, failing
	return message
}
