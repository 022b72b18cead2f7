package dispatcher

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// ownedRetry is the wait for another dispatcher to release a row, should its release not
// be heard of.
const ownedRetry = time.Second

// errNotOpen: the controller has not opened the row for this object: the row may be that
// of an object of an earlier Namespace. It changes the object's status once
// it has, which is heard of; to ask again is for when that changed nothing.
var errNotOpen = errors.New("the controller has not opened the delivery state")

// A row belongs to one dispatcher at a time, and changes hands like this:
//
//	free ─claim─▶ running ─handOver─▶ ending ─────▶ ended ──▶ written ─release─▶ free
//	              attempts are begun  those under   its last checkpoint
//	                                  way end
//
// So the next owner knows of every attempt that was made. An owner that can't do
// that, because it died or the store is away, is fenced: the next claim gives the row
// another token, and what is written with the old one is refused.

// entry is a runner with what ends it.
type entry struct {
	runner *runner
	// life is the dispatcher's in which the row was claimed.
	life *life
	// stopLoop ends taking events and starting attempts. Those under way end
	// within ShutdownTimeout then, or at once by stopAttempts.
	stopLoop, stopAttempts context.CancelFunc
	// taken: the runner has what the row says, and may be written. Guarded by the
	// registry's lock.
	taken bool
	// ended: the last attempt has ended.
	ended atomic.Bool
}

// claim makes this dispatcher the owner of a row, with a runner that goes on where
// the row says.
func (g *registry) claim(ctx context.Context, s *subscription, life *life) error {
	if s.uid != "" {
		switch bound, err := g.options.Store.IsBound(ctx, string(s.uid)); {
		case err != nil:
			return err
		case !bound:
			return errNotOpen
		}
	}
	delivery, err := g.options.Store.ClaimDelivery(ctx, s.key, g.members.name)
	switch {
	case errors.Is(err, store.ErrNotFound):
		g.doubt(s.key, false)
		if s.isMail() { // the tail tells of a list's first mail
			return nil
		}
		return errNotOpen
	case errors.Is(err, store.ErrOwned):
		g.contest(s.key)
		g.queue.AddAfter(s.key, ownedRetry)
		g.doubt(s.key, false)
		return nil
	case err != nil:
		g.doubt(s.key, true)
		return err
	}
	g.doubt(s.key, false)
	loop, stopLoop := context.WithCancel(ctx)
	attempts, stopAttempts := context.WithCancel(g.attempts)
	started := &entry{runner: g.newRunner(ctx, s, delivery, life), life: life, stopLoop: stopLoop, stopAttempts: stopAttempts}
	if err := g.register(ctx, started, delivery); err != nil {
		stopLoop()
		stopAttempts()
		g.remove(s.key)
		g.doubt(s.key, true)
		return errors.Join(err, g.clearDoubt(ctx, s.key))
	}
	g.running.Go(func() {
		defer stopAttempts()
		defer context.AfterFunc(loop, func() {
			sleep(attempts, g.options.Clock, g.options.ShutdownTimeout)
			stopAttempts()
		})()
		started.runner.run(loop, attempts)
		started.ended.Store(true)
		g.checkpoint() // which is its last, and then the row is released
	})
	return nil
}

// register reads the open events and the requests of a runner. No lock is held meanwhile. A
// contact that is forgotten meanwhile is forgotten by what was read, too.
func (g *registry) register(ctx context.Context, started *entry, delivery store.Delivery) error {
	r := started.runner
	g.mu.Lock()
	g.runners[r.key] = started // from now on it is told of contacts that are forgotten
	g.metrics.owned.Set(float64(len(g.runners)))
	g.mu.Unlock()
	events, err := g.openEvents(ctx, delivery)
	if err != nil {
		return err
	}
	requests, err := g.options.Store.LoadRequests(ctx, r.key)
	if err != nil {
		return err
	}
	r.load(delivery, events, requests)
	if lost := len(delivery.Open) - len(events); lost > 0 {
		r.logger.Info("events that were not delivered are no longer in the log", "events", lost)
	}
	r.joinBudget(g.pending)
	g.mu.Lock()
	started.taken = true
	g.mu.Unlock()
	return nil
}

