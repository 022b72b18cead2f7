package ingress_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/ingress"
)

func TestTakenPortIsNamed(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	err := ingress.Run(t.Context(), ingress.Options{Address: f.address, Registerer: prometheus.NewRegistry()})
	g.Expect(err).To(MatchError(HavePrefix("listen on " + f.address + ": ")))
	g.Expect(err).To(MatchError(ContainSubstring("address already in use")))
}

func TestRunListensOnAddress(t *testing.T) {
	g := NewWithT(t)
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	logs := &logBuffer{}
	go func() {
		stopped <- ingress.Run(withLogs(ctx, logs), ingress.Options{Address: "127.0.0.1:0", Registerer: prometheus.NewRegistry()})
	}()
	g.Eventually(logs.String).Should(ContainSubstring(`"listening" "address"="127.0.0.1:`))
	cancel()
	g.Eventually(stopped).Should(Receive(BeNil()))
}

func TestReadyOnlyWhenCachesAndStoreAre(t *testing.T) {
	g := NewWithT(t)
	var missing atomic.Pointer[string]
	missing.Store(new("the caches are not filled"))
	f := start(t, func(options *ingress.Options) {
		options.Ready = func(context.Context) error {
			if text := missing.Load(); text != nil {
				return errors.New(*text)
			}
			return nil
		}
	})
	got := f.send(t, request{method: "GET", path: "/readyz"})
	g.Expect(got.status).To(Equal(http.StatusServiceUnavailable))
	g.Expect(got.body).To(Equal("not ready: the caches are not filled\n"))
	g.Expect(f.send(t, request{method: "GET", path: "/healthz"}).status).To(Equal(http.StatusOK))

	missing.Store(nil)
	got = f.send(t, request{method: "GET", path: "/readyz"})
	g.Expect(got.status).To(Equal(http.StatusOK))
	g.Expect(got.body).To(Equal("ok\n"))
	g.Expect(f.send(t, request{method: "HEAD", path: "/readyz"}).status).To(Equal(http.StatusOK))
}

// Anybody can ask whether ingress is ready, at once and without waiting for the
// answer. The store is looked at once at a time, and to the end.
func TestProbesShareTheirLookAtTheStore(t *testing.T) {
	g := NewWithT(t)
	var atOnce atomic.Int32
	looking, proceed := make(chan struct{}, 100), make(chan struct{})
	f := start(t, func(options *ingress.Options) {
		options.Ready = func(ctx context.Context) error {
			if atOnce.Add(1) > 1 {
				return errors.New("two look at once")
			}
			defer atOnce.Add(-1)
			looking <- struct{}{}
			<-proceed
			if errors.Is(ctx.Err(), context.Canceled) {
				return errors.New("the look was broken off")
			}
			return nil
		}
	})
	release := sync.OnceFunc(func() { close(proceed) })
	defer release()
	const probe = "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"
	gone := f.crowd(t, 1, probe)[0]
	<-looking
	g.Expect(gone.Close()).To(Succeed())
	waiting := f.crowd(t, 50, probe)
	release()
	for _, connection := range waiting {
		g.Expect(readAnswer(t, connection)).To(Equal(answer{status: 200, body: "ok\n"}))
	}
}

// dial opens a connection by hand, for what an HTTP client can't do.
func (f *fixture) dial(t *testing.T) net.Conn {
	t.Helper()
	connection, err := new(net.Dialer).DialContext(t.Context(), "tcp", f.address)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = connection.Close() }) // the server may have been first
	return connection
}

func readAnswer(t *testing.T, connection net.Conn) answer {
	t.Helper()
	g := NewWithT(t)
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	g.Expect(err).NotTo(HaveOccurred())
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	g.Expect(err).NotTo(HaveOccurred())
	return answer{status: response.StatusCode, body: string(body)}
}

