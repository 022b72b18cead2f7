package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/controllers"
	"postbus.dev/postbus/dispatcher"
	"postbus.dev/postbus/ingress"
	"postbus.dev/postbus/internal/kube"
	"postbus.dev/postbus/internal/probe"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/metered"
	"postbus.dev/postbus/internal/tracing"
)

// process is what the components of one process share.
type process struct {
	settings settings
	access   *rest.Config
	store    store.Store
	objects  cache.Cache
	synced   chan struct{}
	metrics  metrics.RegistererGatherer
	tracing  *tracing.Tracing
}

// runProcess runs a command's components until the context ends or one of them
// can't go on.
func runProcess(ctx context.Context, s settings) (err error) {
	useProcessors()
	ctx = withLogger(ctx, s.logLevel)
	// controller-runtime's registry has the Go runtime's metrics and its own already.
	p := &process{settings: s, synced: make(chan struct{}), metrics: metrics.Registry}
	if p.access, err = access(s.kubeconfig); err != nil {
		return err
	}
	if err := kube.CheckVersion(p.access); err != nil {
		return err
	}
	if p.objects, err = kube.NewCacheOf(ctx, s.namespaces, p.access, s.kinds()...); err != nil {
		return err
	}
	endTracing, err := p.startTracing(ctx)
	if err != nil {
		return err
	}
	defer endTracing()
	engine, err := s.store.open(ctx, s.command)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, engine.Close()) }()
	if p.store, err = metered.New(ctx, engine, p.metrics); err != nil {
		return err
	}

	parts, running := errgroup.WithContext(ctx)
	parts.Go(func() error { return p.objects.Start(running) })
	parts.Go(func() error {
		if p.objects.WaitForCacheSync(running) {
			close(p.synced)
		}
		return nil
	})
	parts.Go(func() error {
		return probe.Run(running, probe.Options{Address: s.metricsAddress, Metrics: p.metrics, Ready: p.ready, Profiling: s.profiling})
	})
	for component, run := range map[string]func(context.Context) error{
		"controller": p.runController, "ingress": p.runIngress, "dispatcher": p.runDispatcher,
	} {
		if s.runs(component) {
			parts.Go(func() error { return run(running) })
		}
	}
	err = parts.Wait()
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil // it was asked to stop, and something was still starting
	}
	return err
}

// useProcessors has Go run goroutines on two threads at least, unless GOMAXPROCS says
// otherwise. On the only one, a commit that waits for the disk holds up the callers who
// would share the next: it is some milliseconds until the runtime lets them go on.
func useProcessors() {
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) == 1 {
		runtime.GOMAXPROCS(2)
	}
}

// lastTraces is how long the last traces may take to be sent when a process ends.
const lastTraces = 3 * time.Second

// startTracing makes spans of what this process does, if the environment asks for
// that. A collector that is away disturbs nothing.
func (p *process) startTracing(ctx context.Context) (end func(), err error) {
	logger := logr.FromContextOrDiscard(ctx)
	tracing.LogErrors(logger)
	service := "postbus"
	if p.settings.command != "standalone" {
		service += "-" + p.settings.command
	}
	if p.tracing, err = tracing.Open(ctx, service, programVersion()); err != nil {
		return nil, err
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastTraces)
		defer cancel()
		if err := p.tracing.Close(ctx); err != nil {
			logger.Info("the last traces are not sent", "cause", err.Error())
		}
	}, nil
}

// kinds are what the command's components read: no more, so that each gets by
// with its own rights.
func (s settings) kinds() []client.Object {
	kinds := []client.Object{&v1alpha1.ContactList{}}
	if s.runs("ingress") {
		kinds = append(kinds, &v1alpha1.ApiKey{})
	}
	if s.runs("dispatcher") {
		kinds = append(kinds, &v1alpha1.WebhookSubscription{})
	}
	return kinds
}

// runController runs the controller. One that loses its lease, because the API
// server is away, ends; Kubernetes starts it again. In standalone it must not
// take ingress with it, so it is run again here.
func (p *process) runController(ctx context.Context) error {
	options := controllers.Options{
		Config: p.access, Store: p.store, Guard: p.settings.callbacks.policies, Namespaces: p.settings.namespaces,
		Mail:  p.settings.mail.options.Policy,
		Lease: controllers.Lease{Namespace: p.leaseNamespace()}, Retention: p.settings.retention, Registerer: p.metrics,
	}
	if p.settings.command != "standalone" {
		return controllers.Run(ctx, options)
	}
	if !p.settings.store.shared() {
		// No two processes have one store open, so whoever has this one may go on
		// with the lease of its predecessor at once.
		options.Lease.Identity = "standalone-" + p.store.Identity()
	}
	for {
		err := controllers.Run(ctx, options)
		if ctx.Err() != nil {
			return err
		}
		logr.FromContextOrDiscard(ctx).Error(err, "controller ended, starting it again", "wait", controllerRestart.String())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(controllerRestart):
		}
	}
}

