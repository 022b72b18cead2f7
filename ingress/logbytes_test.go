package ingress_test

import (
	"encoding/json"
	"fmt"
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
	"postbus.dev/postbus/internal/link"
	"postbus.dev/postbus/internal/testkit"
)

// The size of an event of a wide contact: 40 fields of 255 characters of four bytes.
const (
	wideFields = 40
	wideSize   = wideFields * 255 * 4
)

// logLimit is a limit of the log that a few wide contacts reach.
const logLimit = 1 << 20

// limitLog has ingress hold namespaces to logLimit, and write at once what it counts.
func limitLog(options *ingress.Options) {
	options.MaxLogBytes, options.LogBytes = logLimit, options.Contacts.(ingress.LogByteCounter)
	options.KeyUseInterval = 10 * time.Millisecond
}

// wide makes a list of wide contacts, and returns a key for it.
func (f *fixture) wide(t *testing.T, scopes ...v1alpha1.ApiKeyScope) (key string) {
	t.Helper()
	list := testkit.List(f.namespace, "wide")
	for n := range wideFields {
		list.Spec.CustomFields = append(list.Spec.CustomFields, v1alpha1.CustomField{Name: fmt.Sprintf("field%d", n), Type: v1alpha1.CustomFieldString})
	}
	f.declare(t, list)
	return f.issue(t, "wide", func(key *v1alpha1.ApiKey) {
		key.Spec.ListRef.Name, key.Spec.Scopes = list.Name, scopes
	})
}

// postWide posts a wide contact and returns the answer.
func (f *fixture) postWide(t *testing.T, key, email string) answer {
	t.Helper()
	given := map[string]string{"email": email, "key": key}
	for n := range wideFields {
		given[fmt.Sprintf("custom_field%d", n)] = strings.Repeat("\U0001F4EE", 255)
	}
	body, err := json.Marshal(given)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return f.send(t, request{contentType: jsonType, body: string(body)})
}

const overLimit = "has reached its limit of 1Mi in the event log for today (UTC), " +
	"set by --max-log-bytes-per-namespace-per-day; unsubscribing, deleting and forgetting still work"

// TestLogIsLimitedByNamespace has one key post 5,000 wide contacts (findings 8 and 19):
// 200 MB of log.
func TestLogIsLimitedByNamespace(t *testing.T) {
	g := NewWithT(t)
	f := start(t, limitLog)
	key := f.wide(t, v1alpha1.ScopeContactsWrite)
	var accepted, refused, next atomic.Int64
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for n := next.Add(1); n <= 5000; n = next.Add(1) {
				if got := f.postWide(t, key, fmt.Sprintf("ada.%d@example.com", n)); got.status == http.StatusOK {
					accepted.Add(1)
				} else if got.status == http.StatusTooManyRequests && strings.Contains(got.body, "LogLimitReached") {
					refused.Add(1)
				}
			}
		})
	}
	callers.Wait()
	g.Expect(accepted.Load()).To(And(BeNumerically(">=", logLimit/wideSize), BeNumerically("<=", logLimit/wideSize+4)))
	g.Expect(accepted.Load() + refused.Load()).To(Equal(int64(5000)))
	g.Expect(f.turnedAway(t, "log_bytes")).To(Equal(int(refused.Load())))
	g.Expect(f.metrics(t)).To(ContainSubstring(`postbus_ingress_log_bytes_total{namespace="` + f.namespace + `"} 1.`))
}