// load takes over what was read from the store.
func (r *runner) load(delivery store.Delivery, events []contact.Event, requests []store.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ledger = newLedger(delivery, events, r.sub.ordering)
	if len(events) < len(delivery.Open) {
		r.ledger.finishReplay(r.clock.Now()) // they may have been all that was left of one
		r.dirty.Store(true)
	}
	r.loading = false
	for _, event := range r.forgotten {
		r.ledger.forget(event)
		r.dirty.Store(true)
	}
	r.forgotten = nil
	for _, request := range requests {
		r.note(request)
	}
}

// newRunner returns a runner that has no open events yet.
func (g *registry) newRunner(ctx context.Context, s *subscription, delivery store.Delivery, life *life) *runner {
	r := &runner{
		key: s.key, uid: s.uid, token: delivery.Token, life: life,
		log: g.options.Store, aside: g.options.Store, spaces: g.options.Store, lists: g.lists, clock: g.options.Clock, tail: g.tail, calls: g.calls,
		logger: logr.FromContextOrDiscard(ctx).WithValues("namespace", s.key.Namespace, "name", s.key.Name),
		wake:   make(chan struct{}, 1),
		sub:    s, ledger: newLedger(delivery, nil, s.ordering),
		lag: lag{events: delivery.Behind}, written: delivery.Cursor, loading: true,
		requests:        map[store.RequestType]store.Request{},
		toldFailing:     !delivery.Health.FailingSince.IsZero() && delivery.Life.Deactivation == nil,
		toldDeactivated: delivery.Life.Deactivation != nil,
		bodies:          share{of: g.bodies},
	}
	r.bodySize.Store(firstBody)
	switch {
	case s.key.IsNotices():
		r.deliverer, r.observe, r.checkpoint = newNoticer(g.options, g.connections), g.metrics.observeMail, g.checkpoint
	case s.isMail():
		r.deliverer, r.observe, r.checkpoint = newMailer(g.options, &g.checkedLists, g.connections), g.metrics.observeMail, g.checkpoint
	default:
		r.budget = newExpressionBudget(r.clock, r.logger, g.lane, g.metrics.expressions)
		if hold := g.options.evaluating; hold != nil {
			r.budget.before = func() { hold(r.key) }
		}
		caller := newCaller(g.options, g.lists)
		caller.budget = r.budget
		r.deliverer, r.observe = caller, g.metrics.observe
		r.tally, r.tracing = newTally(g.metrics.newLatency(r.key)), g.options.Tracing
		r.tell = func(attempt store.Attempt) { g.recent.note(r.key, r.token, attempt) }
	}
	return r
}

// openEvents reads the events that a delivery has open.
func (g *registry) openEvents(ctx context.Context, delivery store.Delivery) ([]contact.Event, error) {
	if len(delivery.Open) == 0 {
		return nil, nil
	}
	query := store.Query{Limit: len(delivery.Open)}
	for _, open := range delivery.Open {
		query.Positions = append(query.Positions, open.Position)
	}
	return g.options.Store.Read(ctx, query)
}

// contest notes that another dispatcher owns a row that this one ought to.
func (g *registry) contest(key store.SubscriptionKey) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.contested[key] = struct{}{}
}

// doubt notes whether this dispatcher may own a row without knowing it.
func (g *registry) doubt(key store.SubscriptionKey, doubtful bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if doubtful {
		g.doubtful[key] = struct{}{}
	} else {
		delete(g.doubtful, key)
	}
}

// clearDoubt releases a row that this dispatcher may own without knowing it.
func (g *registry) clearDoubt(ctx context.Context, key store.SubscriptionKey) error {
	g.mu.Lock()
	_, doubtful := g.doubtful[key]
	g.mu.Unlock()
	if !doubtful {
		return nil
	}
	if err := g.options.Store.ReleaseDelivery(ctx, key, g.members.name); err != nil {
		return err
	}
	g.doubt(key, false)
	return nil
}