func (f *fixture) awaitClosedPort(t *testing.T) {
	t.Helper()
	NewWithT(t).Eventually(func() error {
		connection, err := new(net.Dialer).DialContext(t.Context(), "tcp", f.address)
		if err == nil {
			_ = connection.Close() // only whether it opens counts
		}
		return err
	}).Should(HaveOccurred())
}

func TestBodyThatBreaksOff(t *testing.T) {
	f := start(t)
	for name, row := range map[string]struct {
		rest    string
		status  int
		message string
	}{
		"fewer bytes than announced": {"Content-Length: 9\r\n\r\nsrc=a", 499, "the caller did not wait for the answer"},
		"chunks that none are":       {"Transfer-Encoding: chunked\r\n\r\n5\r\nsrc=a\r\nx\r\n", 400, "the body could not be read to its end"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			connection := f.dial(t)
			_, err := fmt.Fprintf(connection, "POST %s?%s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\n%s",
				contactPath, encode(f.with("max@example.com")), formType, row.rest)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(connection.(*net.TCPConn).CloseWrite()).To(Succeed())
			got := readAnswer(t, connection)
			g.Expect(got.status).To(Equal(row.status))
			g.Expect(got.body).To(ContainSubstring(row.message))
			g.Expect(f.contact(t, "max@example.com")).To(BeNil())
		})
	}
}

func TestShutdownFinishesRunningRequests(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	body := encode(f.with("max@example.com"))
	running := f.dial(t)
	_, err := fmt.Fprintf(running, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n",
		contactPath, formType, len(body))
	g.Expect(err).NotTo(HaveOccurred())
	proceed := make([]byte, len("HTTP/1.1 100 Continue\r\n\r\n"))
	_, err = io.ReadFull(running, proceed) // the handler has begun to read
	g.Expect(err).NotTo(HaveOccurred())

	f.stop()
	f.awaitClosedPort(t)
	_, err = io.WriteString(running, body)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(readAnswer(t, running).status).To(Equal(http.StatusOK))
	g.Eventually(f.stopped).WithTimeout(10 * time.Second).Should(Receive(BeNil()))
	g.Expect(f.contact(t, "max@example.com")).NotTo(BeNil())
}

