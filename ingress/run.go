package ingress

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/internal/store"
)

// Options is what ingress runs with. Objects, Contacts, KeyUses, Registerer and
// one of Listener and Address are needed.
type Options struct {
	// Listener is where calls come in; Run closes it. Without one Run listens
	// on Address.
	Listener net.Listener
	// Address is the TCP address to listen on, such as ":8080".
	Address string
	// AllowPlainHTTP takes calls without TLS. For local runs only: the key is
	// readable on the way.
	AllowPlainHTTP bool
	// Objects reads ApiKeys and ContactLists. It is an informer cache with the
	// index kube.DigestField.
	Objects client.Reader
	// Contacts is where contacts are kept.
	Contacts store.Contacts
	// Reader is where contacts are read back from.
	Reader store.ContactReader
	// KeyUses is where it is kept when keys were last used.
	KeyUses KeyUseNoter
	// KeyUseInterval is how often that is written; 0 means 10 seconds. It is
	// written at the end too.
	KeyUseInterval time.Duration
	// Registerer takes ingress's metrics.
	Registerer prometheus.Registerer
	// Ready returns nil once caches and store are up, before that an error that
	// says what is missing, which /readyz shows. Without it ingress is ready as
	// soon as it listens.
	Ready func(ctx context.Context) error
	// ShutdownTimeout is how long running requests may take to finish once the
	// context is done; 0 means 20 seconds.
	ShutdownTimeout time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

const (
	defaultShutdownTimeout = 20 * time.Second
	defaultKeyUseInterval  = 10 * time.Second
)

// The limits of a connection. A call is a few kilobytes and takes
// milliseconds: these bound what a slow or hostile caller can hold.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 15 * time.Second
	requestTimeout    = 20 * time.Second // what is left of writeTimeout is for the answer
	writeTimeout      = 30 * time.Second
	idleTimeout       = 60 * time.Second
	maxHeaderBytes    = 256 << 10 // URL parameters are part of it
)

// Run serves until the context is done, then stops accepting, finishes the
// running requests and returns. The logger comes from the context.
func Run(ctx context.Context, options Options) error {
	metrics, err := NewMetrics(options.Registerer)
	if err != nil {
		return err
	}
	listener := options.Listener
	if listener == nil {
		listener, err = new(net.ListenConfig).Listen(ctx, "tcp", options.Address)
		if err != nil {
			return fmt.Errorf("listen on %s: %w", options.Address, err)
		}
	}
	handler := newServer(options, metrics)
	defer handler.keys.startUpkeep(ctx, cmp.Or(options.KeyUseInterval, defaultKeyUseInterval))()
	// Requests outlive ctx by up to the shutdown timeout.
	requests := context.WithoutCancel(ctx)
	server := &http.Server{
		Handler:                      handler,
		ReadHeaderTimeout:            readHeaderTimeout,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		DisableGeneralOptionsHandler: true, // every answer is ours
		BaseContext:                  func(net.Listener) context.Context { return requests },
		ErrorLog:                     connectionLog(ctx),
	}
	logr.FromContextOrDiscard(ctx).Info("listening", "address", listener.Addr().String())
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	handler.stopping.Store(true)
	err = shutdown(requests, server, options.ShutdownTimeout)
	<-served
	return err
}

func shutdown(ctx context.Context, server *http.Server, timeout time.Duration) error {
	if timeout == 0 {
		timeout = defaultShutdownTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("finish running requests within %s: %w", timeout, err), server.Close())
	}
	return nil
}
