package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/guard"
	"postbus.dev/postbus/internal/kube"
	"postbus.dev/postbus/internal/mailpolicy"
	"postbus.dev/postbus/internal/store"
)

// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// reportingController names this program in events.
const reportingController = "postbus.dev/controller"

// shutdownTimeout is how long objects that are being looked at may take to end.
const shutdownTimeout = 10 * time.Second

// Store is what the controller needs of the store.
type Store interface {
	ListStore
	ContactCounts
	ContactRemover
	DeliveryKeeper
	DeliveryChanges
	LogPruner
	KeyUseKeeper
	OperationRaiser
	NamespaceStore
}

// ListStore counts contacts and keeps the texts of mails and pages.
type ListStore interface {
	// Count counts the contacts of a list.
	Count(ctx context.Context, list contact.ListKey) (contact.Counts, error)
	// LoadTexts returns the texts of a list, empty ones when it has none.
	LoadTexts(ctx context.Context, list contact.ListKey) (store.ListTexts, error)
	// SaveTexts replaces the texts of a list.
	SaveTexts(ctx context.Context, list contact.ListKey, texts store.ListTexts) error
}

// ContactCounts tells which lists have gained or lost contacts.
type ContactCounts interface {
	// CountAll counts the contacts of every list that has or had some.
	CountAll(ctx context.Context) (map[contact.ListKey]contact.Counts, error)
}

// ContactRemover removes the contacts of a list.
type ContactRemover interface {
	// ListContacts returns contacts of a list, and where to go on; nowhere when there
	// are no more.
	ListContacts(ctx context.Context, list contact.ListKey, after string, limit int) (page []contact.Contact, next string, err error)
	// ChangeAll makes changes in one commit.
	ChangeAll(ctx context.Context, changes []store.Change) ([]store.ChangeResult, error)
}

// DeliveryKeeper makes and removes the rows that the dispatcher delivers from.
type DeliveryKeeper interface {
	// OpenDelivery makes the row of a new subscription, if there is none.
	OpenDelivery(ctx context.Context, key store.SubscriptionKey) error
	// DropDelivery removes the row, if there is one.
	DropDelivery(ctx context.Context, key store.SubscriptionKey) error
	// LoadDelivery returns the row, or store.ErrNotFound.
	LoadDelivery(ctx context.Context, key store.SubscriptionKey) (store.Delivery, error)
	// PutRequest asks something of the dispatcher.
	PutRequest(ctx context.Context, request store.Request) error
	// LoadAttempts returns the last attempts, oldest first.
	LoadAttempts(ctx context.Context, key store.SubscriptionKey, limit int) ([]store.Attempt, error)
}

// DeliveryChanges tells which rows changed.
type DeliveryChanges interface {
	// DeliveriesSince returns the rows written after this revision.
	DeliveriesSince(ctx context.Context, revision int64) ([]store.Delivery, error)
}

// KeyUseKeeper tells when ApiKeys were last used.
type KeyUseKeeper interface {
	// KeyUses returns the keys that were last used after this time.
	KeyUses(ctx context.Context, since time.Time) (map[store.KeyName]time.Time, error)
	// ForgetKey removes what is known of a key, if anything is.
	ForgetKey(ctx context.Context, key store.KeyName) error
}

// OperationRaiser puts operational events into the log.
type OperationRaiser interface {
	// RaiseOnce appends an event; a repeat of once does nothing.
	RaiseOnce(ctx context.Context, once store.Once, event contact.Event) error
}

// Options are what the controller runs with.
type Options struct {
	// Config is the access to the API server.
	Config *rest.Config
	// Store is where subscriptions are opened and looked up.
	Store Store
	// Namespaces are those whose objects are reconciled, all when empty.
	Namespaces []string
	// Guard says where callbacks may point; the dispatcher's should be the same.
	Guard guard.Policies
	// Mail says which senders and recipients of mails are allowed; the dispatcher's should
	// be the same.
	Mail mailpolicy.Policy
	// Lease says where controllers agree on which of them acts.
	Lease Lease
	// Retention is for how long events are kept in the log, DefaultRetention when 0.
	// Nothing holds it to MinRetention.
	Retention time.Duration
	// Registerer takes our metrics while Run runs; without it there are none.
	Registerer prometheus.Registerer
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// Intervals pace the controller; each that is zero gets its default.
	Intervals Intervals
}

// Intervals pace the controller.
type Intervals struct {
	// Changes is how often the store is asked for rows that changed. 500ms by
	// default, so that a change of state reaches status within 2s.
	Changes time.Duration
	// Counters is how often, at most, one subscription's status is written for
	// its counters alone. 5s by default.
	Counters time.Duration
	// Contacts is how often, at most, the contacts of lists are counted. 5s by
	// default.
	Contacts time.Duration
	// KeyUses is how often, at most, the last use of a key is written to its
	// status. A minute by default.
	KeyUses time.Duration
	// Retention is how often old events are removed from the log. An hour by
	// default.
	Retention time.Duration
}

func (o Options) withDefaults() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Intervals.Changes = positive(o.Intervals.Changes, 500*time.Millisecond)
	o.Intervals.Counters = positive(o.Intervals.Counters, 5*time.Second)
	o.Intervals.Contacts = positive(o.Intervals.Contacts, 5*time.Second)
	o.Intervals.KeyUses = positive(o.Intervals.KeyUses, time.Minute)
	o.Intervals.Retention = positive(o.Intervals.Retention, time.Hour)
	o.Retention = positive(o.Retention, DefaultRetention)
	o.Lease = o.Lease.withDefaults()
	return o
}

func positive(value, fallback time.Duration) time.Duration {
	if value > 0 {
		return value
	}
	return fallback
}

