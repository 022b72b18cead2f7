package dispatcher

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/net/dns/dnsmessage"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/testkit"
)

// What name servers can do to a call.
func TestBrokenNames(t *testing.T) {
	for name, answer := range map[string]nameAnswer{
		"the name does not exist":             {code: dnsmessage.RCodeNameError},
		"the name has no address":             {},
		"the name server fails":               {code: dnsmessage.RCodeServerFailure},
		"the name server refuses":             {code: dnsmessage.RCodeRefused},
		"the name server does not answer":     {silent: true},
		"the name server answers other calls": {wrongID: true},
	} {
		t.Run(name, func(t *testing.T) {
			names, receiver := newNameServer(t), testkit.NewReceiver(t)
			names.answersWith(answer)
			o := callOnce(t, Options{Guard: toReceivers, Resolver: names.resolver()}, named(t, receiver), 300*time.Millisecond)
			NewWithT(t).Expect(o).To(Equal(because(v1alpha1.FailureDNS)))
			NewWithT(t).Expect(receiver.Count()).To(BeZero())
		})
	}
}

// A name server is blamed for what it did, not for what comes after.
func TestSlowCallbackIsNotTheNameServers(t *testing.T) {
	names, receiver := newNameServer(t), testkit.NewReceiver(t)
	names.says("127.0.0.1")
	receiver.AnswerWith(raw("", holdIt))
	want := because(v1alpha1.FailureTimeout)
	NewWithT(t).Expect(patiently(want, func(timeout time.Duration) outcome {
		return callOnce(t, Options{Guard: toReceivers, Resolver: names.resolver()}, named(t, receiver), timeout)
	})).To(Equal(want))
}

// What callbacks can do to TLS.
func TestBrokenTLS(t *testing.T) {
	authority := testkit.NewAuthority(t)
	good := authority.IssuePair(t, nil)
	serve := func(config *tls.Config) func(*testing.T) string {
		return func(t *testing.T) string {
			server := httptest.NewUnstartedServer(nil)
			config.MinVersion = tls.VersionTLS10 // what is refused must be offered
			server.TLS = config
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.StartTLS()
			t.Cleanup(server.Close)
			return server.URL
		}
	}
	with := func(edit func(*x509.Certificate)) func(*testing.T) string {
		return serve(&tls.Config{Certificates: []tls.Certificate{authority.IssuePair(t, edit)}})
	}
	onTLSPort := func(then func(net.Conn)) func(*testing.T) string {
		return func(t *testing.T) string { return "https://" + listen(t, then) }
	}
	for name, row := range map[string]struct {
		url  func(*testing.T) string
		want outcome
	}{
		"its certificate is good":              {with(nil), outcome{verdict: failed, reason: v1alpha1.FailureHTTPStatus, status: 404}},
		"its certificate is signed by another": {serve(&tls.Config{Certificates: []tls.Certificate{testkit.NewAuthority(t).IssuePair(t, nil)}}), because(v1alpha1.FailureTLS)},
		"its certificate is signed by itself":  {func(t *testing.T) string { return selfSigned(t).URL }, because(v1alpha1.FailureTLS)},
		"its certificate is of another name": {with(func(c *x509.Certificate) {
			c.IPAddresses, c.DNSNames = nil, []string{"crm.example.com"}
		}), because(v1alpha1.FailureTLS)},
		"its certificate has expired":      {with(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), because(v1alpha1.FailureTLS)},
		"its certificate is not valid yet": {with(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }), because(v1alpha1.FailureTLS)},
		"its certificate is a client's": {with(func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}), because(v1alpha1.FailureTLS)},
		"it speaks TLS 1.0":       {serve(&tls.Config{Certificates: []tls.Certificate{good}, MaxVersion: tls.VersionTLS10}), because(v1alpha1.FailureTLS)},
		"it speaks TLS 1.1":       {serve(&tls.Config{Certificates: []tls.Certificate{good}, MaxVersion: tls.VersionTLS11}), because(v1alpha1.FailureTLS)},
		"it speaks TLS 1.2":       {serve(&tls.Config{Certificates: []tls.Certificate{good}, MaxVersion: tls.VersionTLS12}), outcome{verdict: failed, reason: v1alpha1.FailureHTTPStatus, status: 404}},
		"it knows no good cipher": {serve(&tls.Config{Certificates: []tls.Certificate{good}, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_RC4_128_SHA}}), because(v1alpha1.FailureTLS)},
		"it wants a certificate, TLS 1.2": {serve(&tls.Config{
			Certificates: []tls.Certificate{good}, MaxVersion: tls.VersionTLS12, ClientAuth: tls.RequireAnyClientCert,
		}), because(v1alpha1.FailureTLS)},
		"it wants a certificate, TLS 1.3": {serve(&tls.Config{
			Certificates: []tls.Certificate{good}, ClientAuth: tls.RequireAnyClientCert,
		}), because(v1alpha1.FailureTLS)},
		"it speaks HTTP": {func(t *testing.T) string { return "https" + testkit.NewReceiver(t).URL()[len("http"):] }, because(v1alpha1.FailureTLS)},
		"it speaks SSH": {onTLSPort(func(connection net.Conn) {
			_, _ = io.WriteString(connection, "SSH-2.0-OpenSSH\r\n")
			holdIt(connection)
		}), because(v1alpha1.FailureTLS)},
		"it hangs in the handshake":      {onTLSPort(holdIt), because(v1alpha1.FailureTimeout)},
		"it closes in the handshake":     {onTLSPort(closeIt), because(v1alpha1.FailureConnectionBroken)},
		"it resets it, in the handshake": {onTLSPort(resetIt), because(v1alpha1.FailureConnectionBroken)},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(patiently(row.want, func(timeout time.Duration) outcome {
				return callOnce(t, Options{Guard: toReceivers, RootCAs: authority.Pool()}, row.url(t), timeout)
			})).To(Equal(row.want))
		})
	}
}