// controllerRestart is the wait before standalone runs its controller again.
const controllerRestart = 5 * time.Second

func (p *process) runIngress(ctx context.Context) error {
	keys, err := p.store.LinkKeys(ctx)
	if err != nil {
		return fmt.Errorf("start ingress: %w", err)
	}
	return ingress.Run(ctx, ingress.Options{
		Address:        p.settings.ingress.address,
		Certificate:    p.settings.ingress.certificate,
		TrustedProxies: p.settings.ingress.trustedProxies,
		AllowPlainHTTP: p.settings.ingress.allowPlainHTTP,
		MaxConnections: p.settings.ingress.maxConnections,
		MaxRequests:    p.settings.ingress.maxRequests,
		MaxLogBytes:    p.settings.ingress.maxLogBytes,
		LogBytes:       p.store,
		Objects:        p.objects,
		Contacts:       p.store,
		Reader:         p.store,
		Bindings:       p.store,
		KeyUses:        p.store,
		Texts:          p.store,
		Callbacks:      p.store,
		LinkKeys:       keys,
		PublicURL:      p.settings.publicURL,
		Tracing:        p.tracing,
		Registerer:     p.metrics,
		Ready:          p.ready,
	})
}

func (p *process) runDispatcher(ctx context.Context) error {
	secrets, err := client.New(p.access, client.Options{Scheme: kube.NewScheme()})
	if err != nil {
		return fmt.Errorf("make the client that reads Secrets of subscriptions: %w", err)
	}
	keys, err := p.store.LinkKeys(ctx)
	if err != nil {
		return fmt.Errorf("start the dispatcher: %w", err)
	}
	return dispatcher.Run(ctx, dispatcher.Options{
		Objects: p.objects, Secrets: secrets, Store: p.store, LinkKeys: keys, Mail: p.settings.mail.options,
		Guard: p.settings.callbacks.policies, EgressProxy: p.settings.callbacks.egressProxy,
		Tracing: p.tracing, Registerer: p.metrics, OmitSubscriptionMetrics: !p.settings.subscriptionMetrics,
		MaxCalls: p.settings.callbacks.maxCalls, MaxBodyBytes: p.settings.callbacks.maxBodyBytes,
		MaxSubscriptionBodyBytes: p.settings.callbacks.maxSubscriptionBodyBytes, MaxPendingBytes: p.settings.callbacks.maxPendingBytes,
		Version: programVersion(),
	})
}

// ready returns nil once the caches are synced and the store answers.
func (p *process) ready(ctx context.Context) error {
	select {
	case <-p.synced:
	default:
		return errors.New("the resources have not been read yet")
	}
	if _, err := p.store.Head(ctx); err != nil {
		return errors.New("the store does not answer")
	}
	return nil
}

// podNamespaceFile is where Kubernetes tells a pod its namespace.
const podNamespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

func (p *process) leaseNamespace() string {
	if p.settings.leaseNamespace != "" {
		return p.settings.leaseNamespace
	}
	if namespace, err := os.ReadFile(podNamespaceFile); err == nil {
		return strings.TrimSpace(string(namespace))
	}
	return "default"
}

// access returns how to reach the API server.
func access(kubeconfig string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("find the access to the API server: %w", err)
	}
	config.UserAgent = "postbus/" + programVersion()
	config.QPS = -1 // the API server has its own fairness rules
	return config, nil
}

// withLogger makes one logger for us and for the libraries.
func withLogger(ctx context.Context, level string) context.Context {
	options := &slog.HandlerOptions{Level: slog.LevelInfo}
	if level == "debug" {
		options.Level = slog.LevelDebug
	}
	logger := logr.FromSlogHandler(slog.NewTextHandler(os.Stderr, options))
	ctrl.SetLogger(logger)
	klog.SetLogger(logger)
	logLibraries(logger)
	return logr.NewContext(ctx, logger)
}

// logLibraries has what libraries write to Go's own log go to a logger.
func logLibraries(logger logr.Logger) {
	log.SetFlags(0)
	log.SetOutput(libraryLog{logger})
}

// libraryLog takes lines of Go's own log.
type libraryLog struct{ logger logr.Logger }

// unasked begins what net/http writes of bytes that come behind an answer. It quotes
// them, and they may repeat a call: its path, its headers, its contact.
const unasked = "Unsolicited response received on idle HTTP channel"

// Write implements io.Writer.
func (l libraryLog) Write(line []byte) (int, error) {
	if strings.HasPrefix(string(line), unasked) {
		l.logger.V(1).Info("connection trouble", "text", unasked)
	} else {
		l.logger.Info("a library tells", "text", strings.TrimSpace(string(line)))
	}
	return len(line), nil
}
