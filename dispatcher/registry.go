package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// notOpenRetry is the wait for the controller to open a subscription's row.
const notOpenRetry = time.Second

// registry has one runner for each WebhookSubscription that the controller has
// opened, and keeps it to the object's spec. Where there is a mail server it has
// one for the opt-in mails of each ContactList too, so that a list whose mails
// can't be sent is in no other's way.
type registry struct {
	options *Options
	tail    *tail
	lists   *listBook
	metrics *metrics
	recent  *recentAttempts
	// checkpoint asks for a checkpoint now.
	checkpoint func()
	// connections are those to the mail server that are in use.
	connections chan struct{}
	queue       workqueue.TypedRateLimitingInterface[store.SubscriptionKey]
	// attempts is the context that attempts end with at the latest.
	attempts context.Context

	running sync.WaitGroup
	mu      sync.Mutex
	runners map[store.SubscriptionKey]*entry
}

// entry is a runner with what ends it.
type entry struct {
	runner *runner
	// stopLoop ends taking events and starting attempts, stopAttempts ends
	// those under way.
	stopLoop, stopAttempts context.CancelFunc
}

func newRegistry(attempts context.Context, options *Options, tail *tail, metrics *metrics) *registry {
	g := &registry{
		options: options, tail: tail, lists: &listBook{}, metrics: metrics, attempts: attempts,
		recent: newRecentAttempts(options.Store),
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[store.SubscriptionKey](100*time.Millisecond, 30*time.Second)),
		runners:     map[store.SubscriptionKey]*entry{},
		connections: make(chan struct{}, mailConnections),
	}
	tail.forget, tail.askForMail, tail.askForNotice = g.forget, g.enqueueMails, g.enqueueNotices
	return g
}

// watch has the informers report changes. The lists come first, because
// subscriptions are rendered by what they say.
func (g *registry) watch(ctx context.Context) error {
	err := g.handle(ctx, &v1alpha1.ContactList{}, toolscache.ResourceEventHandlerFuncs{
		AddFunc:    g.noteList,
		UpdateFunc: func(_, object any) { g.noteList(object) },
		DeleteFunc: g.forgetList,
	})
	if err != nil {
		return err
	}
	return g.handle(ctx, &v1alpha1.WebhookSubscription{}, toolscache.ResourceEventHandlerFuncs{
		AddFunc:    g.noteSubscription,
		UpdateFunc: func(_, object any) { g.enqueue(object) },
		DeleteFunc: g.enqueue,
	})
}

// handle returns when the handler has seen all objects that there are.
func (g *registry) handle(ctx context.Context, kind client.Object, handler toolscache.ResourceEventHandler) error {
	informer, err := g.options.Objects.GetInformer(ctx, kind)
	if err != nil {
		return fmt.Errorf("watch %T: %w", kind, err)
	}
	registration, err := informer.AddEventHandler(handler)
	if err != nil {
		return fmt.Errorf("watch %T: %w", kind, err)
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return ctx.Err()
	}
	return nil
}

func (g *registry) noteList(object any) {
	list := object.(*v1alpha1.ContactList)
	key := contact.ListKey{Namespace: list.Namespace, Name: list.Name}
	g.lists.set(key, newListNumbers(list))
	g.enqueueMails(key)
}

func (g *registry) forgetList(object any) {
	if name, err := toolscache.DeletionHandlingObjectToName(object); err == nil {
		key := contact.ListKey{Namespace: name.Namespace, Name: name.Name}
		g.lists.set(key, nil)
		g.enqueueMails(key)
	}
}

func (g *registry) enqueueMails(list contact.ListKey) {
	if g.options.Mail.Server != (MailServer{}) {
		g.queue.Add(store.MailKey(list))
	}
}

func (g *registry) enqueueNotices(namespace string) {
	if g.options.Mail.Server != (MailServer{}) {
		g.queue.Add(store.NoticeKey(namespace))
	}
}

// noteSubscription follows one that is new to this process, and the notices of its
// namespace, of which there may be some.
func (g *registry) noteSubscription(object any) {
	g.enqueue(object)
	g.enqueueNotices(object.(*v1alpha1.WebhookSubscription).Namespace)
}

func (g *registry) enqueue(object any) {
	if key, err := toolscache.DeletionHandlingObjectToName(object); err == nil {
		g.queue.Add(store.SubscriptionKey{Namespace: key.Namespace, Name: key.Name})
	}
}

// run follows the reported changes until the context ends, and returns when
// the last runner has ended.
func (g *registry) run(ctx context.Context) {
	stopQueue := context.AfterFunc(ctx, g.queue.ShutDown)
	defer stopQueue()
	if g.options.Mail.Server == (MailServer{}) {
		logr.FromContextOrDiscard(ctx).Info("opt-in mails and notices wait, because there is no mail server (--smtp-server)")
	}
	for {
		key, shutdown := g.queue.Get()
		if shutdown {
			break
		}
		if err := g.follow(ctx, key); err != nil && ctx.Err() == nil {
			logr.FromContextOrDiscard(ctx).Error(err, "subscription can't be followed, trying again",
				"namespace", key.Namespace, "name", key.Name)
			g.queue.AddRateLimited(key)
		} else {
			g.queue.Forget(key)
		}
		g.queue.Done(key)
	}
	g.running.Wait()
}

// follow brings the runner of one subscription to what the object says.
func (g *registry) follow(ctx context.Context, key store.SubscriptionKey) error {
	if list, isMail := key.MailList(); isMail {
		return g.followMails(ctx, key, list)
	}
	if key.IsNotices() {
		if g.get(key) != nil {
			return nil
		}
		return g.start(ctx, newNoticeDelivery(key))
	}
	var object v1alpha1.WebhookSubscription
	err := g.options.Objects.Get(ctx, types.NamespacedName{Namespace: key.Namespace, Name: key.Name}, &object)
	if apierrors.IsNotFound(err) || (err == nil && !object.DeletionTimestamp.IsZero()) {
		g.stop(key)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the subscription: %w", err)
	}
	s := newSubscription(&object)
	if running := g.get(key); running != nil {
		running.runner.update(s)
		return nil
	}
	return g.start(ctx, s)
}