// A connection of HTTP/2 that dies without a word is given up, and calls go on by another.
func TestSilentConnectionIsGivenUp(t *testing.T) {
	g := NewWithT(t)
	authority := testkit.NewAuthority(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		g.Expect(r.ProtoMajor).To(Equal(2))
	}))
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{Certificates: []tls.Certificate{authority.IssuePair(t, nil)}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	address, silence := forgetful(t, server.Listener.Addr().String())
	c := newTestCaller(t, Options{Guard: toReceivers, RootCAs: authority.Pool()})
	client, err := c.clients.of(t.Context(), &subscription{})
	g.Expect(err).NotTo(HaveOccurred())
	settings := client.Transport.(callTransport).HTTP2
	g.Expect(*settings).To(Equal(http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout}))
	settings.SendPingTimeout, settings.PingTimeout = 100*time.Millisecond, 100*time.Millisecond

	call := func(timeout time.Duration) outcome {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address, nil)
		g.Expect(err).NotTo(HaveOccurred())
		o, _ := c.send(client, request)
		return o
	}
	delivers := outcome{verdict: delivered, status: http.StatusOK}
	g.Expect(patiently(delivers, call)).To(Equal(delivers))
	silence()
	g.Expect(call(500 * time.Millisecond).verdict).To(Equal(failed))
	g.Eventually(call, patience).WithArguments(500 * time.Millisecond).Should(Equal(delivers))
}

// forgetful forwards connections to an address, as a NAT does. silence has it forget
// those there are: it keeps them, and forwards no byte more.
func forgetful(t *testing.T, to string) (address string, silence func()) {
	t.Helper()
	var (
		mu    sync.Mutex
		quiet = make(chan struct{})
	)
	forward := func(into io.Writer, from net.Conn, quiet <-chan struct{}) {
		buffer := make([]byte, 32<<10)
		for {
			n, err := from.Read(buffer)
			if err != nil {
				return
			}
			select {
			case <-quiet: // read, and dropped
			default:
				_, _ = into.Write(buffer[:n])
			}
		}
	}
	address = listen(t, func(near net.Conn) {
		defer func() { _ = near.Close() }()
		far, err := new(net.Dialer).DialContext(context.WithoutCancel(t.Context()), "tcp", to)
		if err != nil {
			return
		}
		mu.Lock()
		forgotten := quiet
		mu.Unlock()
		var answers sync.WaitGroup
		answers.Go(func() { forward(near, far, forgotten) })
		forward(far, near, forgotten)
		_ = far.Close()
		answers.Wait()
	})
	return address, func() {
		mu.Lock()
		defer mu.Unlock()
		close(quiet)
		quiet = make(chan struct{})
	}
}

// selfSigned starts a server whose certificate names itself as who signed it.
func selfSigned(t *testing.T) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// listen takes connections and leaves each to a function. It returns its address.
func listen(t *testing.T, then func(net.Conn)) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { then(connection) })
		}
	})
	t.Cleanup(func() { _ = listener.Close(); serving.Wait() })
	return listener.Addr().String()
}

// A receiver may close a connection that nobody uses, just as it is used again.
// That is no failed attempt.
func TestConnectionThatIsClosedWhileIdle(t *testing.T) {
	var connections atomic.Int32
	address := listen(t, func(connection net.Conn) {
		connections.Add(1)
		reader := bufio.NewReader(connection)
		if request, err := http.ReadRequest(reader); err == nil {
			_, _ = io.Copy(io.Discard, request.Body)
			_, _ = io.WriteString(connection, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			_, _ = reader.ReadByte() // of the next call
		}
		_ = connection.Close()
	})
	secret := signingSecret(t)
	c := newTestCaller(t, Options{Guard: toReceivers, Secrets: plane.Client})
	for range 3 {
		NewWithT(t).Expect(attemptAt(t, c, secret, "http://"+address, patience)).To(Equal(outcome{verdict: delivered, status: 200}))
	}
	NewWithT(t).Expect(connections.Load()).To(BeEquivalentTo(3))
}
