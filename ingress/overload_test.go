package ingress_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/ingress"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// hold keeps the store busy until it is released, so that calls pile up.
func (f *fixture) hold(t *testing.T) (release func()) {
	t.Helper()
	busy, proceed := make(chan struct{}), make(chan struct{})
	var holding sync.WaitGroup
	holding.Go(func() {
		_, err := f.store.Change(t.Context(), store.Change{
			List: f.list(), Address: "busy@example.com",
			Apply: func(*contact.Contact) contact.Decision {
				close(busy)
				<-proceed
				return contact.Decision{}
			},
		})
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
	})
	<-busy
	return sync.OnceFunc(func() {
		close(proceed)
		holding.Wait()
	})
}

// busy tells of each call that has come to the store.
type busy struct {
	store.Contacts
	came chan struct{}
}

func (b busy) Change(ctx context.Context, change store.Change) (contact.Decision, error) {
	b.came <- struct{}{}
	return b.Contacts.Change(ctx, change)
}

func TestOverloadAnswers503(t *testing.T) {
	g := NewWithT(t)
	atStore := busy{came: make(chan struct{}, 10)}
	f := start(t, func(options *ingress.Options) {
		options.MaxRequests = 1
		atStore.Contacts = options.Contacts
		options.Contacts = atStore
	})
	release := f.hold(t)
	defer release()
	statuses := make(chan int, 1)
	go func() { statuses <- f.good(t) }()
	<-atStore.came // one that ingress still reads the body of would make room for the next

	got := f.send(t, request{query: encode(f.with("max@example.com"))})
	expectRefusal(t, got, http.StatusServiceUnavailable, "too many calls at the moment, nothing was stored")
	g.Expect(got.header.Get("Retry-After")).To(Equal("5"))
	g.Expect(f.send(t, request{method: "GET", path: "/healthz"}).status).To(Equal(http.StatusOK))
	g.Expect(f.turnedAway(t, "requests")).To(Equal(1))

	release()
	g.Expect(<-statuses).To(Equal(http.StatusOK))
	g.Expect(f.good(t)).To(Equal(http.StatusOK))
}

// TestRequestsOfOneKeyAtATime has a key with as many requests at the store as it may
// have, and its namespace, too.
func TestRequestsOfOneKeyAtATime(t *testing.T) {
	g := NewWithT(t)
	atStore := busy{came: make(chan struct{}, 10)}
	f := start(t, func(options *ingress.Options) {
		options.MaxRequests = 4
		atStore.Contacts = options.Contacts
		options.Contacts = atStore
	})
	other := f.issue(t, "shop", nil)
	post := func(key string) request { return request{query: "email=ada@example.com&key=" + key} }
	release := f.hold(t)
	defer release()
	statuses := make(chan int, 3)
	for _, key := range []string{f.key, f.key, other} {
		go func() { statuses <- f.send(t, post(key)).status }()
		<-atStore.came
	}
	for key, message := range map[string]string{
		f.key: "the api key is at its limit of 2 requests at a time",
		other: "the api key's namespace is at its limit of 3 requests at a time",
	} {
		got := f.send(t, post(key))
		body := expectRefusal(t, got, http.StatusTooManyRequests, message)
		g.Expect(body.Error.Code).To(Equal("TooManyAtATime"))
		g.Expect(got.header.Get("Retry-After")).To(Equal("5"))
	}
	g.Expect(f.turnedAway(t, "requests_per_key")).To(Equal(1))
	g.Expect(f.turnedAway(t, "requests_per_namespace")).To(Equal(1))
	release()
	for range 3 {
		g.Expect(<-statuses).To(Equal(http.StatusOK))
	}
}

func TestConnectionsAtWorkAreKept(t *testing.T) {
	g := NewWithT(t)
	atWork, proceed := make(chan struct{}, 10), make(chan struct{})
	f := start(t, func(options *ingress.Options) {
		options.MaxConnections = 1
		options.Now = func() time.Time {
			atWork <- struct{}{}
			<-proceed
			return now
		}
	})
	release := sync.OnceFunc(func() { close(proceed) })
	defer release()
	working := f.crowd(t, 1, "POST "+contactPath+"?"+encode(f.with("max@example.com"))+" HTTP/1.1\r\nHost: x\r\n\r\n")[0]
	<-atWork
	_, err := f.dial(t).Read(make([]byte, 1))
	g.Expect(err).To(Or(MatchError(io.EOF), MatchError(syscall.ECONNRESET)), "a newcomer is turned away")
	release()
	g.Expect(readAnswer(t, working).status).To(Equal(http.StatusOK))
}