// followMails has a runner of a list's mails while the list is there. Those of a
// list that is gone wait, as it may come back.
func (g *registry) followMails(ctx context.Context, key store.SubscriptionKey, list contact.ListKey) error {
	err := g.options.Objects.Get(ctx, types.NamespacedName{Namespace: list.Namespace, Name: list.Name}, &v1alpha1.ContactList{})
	switch {
	case apierrors.IsNotFound(err):
		g.stop(key)
		return nil
	case err != nil:
		return fmt.Errorf("read the list: %w", err)
	case g.get(key) != nil:
		return nil
	}
	return g.start(ctx, newMailDelivery(list))
}

func (g *registry) get(key store.SubscriptionKey) *entry {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.runners[key]
}

// start makes a runner that goes on where the store says.
func (g *registry) start(ctx context.Context, s *subscription) error {
	delivery, err := g.options.Store.LoadDelivery(ctx, s.key)
	if errors.Is(err, store.ErrNotFound) {
		if !s.isMail() { // the tail tells of a list's first mail
			g.queue.AddAfter(s.key, notOpenRetry)
		}
		return nil
	}
	if err != nil {
		return err
	}
	loop, stopLoop := context.WithCancel(ctx)
	attempts, stopAttempts := context.WithCancel(g.attempts)
	r := g.newRunner(ctx, s, delivery)
	if err := g.register(ctx, &entry{runner: r, stopLoop: stopLoop, stopAttempts: stopAttempts}, delivery); err != nil {
		g.stop(s.key)
		return err
	}
	g.running.Go(func() {
		defer stopAttempts()
		r.run(loop, attempts)
	})
	return nil
}

// register has a runner take up its open events. Whoever has the runner forget a
// person waits for that: what was read before they were forgotten is dropped.
func (g *registry) register(ctx context.Context, started *entry, delivery store.Delivery) error {
	r := started.runner
	r.mu.Lock()
	defer r.mu.Unlock()
	g.mu.Lock()
	g.runners[r.key] = started
	g.mu.Unlock()
	events, err := g.openEvents(ctx, delivery)
	if err != nil {
		return err
	}
	if lost := len(delivery.Open) - len(events); lost > 0 {
		r.logger.Info("events that were not delivered are no longer in the log", "events", lost)
	}
	r.ledger = newLedger(delivery, events, r.sub.ordering)
	requests, err := g.options.Store.LoadRequests(ctx, r.key)
	if err != nil {
		return err
	}
	for _, request := range requests {
		r.note(request)
	}
	return nil
}

// ask hands a request to the runner of its subscription, if there is one yet.
func (g *registry) ask(request store.Request) {
	if running := g.get(request.Key); running != nil {
		running.runner.ask(request)
	}
}

// newRunner returns a runner that has no open events yet.
func (g *registry) newRunner(ctx context.Context, s *subscription, delivery store.Delivery) *runner {
	r := &runner{
		key: s.key, token: delivery.Token,
		log: g.options.Store, aside: g.options.Store, clock: g.options.Clock, tail: g.tail,
		logger: logr.FromContextOrDiscard(ctx).WithValues("namespace", s.key.Namespace, "name", s.key.Name),
		wake:   make(chan struct{}, 1),
		sub:    s, ledger: newLedger(delivery, nil, s.ordering),
		behind: delivery.Behind, written: delivery.Cursor,
		requests:        map[store.RequestType]store.Request{},
		toldFailing:     !delivery.Health.FailingSince.IsZero() && delivery.Life.Deactivation == nil,
		toldDeactivated: delivery.Life.Deactivation != nil,
	}
	switch {
	case s.key.IsNotices():
		r.deliverer, r.observe, r.checkpoint = newNoticer(g.options, g.connections), g.metrics.observeMail, g.checkpoint
	case s.isMail():
		r.deliverer, r.observe, r.checkpoint = newMailer(g.options, g.connections), g.metrics.observeMail, g.checkpoint
	default:
		r.deliverer, r.observe = newCaller(g.options, g.lists), g.metrics.observe
		r.tally = newTally(g.metrics.newLatency(r.key))
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

// stop ends a subscription's runner and the attempts under way.
func (g *registry) stop(key store.SubscriptionKey) {
	g.mu.Lock()
	stopped := g.runners[key]
	delete(g.runners, key)
	g.mu.Unlock()
	if stopped == nil {
		return
	}
	stopped.stopLoop()
	stopped.stopAttempts()
}

// lost ends a runner whose row in the store has gone, or is another one now.
func (g *registry) lost(key store.SubscriptionKey) {
	g.stop(key)
	g.queue.Add(key)
}

// forget has the runners of a namespace drop what they have of a person.
func (g *registry) forget(event *contact.Event) {
	for _, r := range g.all() {
		if r.key.Namespace == event.List.Namespace {
			r.forget(event)
		}
	}
}

// all returns the runners there are.
func (g *registry) all() []*runner {
	g.mu.Lock()
	defer g.mu.Unlock()
	runners := make([]*runner, 0, len(g.runners))
	for _, running := range g.runners {
		runners = append(runners, running.runner)
	}
	return runners
}

// reports tells of all runners.
func (g *registry) reports() []report {
	runners := g.all()
	reports := make([]report, 0, len(runners))
	for _, r := range runners {
		reports = append(reports, r.report())
	}
	return reports
}