// platform is what the controllers of all kinds use.
type platform struct {
	// client reads from the cache and writes to the API server.
	client   client.Client
	recorder events.EventRecorder
	now      func() time.Time
}

// Run makes objects true until the context ends, as soon as it holds the lease.
// It returns nil when it was told to end, and an error when it can't start or
// loses the lease: the process must end then, as another controller may act.
// The logger is the context's. Metrics are ours, and beside them controller-runtime's,
// in its own registry; nothing is served here.
func Run(ctx context.Context, options Options) error {
	options = options.withDefaults()
	ctx = log.IntoContext(ctx, log.FromContext(ctx).WithName("controller"))
	access := rest.CopyConfig(options.Config)
	if access.QPS == 0 {
		// The API server's priority and fairness paces us. Client-go's default
		// of 5 a second would let status lag by minutes.
		access.QPS = -1
	}
	m, err := newManager(ctx, access, options)
	if err != nil {
		return err
	}
	if err := indexReferences(ctx, m.GetFieldIndexer()); err != nil {
		return err
	}
	if err := addControllers(m, options); err != nil {
		return err
	}
	if err := m.Add(&leaseReport{lease: options.Lease, reader: m.GetAPIReader(), elected: m.Elected()}); err != nil {
		return fmt.Errorf("add the lease report: %w", err)
	}
	removed := newRemovedEvents()
	err = m.Add(&retention{
		log: options.Store, deliveries: options.Store, keep: options.Retention, interval: options.Intervals.Retention, now: options.Now,
		removed: removed,
	})
	if err != nil {
		return fmt.Errorf("add the removal of old events: %w", err)
	}
	if options.Registerer != nil {
		objects := newObjectMetrics(func() (census, error) { return takeCensus(ctx, m.GetCache()) })
		kept := newRetentionGauge(options.Retention)
		err := errors.Join(options.Registerer.Register(objects), options.Registerer.Register(removed), options.Registerer.Register(kept))
		if err != nil {
			return fmt.Errorf("register the controller's metrics: %w", err)
		}
		defer options.Registerer.Unregister(objects)
		defer options.Registerer.Unregister(removed)
		defer options.Registerer.Unregister(kept)
	}
	if err := m.Start(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("run the controller: %w", err)
	}
	return nil
}

func newManager(ctx context.Context, access *rest.Config, options Options) (manager.Manager, error) {
	lease := options.Lease
	lock, err := lease.lock(access)
	if err != nil {
		return nil, err
	}
	timeout := shutdownTimeout
	// Names are checked over the whole process, where tests run several.
	skipNameValidation := true
	m, err := manager.New(access, manager.Options{
		Scheme: kube.NewScheme(),
		// Where controller-runtime stands is for people who look for a fault.
		Logger:      log.FromContext(ctx).V(1),
		BaseContext: func() context.Context { return context.WithoutCancel(ctx) },
		NewCache:    kube.InNamespaces(options.Namespaces),
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject: map[client.Object]cache.ByObject{
				&corev1.Secret{}:    {Transform: nameOnly},
				&corev1.ConfigMap{}: {Transform: nameOnly},
			},
		},
		LeaderElection:                      true,
		LeaderElectionID:                    leaseName,
		LeaderElectionResourceLockInterface: lock,
		LeaderElectionReleaseOnCancel:       true,
		LeaseDuration:                       &lease.Duration,
		RenewDeadline:                       &lease.RenewDeadline,
		RetryPeriod:                         &lease.RetryPeriod,
		GracefulShutdownTimeout:             &timeout,
		Metrics:                             metricsserver.Options{BindAddress: "0"},
		HealthProbeBindAddress:              "0",
		PprofBindAddress:                    "0",
		Controller:                          config.Controller{SkipNameValidation: &skipNameValidation},
	})
	if err != nil {
		return nil, fmt.Errorf("make the manager: %w", err)
	}
	return m, nil
}

// addControllers adds a controller for every kind, and what watches the store
// for them.
func addControllers(m manager.Manager, options Options) error {
	shared := platform{
		client:   m.GetClient(),
		recorder: m.GetEventRecorder(reportingController),
		now:      options.Now,
	}
	values := secrets{client: m.GetClient(), reader: m.GetAPIReader()}
	contactsChanged, deliveriesChanged, keysUsed := make(changes), make(changes), make(changes)
	uses := &keyUses{}

	spaces := namespaces{reader: m.GetAPIReader(), store: options.Store, flights: &singleflight.Group{}, now: options.Now}
	lists := contactLists{
		platform: shared, reader: m.GetAPIReader(), store: options.Store, namespaces: spaces, operations: options.Store,
		inspected: &verdicts{}, mail: options.Mail,
	}
	keys := apiKeys{platform: shared, secrets: values, store: options.Store, operations: options.Store, uses: uses}
	subscriptions := webhookSubscriptions{
		platform: shared, secrets: values, store: options.Store, namespaces: spaces, guard: options.Guard,
		mail: options.Mail,
	}
	return errors.Join(
		lists.watch(m, contactsChanged),
		keys.watch(m, keysUsed),
		subscriptions.watch(m, deliveriesChanged),
		m.Add(&contactWatch{
			store:    options.Store,
			interval: options.Intervals.Contacts,
			changed:  contactsChanged,
		}),
		m.Add(&deliveryWatch{
			store:    options.Store,
			interval: options.Intervals.Changes,
			now:      options.Now,
			pacer:    newPacer(options.Intervals.Counters),
			changed:  deliveriesChanged,
		}),
		m.Add(&keyUseWatch{store: options.Store, interval: options.Intervals.KeyUses, uses: uses, changed: keysUsed}),
	)
}

func suspended(spec *bool) bool { return spec != nil && *spec }

func expired(at *metav1.Time, now time.Time) bool { return at != nil && !at.After(now) }