func TestNotReadyOnceShutdownBegan(t *testing.T) {
	g := NewWithT(t)
	asked, proceed := make(chan struct{}), make(chan struct{})
	f := start(t, func(options *ingress.Options) {
		options.Ready = func(context.Context) error {
			close(asked)
			<-proceed
			return nil
		}
	})
	probe := f.dial(t)
	_, err := io.WriteString(probe, "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
	g.Expect(err).NotTo(HaveOccurred())
	<-asked
	f.stop()
	f.awaitClosedPort(t)
	close(proceed)
	g.Expect(readAnswer(t, probe)).To(Equal(answer{status: 503, body: "not ready: shutting down\n"}))
}

func TestShutdownEndsAtItsTimeout(t *testing.T) {
	g := NewWithT(t)
	f := start(t, func(options *ingress.Options) { options.ShutdownTimeout = time.Millisecond })
	stuck := f.dial(t)
	_, err := fmt.Fprintf(stuck, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n", contactPath, formType)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = io.ReadFull(stuck, make([]byte, 1))
	g.Expect(err).NotTo(HaveOccurred())
	f.stop()
	g.Eventually(f.stopped).WithTimeout(10 * time.Second).Should(Receive(MatchError(
		"finish running requests within 1ms: context deadline exceeded")))
}

func TestMetrics(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	text := f.metrics(t)
	for _, line := range []string{
		`postbus_ingress_requests_total{code="200"} 0`, `postbus_ingress_requests_total{code="503"} 0`,
		`postbus_ingress_request_duration_seconds_count 0`, `postbus_ingress_unknown_parameters_total 0`,
		`postbus_ingress_contacts_total{result="created"} 0`, `postbus_ingress_contacts_total{result="updated"} 0`,
		`postbus_ingress_contacts_total{result="unchanged"} 0`,
	} {
		g.Expect(text).To(ContainSubstring(line + "\n"))
	}
	f.send(t, request{query: encode(f.with("max@example.com", "utm_source", "a", "utm_medium", "b"))})
	f.send(t, request{query: encode(f.with("max@example.com", "sync_mode", "1", "standard_ZIP", "1"))})
	f.send(t, request{query: encode(f.with("max@example.com"))})
	f.send(t, request{query: "key=unknown&a=b"})
	f.send(t, request{method: "GET", path: "/healthz"})
	text = f.metrics(t)
	for _, line := range []string{
		`postbus_ingress_requests_total{code="200"} 3`, `postbus_ingress_requests_total{code="401"} 1`,
		`postbus_ingress_request_duration_seconds_count 4`, `postbus_ingress_unknown_parameters_total 2`,
		`postbus_ingress_contacts_total{result="created"} 1`, `postbus_ingress_contacts_total{result="updated"} 1`,
		`postbus_ingress_contacts_total{result="unchanged"} 1`,
	} {
		g.Expect(text).To(ContainSubstring(line + "\n"))
	}
}

func TestAccessLog(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	f.send(t, request{query: encode(f.with("max@example.com"))})
	g.Eventually(f.logs.String).Should(MatchRegexp(
		`"level"=1 "msg"="answered a request" "method"="POST" "path"="/webhooks/contacts/email" "status"=200 "duration"=`))
	g.Expect(f.logs.String()).NotTo(ContainSubstring("max@example.com"))
}

// TestKeyLeaksNowhere makes every mistake that a caller with a good key can make.
func TestKeyLeaksNowhere(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	good := "key=" + f.key + "&email=max@example.com"
	mistakes := []request{
		{query: good},
		{query: good + "&key=" + f.key},
		{query: good + "%zz"},
		{query: good + "&a=%ff"},
		{query: good + ";"},
		{query: good, method: "GET"},
		{query: good, header: map[string]string{"Origin": "https://example.com"}},
		{query: good, path: "/" + contactPath},
		{path: "/" + f.key},
		{path: contactPath + "%3F" + good},
		{path: contactPath + "/" + f.key},
		{contentType: "text/plain", body: good},
		{contentType: jsonType, body: good},
		{contentType: formType, body: good + "&doi=x"},
		{contentType: jsonType, body: `{"key":"` + f.key + `"`},
		{contentType: jsonType, body: `{"key":["` + f.key + `"]}`},
		{contentType: jsonType, body: `{"key":"` + f.key + `","key":"` + f.key + `"}`},
		{query: good + "&standard_GENDER=" + f.key},
		{query: good + "&external_id=" + strings.Repeat(f.key, 20)},
		{query: "key=" + f.key + "&email=" + f.key},
		{query: good, header: map[string]string{"Content-Encoding": f.key}, body: "x"},
		{query: good + "&doi=true&doimailing=" + f.key},
		{query: good + "&permission=" + f.key},
	}
	var shown strings.Builder
	for _, mistake := range mistakes {
		got := f.send(t, mistake)
		fmt.Fprintln(&shown, got.status, got.body, got.header)
	}
	slow := f.issue(t, "slow", func(key *v1alpha1.ApiKey) { key.Spec.RateLimit.RequestsPerSecond = 1 })
	for range 2 {
		got := f.send(t, request{query: "email=max@example.com&key=" + slow})
		fmt.Fprintln(&shown, got.status, got.body, got.header)
	}
	g.Expect(shown.String()).To(ContainSubstring("RateLimited"))
	f.closeStore(t)
	got := f.send(t, request{query: good})
	fmt.Fprintln(&shown, got.body, got.header, f.metrics(t))
	f.stop()
	g.Eventually(f.stopped).Should(Receive())
	for _, key := range []string{f.key, slow} {
		g.Expect(shown.String()).NotTo(ContainSubstring(key))
		g.Expect(f.logs.String()).NotTo(ContainSubstring(key))
	}
	g.Expect(f.logs.String()).To(ContainSubstring("answered a request"))
}
