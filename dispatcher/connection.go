package dispatcher

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"sync/atomic"
	"syscall"
	"time"

	"postbus.dev/postbus/internal/guard"
)

// maxConnections is how many idle connections a caller keeps: as many as the
// largest rateLimit.maxInFlight can use.
const maxConnections = 1000

// A connection of HTTP/2 outlives calls that time out, so one that died without a word,
// as when a NAT forgets it, would have every call fail until the kernel gives it up. The
// callback's end is asked whether it lives after pingAfter without a frame, and has
// pingTimeout to answer.
const (
	pingAfter   = 15 * time.Second
	pingTimeout = 5 * time.Second
)

// maxAnswerHeader is how many bytes an answer's headers may have.
const maxAnswerHeader = 64 << 10

// callTransport makes calls to where callbacks may point, and to nowhere else: it
// looks at the URL of each call, and at each address that is dialled.
type callTransport struct {
	*http.Transport
	policy guard.Policy
}

// newCallTransport returns a transport with these settings of TLS, for the calls of one namespace.
func newCallTransport(options *Options, namespace string, settings *tls.Config) callTransport {
	policy := options.Guard.For(namespace)
	// Proxy is set or nil, never http.ProxyFromEnvironment: a proxy that somebody
	// set for other reasons would be dialled in the callback's place.
	t := &http.Transport{
		TLSClientConfig:        settings,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		DisableCompression:     true, // nobody looks at the answer's body
		MaxIdleConnsPerHost:    maxConnections,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: maxAnswerHeader,
	}
	free := net.Dialer{Timeout: defaultTimeout, KeepAlive: 30 * time.Second, Resolver: options.Resolver}
	if options.EgressProxy != nil {
		t.Proxy = http.ProxyURL(options.EgressProxy)
		t.DialContext = watchLookup(free.DialContext) // whatever is called, the proxy is dialled
		t.OnProxyConnectResponse = proxyAnswer
	} else {
		t.DialContext = watchLookup(guardedDial(policy, free))
	}
	return callTransport{Transport: t, policy: policy}
}

// RoundTrip makes a call, unless its URL is refused.
func (t callTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	if err := t.policy.CheckURL(request.URL); err != nil {
		if request.Body != nil {
			_ = request.Body.Close() // as http.RoundTripper promises
		}
		return nil, err
	}
	return t.Transport.RoundTrip(request)
}

// proxyAnswer is the error of a call that the egress proxy refuses, with its status: what
// else it says is not for the log, see unquoted.
func proxyAnswer(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	return &net.OpError{Op: "proxyconnect", Net: "tcp", Err: fmt.Errorf("the proxy answers %d", answer.StatusCode)}
}

// dial connects, as http.Transport asks for it.
type dial func(ctx context.Context, network, address string) (net.Conn, error)

// guardedDial returns a dialler that checks each address right before it is
// connected to. There is no look-up between the two, so a name whose answer
// changes wins nothing.
func guardedDial(policy guard.Policy, free net.Dialer) dial {
	guarded := free
	guarded.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
		end, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		return policy.CheckAddr(end.Addr())
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		dialer := &guarded
		if host, _, err := net.SplitHostPort(address); err == nil && policy.AllowsHost(host) {
			dialer = &free
		}
		return dialer.DialContext(ctx, network, address)
	}
}

// lookupKey is the key of what a call's context says of looking up names: an
// *atomic.Bool that is true while the call waits for a name server, and when it had no
// answer from it.
type lookupKey struct{}

// withLookup returns a context for a call that can be asked whether it is resolving.
func withLookup(ctx context.Context) context.Context {
	return context.WithValue(ctx, lookupKey{}, new(atomic.Bool))
}

// resolving tells whether a call waits for a name server, or had no answer from it.
// Without it a name server that is silent would look like a callback that is.
func resolving(ctx context.Context) bool {
	waits, ok := ctx.Value(lookupKey{}).(*atomic.Bool)
	return ok && waits.Load()
}

// watchLookup has the calls' contexts know of the look-ups of their names.
func watchLookup(connect dial) dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if waits, ok := ctx.Value(lookupKey{}).(*atomic.Bool); ok {
			ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
				DNSStart: func(httptrace.DNSStartInfo) { waits.Store(true) },
				DNSDone:  func(done httptrace.DNSDoneInfo) { waits.Store(done.Err != nil) },
			})
		}
		return connect(ctx, network, address)
	}
}