func TestSlowStreamMakesRoom(t *testing.T) {
	g := NewWithT(t)
	f, _ := startTLS(t, func(options *ingress.Options) { options.MaxRequests = 2 })
	transport := f.http2(t)
	status := make(chan int, 2)
	var writers []io.Closer
	for range cap(status) {
		never, writer := io.Pipe()
		writers = append(writers, writer)
		go func() { status <- f.postBody(t, transport, "", never).StatusCode }()
		_, err := io.WriteString(writer, "src=a")
		g.Expect(err).NotTo(HaveOccurred())
	}
	g.Eventually(func() int {
		quick := f.postBody(t, transport, encode(f.with("good@example.com")), strings.NewReader(""))
		g.Expect(quick.StatusCode).To(Equal(http.StatusOK))
		return f.turnedAway(t, "requests")
	}).Should(BeNumerically(">", 0))
	g.Expect(<-status).To(Equal(http.StatusServiceUnavailable))
	for _, writer := range writers {
		g.Expect(writer.Close()).To(Succeed())
	}
	g.Expect(<-status).To(Or(Equal(http.StatusUnauthorized), Equal(http.StatusServiceUnavailable)))
}

// TestImportsAtATime has a key with as many imports as it may have, each alive and
// slow (finding 14: eight of one key locked out the imports of all others).
func TestImportsAtATime(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	post := func(key string) string {
		return "POST " + importPath + "?key=" + key + " HTTP/1.1\r\nHost: x\r\nContent-Type: " + ndjsonType +
			"\r\nTransfer-Encoding: chunked\r\n\r\n"
	}
	chunk := func(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }
	batch := func(number int) string {
		var lines strings.Builder
		for n := range 256 { // a batch, whose results come while the import goes on
			fmt.Fprintf(&lines, "{\"email\":\"ada.%d.%d@example.com\"}\n", number, n)
		}
		return chunk(lines.String())
	}
	key := f.importer(t)
	running := make([]*bufio.Scanner, 2)
	connections := make([]net.Conn, len(running))
	for i := range running {
		connections[i] = f.crowd(t, 1, post(key)+batch(i))[0]
		running[i] = bufio.NewScanner(connections[i])
		for running[i].Scan() && !strings.Contains(running[i].Text(), `"line":256,`) {
			g.Expect(running[i].Text()).NotTo(ContainSubstring("error"))
		}
	}
	for _, refused := range f.crowd(t, 6, post(key)) {
		got := readAnswer(t, refused)
		g.Expect(got.status).To(Equal(http.StatusTooManyRequests))
		g.Expect(got.body).To(ContainSubstring("the api key is at its limit of 2 imports at a time"))
	}
	g.Expect(f.turnedAway(t, "imports_per_key")).To(Equal(6))

	other := f.issue(t, "other-importer", func(key *v1alpha1.ApiKey) {
		key.Spec.Scopes = []v1alpha1.ApiKeyScope{v1alpha1.ScopeContactsImport}
	})
	lines, last := f.importFile(t, request{query: "key=" + other, contentType: csvType, body: "email\neve@example.com\n"})
	g.Expect(outcomes(lines)).To(Equal([]string{"1 created"}), "another key's import runs")
	g.Expect(*last.Complete).To(BeTrue())

	large := forms["JSON"](f.with("max@example.com", "utm_source", strings.Repeat("x", 100<<10)))
	var others sync.WaitGroup
	for range 8 {
		others.Go(func() { g.Expect(f.send(t, large).status).To(Equal(http.StatusOK), "a large body is no import") })
	}
	others.Wait()
	g.Expect(f.turnedAway(t, "large_bodies")).To(BeZero())

	for i, connection := range connections {
		_, err := io.WriteString(connection, chunk("{\"email\":\"last@example.com\"}\n")+"0\r\n\r\n")
		g.Expect(err).NotTo(HaveOccurred())
		for running[i].Scan() && !strings.Contains(running[i].Text(), `"complete"`) {
		}
		g.Expect(running[i].Text()).To(Equal(`{"complete":true,"lines":257,"failed":0}`), "nobody cut it off")
	}
}