// TestWhoWantsToLeaveIsNotRefused has a namespace at its limit.
func TestWhoWantsToLeaveIsNotRefused(t *testing.T) {
	g := NewWithT(t)
	f := start(t, limitLog)
	for _, email := range []string{"eve@example.com", "ada@example.com"} {
		g.Expect(f.send(t, request{query: encode(f.with(email))}).status).To(Equal(http.StatusOK))
	}
	asked := f.link(link.Confirm, f.subscriber(t, "grace@example.com"))
	leaving := f.subscriber(t, "max@example.com")
	profile, unsubscribe := f.link(link.Profile, leaving), f.link(link.Unsubscribe, leaving)
	wide := f.wide(t, v1alpha1.ScopeContactsWrite)
	for n := range logLimit/wideSize + 1 {
		f.postWide(t, wide, fmt.Sprintf("ada.%d@example.com", n))
	}

	got := f.send(t, request{query: encode(f.with("new@example.com"))})
	body := expectRefusal(t, got, http.StatusTooManyRequests, "the namespace "+f.namespace+" "+overLimit)
	g.Expect(body.Error.Code).To(Equal("LogLimitReached"))
	g.Expect(got.header.Get("Retry-After")).To(Equal("50400"), "it is ten, and the day ends in fourteen hours")
	got = f.send(t, request{path: importPath, query: "key=" + f.importer(t), contentType: csvType, body: "email\neve@example.com\n"})
	expectRefusal(t, got, http.StatusTooManyRequests, "the namespace "+f.namespace+" "+overLimit)
	g.Expect(f.send(t, request{path: profile, contentType: formType, body: "standard_FIRSTNAME=Max"}).status).To(Equal(http.StatusTooManyRequests))

	remover := f.issue(t, "remover", func(key *v1alpha1.ApiKey) { key.Spec.Scopes = []v1alpha1.ApiKeyScope{v1alpha1.ScopeContactsRemove} })
	for path, query := range map[string]string{
		"/webhooks/contacts/unsubscribe": "email=eve@example.com",
		"/webhooks/contacts/delete":      "forget=true&email=ada@example.com",
	} {
		got := f.send(t, request{path: path, query: query + "&key=" + remover})
		g.Expect(got.status).To(Equal(http.StatusOK), got.body)
		g.Expect(got.body).To(ContainSubstring(`"removed":true`))
	}
	g.Expect(f.send(t, request{path: asked, contentType: formType, body: "confirm=1"}).status).To(Equal(http.StatusOK), "what was asked for can be confirmed")
	g.Expect(f.send(t, request{path: unsubscribe, contentType: formType, body: "reason=other"}).status).To(Equal(http.StatusOK))
	g.Expect(f.contact(t, "max@example.com")).To(BeNil())
}

// TestImportEndsAtTheLimitOfTheLog has a file that goes over it.
func TestImportEndsAtTheLimitOfTheLog(t *testing.T) {
	g := NewWithT(t)
	f := start(t, limitLog)
	key := f.wide(t, v1alpha1.ScopeContactsImport)
	var file strings.Builder
	for n := range 4 * logLimit / wideSize {
		given := map[string]string{"email": fmt.Sprintf("ada.%d@example.com", n)}
		for n := range wideFields {
			given[fmt.Sprintf("custom_field%d", n)] = strings.Repeat("\U0001F4EE", 255)
		}
		g.Expect(json.NewEncoder(&file).Encode(given)).To(Succeed())
	}
	lines, last := f.importFile(t, request{query: "events=true&key=" + key, contentType: ndjsonType, body: file.String(), chunked: true})
	g.Expect(*last.Complete).To(BeFalse())
	g.Expect(last.Error.Code).To(Equal("LogLimitReached"))
	g.Expect(lines).To(HaveLen(int(last.Lines)), "what came before is imported")
	g.Expect(last.Lines).To(And(BeNumerically(">=", logLimit/wideSize), BeNumerically("<", 3*logLimit/wideSize)))
}

// TestProcessesShareTheLimitOfTheLog has another ingress over the same store, as after
// a restart.
func TestProcessesShareTheLimitOfTheLog(t *testing.T) {
	g := NewWithT(t)
	f := start(t, limitLog)
	key := f.wide(t, v1alpha1.ScopeContactsWrite)
	for n := range logLimit/wideSize + 1 {
		f.postWide(t, key, fmt.Sprintf("ada.%d@example.com", n))
	}
	f.stop()
	g.Expect(<-f.stopped).To(Succeed())
	f.stopped <- nil

	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	g.Expect(err).NotTo(HaveOccurred())
	f.address = listener.Addr().String()
	options := ingress.Options{
		Listener: listener, AllowPlainHTTP: true, Objects: f.objects, Contacts: f.store, Reader: f.store, Bindings: f.store, KeyUses: f.store,
		Texts: f.store, Callbacks: f.store, LinkKeys: f.keys,
		Registerer: prometheus.NewRegistry(), Now: func() time.Time { return now },
	}
	limitLog(&options)
	again := make(chan error, 1)
	go func() { again <- ingress.Run(withLogs(t.Context(), f.logs), options) }()
	t.Cleanup(func() { g.Expect(<-again).To(Succeed()) })
	g.Eventually(func() int { return f.postWide(t, key, "late@example.com").status }).Should(Equal(http.StatusTooManyRequests))
	total, err := f.store.AddLogBytes(t.Context(), now, nil)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(total[f.namespace]).To(BeNumerically(">=", logLimit))
}
