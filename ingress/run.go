package ingress

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/internal/link"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/tracing"
)

// Options is what ingress runs with. Objects, Contacts, KeyUses, Registerer and
// one of Listener and Address are needed.
type Options struct {
	// Listener is where calls come in; Run closes it. Without one Run listens
	// on Address.
	Listener net.Listener
	// Address is the TCP address to listen on, such as ":8080".
	Address string
	// Certificate has ingress serve TLS, and nothing else, on its address.
	Certificate CertificateFiles
	// TrustedProxies are the networks of the proxies in front of ingress that
	// terminate TLS: what they pass on with "X-Forwarded-Proto: https" counts
	// as HTTPS.
	TrustedProxies []netip.Prefix
	// AllowPlainHTTP takes calls without TLS. For local runs only: the key is
	// readable on the way.
	AllowPlainHTTP bool
	// MaxConnections is how many connections are open at a time; 0 means
	// DefaultMaxConnections.
	MaxConnections int
	// MaxRequests is how many calls are read or answered at a time, health
	// checks not among them; 0 means DefaultMaxRequests.
	MaxRequests int
	// Objects reads ApiKeys and ContactLists. It is an informer cache with the
	// index kube.DigestField.
	Objects client.Reader
	// Contacts is where contacts are kept.
	Contacts store.Contacts
	// Reader is where contacts are read back from.
	Reader store.ContactReader
	// Bindings is where it is kept which lists are bound to their namespace.
	Bindings ObjectBindings
	// KeyUses is where it is kept when keys were last used.
	KeyUses KeyUseNoter
	// MaxLogBytes is how many bytes the requests of one namespace may append to the
	// event log in a day, in UTC; 0 means any number. Requests that end a contact,
	// and confirmations of an opt-in, are never refused.
	MaxLogBytes int64
	// LogBytes is where that is counted; it is needed with MaxLogBytes.
	LogBytes LogByteCounter
	// KeyUseInterval is how often uses of keys, and bytes of the log, are written; 0
	// means 10 seconds. They are written at the end too.
	KeyUseInterval time.Duration
	// Texts is where the looks of lists' pages are kept; without it all have the
	// built-in look.
	Texts store.Texts
	// Callbacks is where callbacks that were deactivated are looked up, and asked to
	// be reactivated by a link; without it no such link is good.
	Callbacks CallbackKeeper
	// LinkKeys verify the links to pages, and sign those that are handed out.
	// Without them no link is good.
	LinkKeys *link.Ring
	// PublicURL is where recipients reach ingress, such as
	// https://lists.example.com. Without it no links are handed out.
	PublicURL *url.URL
	// Tracing makes spans of calls; none when nil.
	Tracing *tracing.Tracing
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
	readHeaderTimeout = 5 * time.Second // a TLS handshake may take as long, too
	readTimeout       = 15 * time.Second
	requestTimeout    = 20 * time.Second // what is left of writeTimeout is for the answer
	writeTimeout      = 30 * time.Second
	idleTimeout       = 60 * time.Second
	maxHeaderBytes    = 32 << 10 // URL parameters are part of it

	// An HTTP/2 connection is a caller like any other, so it must not hold more.
	maxStreams     = 8
	maxReceived    = 64 << 10 // of a connection, and of each stream, before it is read
	maxFrame       = 16 << 10 // a connection has room for one from its first byte on
	stuckByteAfter = 10 * time.Second
)

// Run serves until the context is done, then stops accepting, finishes the
// running requests and returns. The logger comes from the context.
func Run(ctx context.Context, options Options) error {
	metrics, err := NewMetrics(options.Registerer)
	if err != nil {
		return err
	}
	handler := newServer(options, metrics)
	// Requests outlive ctx by up to the shutdown timeout.
	requests := context.WithoutCancel(ctx)
	server := newHTTPServer(requests, handler)
	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if options.Certificate != (CertificateFiles{}) {
		certificate, err := loadCertificate(options.Certificate, metrics.certificateExpiry)
		if err != nil {
			return err
		}
		server.TLSConfig = certificate.config()
		watching.Go(func() { certificate.watch(ctx) })
	}
	listener := options.Listener
	if listener == nil {
		listener, err = new(net.ListenConfig).Listen(ctx, "tcp", options.Address)
		if err != nil {
			return fmt.Errorf("listen on %s: %w", options.Address, err)
		}
	}
	defer handler.keys.startUpkeep(ctx, cmp.Or(options.KeyUseInterval, defaultKeyUseInterval))()
	defer handler.logBytes.startUpkeep(ctx, options.KeyUseInterval, handler.now)()
	limits := handler.limits
	gated := &gatedListener{Listener: listener, gate: limits.connections, largeHeaders: limits.largeHeaders, http2: limits.http2}
	logr.FromContextOrDiscard(ctx).Info("listening", "address", listener.Addr().String(), "tls", server.TLSConfig != nil)
	served := make(chan error, 1)
	go func() { served <- serve(server, gated) }()
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

// newHTTPServer returns the server of a handler. The context is that of its requests.
func newHTTPServer(ctx context.Context, handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          maxStreams,
			MaxReceiveBufferPerConnection: maxReceived,
			MaxReceiveBufferPerStream:     maxReceived,
			MaxReadFrameSize:              maxFrame,
			WriteByteTimeout:              stuckByteAfter,
		},
		DisableGeneralOptionsHandler: true, // every answer is ours
		BaseContext:                  func(net.Listener) context.Context { return ctx },
		ConnContext:                  withConnection,
		ErrorLog:                     connectionLog(ctx),
	}
}

func serve(server *http.Server, listener net.Listener) error {
	if server.TLSConfig == nil {
		return server.Serve(listener)
	}
	return server.ServeTLS(listener, "", "") // TLSConfig has the certificate
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
