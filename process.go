package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/controllers"
	"postbus.dev/postbus/dispatcher"
	"postbus.dev/postbus/ingress"
	"postbus.dev/postbus/internal/kube"
	"postbus.dev/postbus/internal/probe"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/sqlite"
)

// process is what the components of one process share.
type process struct {
	settings settings
	access   *rest.Config
	store    store.Store
	objects  cache.Cache
	synced   chan struct{}
	metrics  *prometheus.Registry
}

// runProcess runs a command's components until the context ends or one of them
// can't go on.
func runProcess(ctx context.Context, s settings) (err error) {
	ctx = withLogger(ctx, s.logLevel)
	p := &process{settings: s, synced: make(chan struct{}), metrics: prometheus.NewRegistry()}
	p.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if p.access, err = access(s.kubeconfig); err != nil {
		return err
	}
	if err := kube.CheckVersion(p.access); err != nil {
		return err
	}
	if p.objects, err = kube.NewCache(ctx, p.access); err != nil {
		return err
	}
	if p.store, err = sqlite.Open(ctx, s.store); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.store.Close()) }()

	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return p.objects.Start(ctx) })
	parts.Go(func() error {
		if p.objects.WaitForCacheSync(ctx) {
			close(p.synced)
		}
		return nil
	})
	parts.Go(func() error {
		return probe.Run(ctx, probe.Options{Address: s.metricsAddress, Metrics: p.metrics, Ready: p.ready})
	})
	for component, run := range map[string]func(context.Context) error{
		"controller": p.runController, "ingress": p.runIngress, "dispatcher": p.runDispatcher,
	} {
		if s.runs(component) {
			parts.Go(func() error { return run(ctx) })
		}
	}
	return parts.Wait()
}

func (p *process) runController(ctx context.Context) error {
	lease := controllers.Lease{Namespace: p.leaseNamespace()}
	if p.settings.command == "standalone" {
		// No two processes have one store open, so whoever has this one may go
		// on with the lease of its predecessor at once.
		lease.Identity = "standalone-" + p.store.Identity()
	}
	return controllers.Run(ctx, controllers.Options{Config: p.access, Store: p.store, Lease: lease})
}

func (p *process) runIngress(ctx context.Context) error {
	return ingress.Run(ctx, ingress.Options{
		Address:        p.settings.ingressAddress,
		AllowPlainHTTP: p.settings.allowPlainHTTP,
		Objects:        p.objects,
		Contacts:       p.store,
		Registerer:     p.metrics,
		Ready:          p.ready,
	})
}

func (p *process) runDispatcher(ctx context.Context) error {
	secrets, err := client.New(p.access, client.Options{Scheme: kube.NewScheme()})
	if err != nil {
		return fmt.Errorf("make the client that reads signing secrets: %w", err)
	}
	return dispatcher.Run(ctx, dispatcher.Options{
		Objects: p.objects, Secrets: secrets, Store: p.store,
		Registerer: p.metrics, Version: programVersion(),
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
	return logr.NewContext(ctx, logger)
}
