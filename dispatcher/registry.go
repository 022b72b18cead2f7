package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"runtime"
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

// followers is how many subscriptions are followed at once: enough to claim 5,000
// rows within seconds where each takes a few milliseconds on the network, and no
// more than a pool of connections has left for others.
const followers = 8

// registry has one runner for each WebhookSubscription that the controller has
// opened and that this dispatcher owns, and keeps it to the object's spec. Where
// there is a mail server it has one for the opt-in mails of each ContactList too, so
// that a list whose mails can't be sent is in no other's way.
type registry struct {
	options *Options
	tail    *tail
	calls   *sharedCalls
	// bodies and pending are the budgets of bytes of attempts in flight and of events in
	// ledgers.
	bodies, pending *budget
	lists           *listBook
	// accepted and checkedLists are the specs that may be acted on.
	accepted     trusted[*v1alpha1.WebhookSubscription]
	checkedLists trusted[*v1alpha1.ContactList]
	members      *membership
	metrics      *metrics
	recent       *recentAttempts
	// checkpoint asks for a checkpoint now.
	checkpoint func()
	// connections are those to the mail server that are in use.
	connections chan struct{}
	// lane has room for the costly expressions that are evaluated at a time: half of the
	// CPUs, so that the log reader and the calls of others always have one.
	lane  chan struct{}
	queue workqueue.TypedRateLimitingInterface[store.SubscriptionKey]
	// attempts is the context that attempts end with at the latest.
	attempts context.Context

	running sync.WaitGroup

	// mu guards what follows. It is the last of the locks that are held together, see
	// runner.mu, and is not held over I/O.
	mu      sync.Mutex
	runners map[store.SubscriptionKey]*entry
	// wanted are the rows that one of the dispatchers is to deliver from.
	wanted map[store.SubscriptionKey]struct{}
	// contested are rows that this dispatcher ought to own and another one does.
	contested map[store.SubscriptionKey]struct{}
	// doubtful are rows that this dispatcher may own without knowing it, because it
	// did not hear what became of a claim.
	doubtful map[store.SubscriptionKey]struct{}
}

func newRegistry(attempts context.Context, options *Options, tail *tail, members *membership, metrics *metrics) *registry {
	g := &registry{
		options: options, tail: tail, lists: &listBook{}, members: members, metrics: metrics, attempts: attempts,
		calls: &sharedCalls{most: int64(options.MaxCalls), told: metrics.sharedCalls},
		bodies: &budget{
			own: ownBodyBytes, each: options.MaxSubscriptionBodyBytes, most: options.MaxBodyBytes, told: metrics.bodyBytes,
		},
		pending: &budget{own: ownPendingBytes, each: maxOpenBytes + maxReplayedBytes, most: options.MaxPendingBytes, told: metrics.pendingBytes},
		recent:  newRecentAttempts(options.Store),
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[store.SubscriptionKey](100*time.Millisecond, 30*time.Second)),
		connections: make(chan struct{}, mailConnections),
		lane:        make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		runners:     map[store.SubscriptionKey]*entry{},
		wanted:      map[store.SubscriptionKey]struct{}{},
		contested:   map[store.SubscriptionKey]struct{}{},
		doubtful:    map[store.SubscriptionKey]struct{}{},
	}
	tail.forget, tail.askForMail, tail.askForNotice = g.forget, g.enqueueMails, g.enqueueNotices
	members.changed = g.ownersChanged
	metrics.tellLimits(options)
	tail.windowBytes = metrics.windowBytes
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
		UpdateFunc: func(_, object any) { g.noteUpdate(object) },
		DeleteFunc: g.forgetSubscription,
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
	if isCheckedList(list) {
		g.checkedLists.note(list)
	}
	g.enqueueMails(key)
}

