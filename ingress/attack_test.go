package ingress_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/net/http2"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/ingress"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/test/attack/stranger"
)

// TestAttacksOverHTTP2 has the attacks of test/attack for a number of requests
// (findings 1 and 2).
func TestAttacksOverHTTP2(t *testing.T) {
	for name, attack := range stranger.Attacks {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			f, _ := startTLS(t)
			f.attack(t, func() {
				// Ingress may keep connections that wait open for longer than this lasts.
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				sent, err := attack(ctx, f.address, 4000)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(sent).To(BeNumerically(">", 500))
			})
		})
	}
}

// TestLargeHeadersAreCountedByStream has 96 large headers on twelve connections, where
// 64 can be held.
func TestLargeHeadersAreCountedByStream(t *testing.T) {
	g := NewWithT(t)
	f, _ := startTLS(t)
	for range 12 {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		large := strings.Repeat("a", 8<<10)
		transport := f.http2(t)
		// So that there is a connection: otherwise each request would open one.
		f.postBody(t, transport, encode(f.with("good@example.com")), strings.NewReader(""))
		for range 8 {
			body, writer := io.Pipe()
			defer func() { _ = writer.Close() }()
			sent, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+f.address+contactPath, body)
			g.Expect(err).NotTo(HaveOccurred())
			sent.Header.Set("Content-Type", formType)
			sent.Header.Set("X-Large", large)
			go func() {
				if response, err := transport.RoundTrip(sent); err == nil {
					_ = response.Body.Close()
				}
			}()
		}
	}
	f.awaitTurnedAway(t, "large_headers", 32)
	g.Expect(f.good(t)).To(Equal(http.StatusOK))
}

// TestLargeFrames has as many connections as there may be announce a frame of 1 MiB
// and send almost all of it.
func TestLargeFrames(t *testing.T) {
	g := NewWithT(t)
	f, _ := startTLS(t)
	var frame bytes.Buffer
	frame.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&frame, nil)
	g.Expect(framer.WriteSettings()).To(Succeed())
	g.Expect(framer.WriteRawFrame(http2.FrameType(0xfa), 0, 0, make([]byte, 1<<20-1))).To(Succeed())
	f.attack(t, func() {
		for range 500 {
			connection := tls.Client(f.dial(t), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
			g.Expect(connection.HandshakeContext(t.Context())).To(Succeed())
			_, _ = connection.Write(frame.Bytes()[:frame.Len()-1]) // it may be closed already
		}
	})
}

// neverReads connects with a buffer that holds next to nothing.
func (f *fixture) neverReads(t *testing.T, text string) net.Conn {
	t.Helper()
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(descriptor uintptr) {
			_ = syscall.SetsockoptInt(int(descriptor), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 2048)
		})
	}}
	connection, err := dialer.DialContext(t.Context(), "tcp", f.address)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = connection.Close() })
	_, _ = io.WriteString(connection, text) // it may be closed already
	return connection
}

// TestAnswersThatNobodyReads has strangers ask for page after page and read none, so
// that each connection has a request whose answer has no room in it.
func TestAnswersThatNobodyReads(t *testing.T) {
	const size = 8 // each takes megabytes of pages until there is no room
	f := start(t, func(options *ingress.Options) { options.MaxRequests = 2 })
	pages := strings.Repeat("GET /confirm/x HTTP/1.1\r\nHost: x\r\n\r\n", 5000)
	f.attack(t, func() {
		for range 2 * size {
			go func(connection net.Conn) { _, _ = io.WriteString(connection, pages) }(f.neverReads(t, "")) // it may never take all of them
		}
		last := ""
		NewWithT(t).Eventually(func() bool { // nothing is answered any more
			seen := regexp.MustCompile(`requests_total\{code="404"\} [0-9]+`).FindString(f.metrics(t))
			stuck := seen == last
			last = seen
			return stuck
		}).WithPolling(500 * time.Millisecond).Should(BeTrue())
		for range 20 {
			NewWithT(t).Expect(f.good(t)).To(Equal(http.StatusOK))
		}
	})
}

