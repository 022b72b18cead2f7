package dispatcher

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/guard"
	"postbus.dev/postbus/internal/link"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/tracing"
)

// Options are what Run needs.
type Options struct {
	// Objects are the informers of WebhookSubscriptions and ContactLists.
	Objects cache.Cache
	// Secrets reads the Secrets of signing secrets and encryption keys, one by one.
	Secrets client.Reader
	// Store has the event log and how far each subscription is.
	Store Store
	// LinkKeys sign the links in mails and events; without Mail.PublicURL none are made.
	LinkKeys *link.Ring
	// Mail is how opt-in mails are sent.
	Mail MailOptions
	// Guard says where callbacks may point.
	Guard guard.Policies
	// EgressProxy is the HTTP proxy that callbacks are called through; nil calls
	// them directly. Proxies that the environment names are not used.
	EgressProxy *url.URL
	// Resolver finds the addresses of callbacks; the system's when nil.
	Resolver *net.Resolver
	// Registerer takes the metrics.
	Registerer prometheus.Registerer
	// OmitSubscriptionMetrics leaves out the metrics of each subscription, some 15
	// series for each. Their sums stay.
	OmitSubscriptionMetrics bool
	// MaxCalls is how many calls may be under way at a time beside 4 of each
	// subscription; DefaultMaxCalls when 0.
	MaxCalls int
	// MaxBodyBytes is how many bytes the bodies of attempts in flight may have together,
	// beside 64 KiB of each subscription, and MaxSubscriptionBodyBytes those of one
	// subscription. The defaults, when 0, are DefaultMaxBodyBytes and
	// DefaultMaxSubscriptionBodyBytes.
	MaxBodyBytes, MaxSubscriptionBodyBytes int64
	// MaxPendingBytes is how many bytes the pending events of all subscriptions may have
	// in memory, beside 32 KiB of each; DefaultMaxPendingBytes when 0.
	MaxPendingBytes int64
	// Tracing makes spans of attempts; none when nil.
	Tracing *tracing.Tracing
	// Clock is the time; the real one when nil.
	Clock clock.Clock
	// RootCAs are who may sign certificates of callbacks and of the mail server;
	// the system's when nil.
	RootCAs *x509.CertPool
	// ShutdownTimeout is how long attempts under way may go on after the
	// context has ended; 10 s when 0.
	ShutdownTimeout time.Duration
	// IdleInterval is how often cursors are written that have moved over events
	// that nobody wanted, and people forgotten that everybody was told of; a
	// minute when 0.
	IdleInterval time.Duration
	// Name tells this dispatcher from the others that use the store. No two that run
	// at the same time may have the same one, nor one and its successor; made of the
	// host's name and random text when empty.
	Name string
	// Version is the program's, for the User-Agent header.
	Version string

	// evaluating, when not nil, is called before each evaluation of a subscription's
	// expressions, so that a test can hold it.
	evaluating func(store.SubscriptionKey)
	// renders are the turns of those who make bodies, see renderTurns.
	renders chan struct{}
}

// Store is the part of a store that a dispatcher uses.
type Store interface {
	store.Log
	store.Deliveries
	store.Owners
	store.Requests
	store.Attempts
	store.Texts
	Forgetter
	ContactFinder
	namespaceLoader
}

// namespaceLoader tells which data belongs to a namespace and its objects.
type namespaceLoader interface {
	// LoadNamespace returns the binding of a namespace, which is zero while there is none.
	LoadNamespace(ctx context.Context, name string) (store.Namespace, error)
	// IsBound reports whether an object may use the data of its namespace.
	IsBound(ctx context.Context, object string) (bool, error)
}

// ContactFinder finds contacts.
type ContactFinder interface {
	// FindContactByID returns the contact of a number, or store.ErrNotFound.
	FindContactByID(ctx context.Context, list contact.ListKey, id int64) (contact.Contact, error)
}

// Forgetter removes the last traces of people.
type Forgetter interface {
	// ScrubForgotten makes tombstones of the events that forget somebody and
	// that every subscription is past.
	ScrubForgotten(ctx context.Context) (scrubbed int, err error)
}

const (
	// defaultShutdownTimeout is well below the 30 s that Kubernetes gives a pod.
	defaultShutdownTimeout = 10 * time.Second
	// farewellTimeout is how long the last checkpoint may take, and what else the
	// store is told at the end.
	farewellTimeout = 10 * time.Second
)

// Run delivers events until the context ends, of the subscriptions that this one of
// the dispatchers owns. It then starts no more attempts, lets those under way finish
// within ShutdownTimeout, writes a last checkpoint and leaves the subscriptions to
// the other dispatchers before it returns.
func Run(ctx context.Context, options Options) error {
	options.complete()
	logger := logr.FromContextOrDiscard(ctx).WithName("dispatcher")
	ctx = logr.NewContext(ctx, logger)
	// What ends an attempt or a checkpoint is not the end of ctx.
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()

	follower, err := newTail(ctx, options.Store, options.Clock)
	if ctx.Err() != nil { // it was told to end before it had begun
		return nil
	}
	if err != nil {
		return err
	}
	metrics := newMetrics(options.Registerer)
	members := newMembership(&options, metrics)
	runners := newRegistry(lasting, &options, follower, members, metrics)
	if err := options.Registerer.Register(newCollector(runners.reports, options.OmitSubscriptionMetrics)); err != nil {
		return fmt.Errorf("register the metrics of subscriptions: %w", err)
	}
	writer := newCheckpointer(runners, follower, metrics)
	if err := runners.watch(ctx); err != nil {
		if ctx.Err() != nil { // it was told to end before it had begun
			return nil
		}
		return fmt.Errorf("start the dispatcher: %w", err)
	}
	logger.Info("dispatcher is running", "dispatcher", members.name)

	endCheckpoints := startPart(lasting, writer.run)
	endMembership := startPart(lasting, func(ending context.Context) { members.run(ending, ctx.Done()) })
	var parts sync.WaitGroup
	parts.Go(func() { follower.run(ctx) })
	parts.Go(func() { runners.run(ctx) })
	parts.Go(func() { runners.followRequests(ctx) })
	parts.Wait()
	endCheckpoints()
	farewell, cancelFarewell := context.WithTimeout(lasting, farewellTimeout)
	defer cancelFarewell()
	writer.write(farewell, true)
	runners.recent.write(farewell, options.Clock.Now(), true)
	endMembership()
	members.leave(farewell)
	logger.Info("dispatcher has stopped")
	return nil
}

// complete sets the defaults.
func (o *Options) complete() {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	o.ShutdownTimeout = cmp.Or(o.ShutdownTimeout, defaultShutdownTimeout)
	o.IdleInterval = cmp.Or(o.IdleInterval, defaultIdleInterval)
	o.MaxCalls = cmp.Or(o.MaxCalls, DefaultMaxCalls)
	o.MaxBodyBytes = cmp.Or(o.MaxBodyBytes, DefaultMaxBodyBytes)
	o.MaxSubscriptionBodyBytes = cmp.Or(o.MaxSubscriptionBodyBytes, DefaultMaxSubscriptionBodyBytes)
	o.MaxPendingBytes = cmp.Or(o.MaxPendingBytes, DefaultMaxPendingBytes)
	o.renders = make(chan struct{}, renders)
	o.Secrets = newSecretReader(o.Secrets)
}

// startPart runs a part until the function that it returns is called, which waits for
// its end.
func startPart(ctx context.Context, run func(context.Context)) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var part sync.WaitGroup
	part.Go(func() { run(ctx) })
	return func() {
		cancel()
		part.Wait()
	}
}