func (g *registry) forgetList(object any) {
	if name, err := toolscache.DeletionHandlingObjectToName(object); err == nil {
		key := contact.ListKey{Namespace: name.Namespace, Name: name.Name}
		g.lists.set(key, nil)
		g.checkedLists.forget(types.NamespacedName{Namespace: name.Namespace, Name: name.Name})
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
	g.noteUpdate(object)
	g.enqueueNotices(object.(*v1alpha1.WebhookSubscription).Namespace)
}

// noteUpdate keeps an object if it is accepted, and has it followed.
func (g *registry) noteUpdate(object any) {
	if subscription := object.(*v1alpha1.WebhookSubscription); isAccepted(subscription) {
		g.accepted.note(subscription)
	}
	g.enqueue(object)
}

func (g *registry) forgetSubscription(object any) {
	if name, err := toolscache.DeletionHandlingObjectToName(object); err == nil {
		g.accepted.forget(types.NamespacedName{Namespace: name.Namespace, Name: name.Name})
	}
	g.enqueue(object)
}

func (g *registry) enqueue(object any) {
	if key, err := toolscache.DeletionHandlingObjectToName(object); err == nil {
		g.queue.Add(store.SubscriptionKey{Namespace: key.Namespace, Name: key.Name})
	}
}

// ownersChanged follows again what may have another owner now: all that is wanted
// when rows have moved, otherwise those that another dispatcher owned.
func (g *registry) ownersChanged(moved bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	again := g.contested
	if moved {
		again = g.wanted
	}
	for key := range again {
		g.queue.Add(key)
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
	var all sync.WaitGroup
	for range followers {
		all.Go(func() { g.followAll(ctx) })
	}
	all.Wait()
	g.running.Wait()
}

// followAll follows what is queued until the queue is shut down. The queue hands
// out a key to one at a time.
func (g *registry) followAll(ctx context.Context) {
	for {
		key, shutdown := g.queue.Get()
		if shutdown {
			return
		}
		if err := g.follow(ctx, key); err == nil {
			g.queue.Forget(key)
		} else {
			if ctx.Err() == nil && !errors.Is(err, errNotOpen) {
				logr.FromContextOrDiscard(ctx).Error(err, "subscription can't be followed, trying again",
					"namespace", key.Namespace, "name", key.Name)
			}
			g.queue.AddRateLimited(key)
		}
		g.queue.Done(key)
	}
}

// follow brings the runner of one subscription to what the object says, and to
// whether this dispatcher ought to own the row.
func (g *registry) follow(ctx context.Context, key store.SubscriptionKey) error {
	s, err := g.look(ctx, key)
	if err != nil {
		return err
	}
	g.want(key, s != nil)
	running, life := g.get(key), g.members.lifeFor(key)
	switch {
	case running != nil && s == nil:
		g.cutOff(running)
		return nil
	case running != nil && running.runner.uid != s.uid:
		g.cutOff(running) // then the row is followed again
		return nil
	case running != nil && running.life != life:
		g.handOver(running)
		return nil
	case running != nil:
		running.runner.update(s)
		return nil
	case s == nil || life == nil:
		return g.clearDoubt(ctx, key)
	}
	return g.claim(ctx, s, life)
}

// look returns what is to be delivered from a row; nil when nothing is, because
// its object is gone. Mails of a list that is gone wait, as it may come back. Mails of a
// list that is not bound to its namespace wait until it is: they may be another list's.
func (g *registry) look(ctx context.Context, key store.SubscriptionKey) (*subscription, error) {
	if key.IsNotices() {
		return newNoticeDelivery(key), nil
	}
	var object client.Object = &v1alpha1.WebhookSubscription{}
	name := types.NamespacedName{Namespace: key.Namespace, Name: key.Name}
	list, isMail := key.MailList()
	if isMail {
		object, name.Name = &v1alpha1.ContactList{}, list.Name
	}
	err := g.options.Objects.Get(ctx, name, object)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read %T: %w", object, err)
	case isMail && !object.(*v1alpha1.ContactList).IsBound():
		return nil, nil
	case isMail:
		return newMailDelivery(list, object.GetUID()), nil
	case !object.GetDeletionTimestamp().IsZero():
		return nil, nil
	}
	current := object.(*v1alpha1.WebhookSubscription)
	accepted, _ := g.accepted.last(current)
	return newTrusted(current, accepted), nil
}

// want notes whether there is something to be delivered from a row. It is not
// known to be contested any more: whoever asks is about to find out.
func (g *registry) want(key store.SubscriptionKey, wanted bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.contested, key)
	if wanted {
		g.wanted[key] = struct{}{}
	} else {
		delete(g.wanted, key)
	}
}

func (g *registry) get(key store.SubscriptionKey) *entry {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.runners[key]
}

// ask hands a request to the runner of its subscription, if there is one yet.
func (g *registry) ask(request store.Request) {
	if running := g.get(request.Key); running != nil {
		running.runner.ask(request)
	}
}

// forget drops the events that an event removes from the log from all runners of its
// namespace.
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

// reports returns the reports of all runners that have read their state.
func (g *registry) reports() []report {
	all, _ := g.owned()
	reports := make([]report, 0, len(all))
	for _, running := range all {
		reports = append(reports, running.runner.report())
	}
	return reports
}