// fill stores contacts that make a list of some megabytes.
func (f *fixture) fill(t *testing.T) {
	t.Helper()
	changes := make([]store.Change, 3000)
	for n := range changes {
		save := contact.Save{Time: now, EventSource: contact.SourceConsole, StandardFields: map[string]string{}}
		for _, field := range []string{"ADDRESS", "CITY", "FULLNAME", "ORGANIZATION", "REGION", "STATE", "TITLE", "SALUTATION"} {
			save.StandardFields[field] = strings.Repeat("x", 250)
		}
		save.Address.Display = fmt.Sprintf("ada.%04d@example.com", n)
		changes[n] = store.Change{List: f.list(), Address: save.Address.Display, Apply: save.Decide}
	}
	for batch := range (len(changes) + 499) / 500 {
		_, err := f.store.ChangeAll(t.Context(), changes[batch*500:min(len(changes), batch*500+500)])
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
	}
}

func exportOf(key string) string {
	return "GET /v1/lists/newsletter/contacts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key + "\r\n\r\n"
}

// TestSlowExports has one key ask for 300 exports that it never reads, beside the
// posts of another (finding 7), and cuts off those that began.
func TestSlowExports(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	f := start(t)
	f.fill(t)
	reader := f.reader(t)
	for range 300 {
		f.neverReads(t, exportOf(reader))
	}
	f.awaitTurnedAway(t, "exports_per_key", 296)
	for range 50 {
		g.Expect(f.good(t)).To(Equal(http.StatusOK))
	}
	other := f.issue(t, "other-reader", func(key *v1alpha1.ApiKey) {
		key.Spec.Scopes = []v1alpha1.ApiKeyScope{v1alpha1.ScopeContactsRead}
	})
	g.Expect(strings.Count(f.read(t, "/v1/lists/newsletter/contacts", other).body, "\n")).To(Equal(3001), "another key's export runs")
	f.awaitTurnedAway(t, "export_rate", 4) // once they are behind for as long as they may be
	g.Expect(f.read(t, "/v1/lists/newsletter/contacts", reader).status).To(Equal(http.StatusOK), "there is room again")
}

// TestExportsOfANamespace has three keys of a namespace hold all exports that it may
// have, none of which is read.
func TestExportsOfANamespace(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	f.fill(t)
	key := func(name string) string {
		return f.issue(t, name, func(key *v1alpha1.ApiKey) {
			key.Spec.Scopes = []v1alpha1.ApiKeyScope{v1alpha1.ScopeContactsRead}
		})
	}
	for _, reader := range []string{key("a"), key("b"), key("c")} {
		for range 4 {
			connection := f.neverReads(t, exportOf(reader))
			_, err := io.ReadFull(connection, make([]byte, 12)) // it has begun
			g.Expect(err).NotTo(HaveOccurred())
		}
	}
	got := f.read(t, "/v1/lists/newsletter/contacts", key("d"))
	expectRefusal(t, got, http.StatusTooManyRequests, "the api key's namespace is at its limit of 12 exports at a time")
}

// TestSlowImportIsCutOff has an upload that trickles, and one whose results are not
// read. It takes as long as an import may be behind its minimum rate.
func TestSlowImportIsCutOff(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	f := start(t)
	post := "POST " + importPath + "?key=" + f.importer(t) + " HTTP/1.1\r\nHost: x\r\nContent-Type: " + ndjsonType +
		"\r\nTransfer-Encoding: chunked\r\n\r\n"
	trickling := f.crowd(t, 1, post)[0]
	done := make(chan struct{})
	go func() {
		ticker := time.NewTicker(100 * time.Millisecond) // ten lines a second, as in finding 14
		defer ticker.Stop()
		for n := 0; ; n++ {
			line := fmt.Sprintf("{\"email\":\"ada.%d@example.com\"}\n", n)
			if _, err := fmt.Fprintf(trickling, "%x\r\n%s\r\n", len(line), line); err != nil {
				return
			}
			select {
			case <-ticker.C:
			case <-done:
				return
			}
		}
	}()
	defer close(done)
	answered, err := io.ReadAll(trickling) // to its end: the connection is closed
	g.Expect(err == nil || isBrokenOff(err)).To(BeTrue())
	g.Expect(string(answered)).To(ContainSubstring("the import is slower than the limit: it fell more than 30s behind 4 KiB a second"))
	g.Expect(f.turnedAway(t, "import_rate")).To(Equal(1))
}
