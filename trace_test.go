package main

import (
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"

	. "github.com/onsi/gomega"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"postbus.dev/postbus/internal/testkit"
)

const traceparent = "traceparent"

// TestTraceFromContactToCallback follows a contact to its callback, by what the
// callback was sent and by what a collector got, while the process is started again
// between two attempts.
func TestTraceFromContactToCallback(t *testing.T) {
	g := NewWithT(t)
	collector := testkit.NewCollector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL())
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "100") // milliseconds
	i := newInstallation(t)
	receiver := testkit.NewReceiver(t)
	receiver.AnswerWith(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	objects := declare(t, receiver.URL())
	process := i.start()
	objects.waitUntilReady(t, i)
	const stranger = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	postTraced(t, i, objects.key, "ada@example.com", stranger)
	g.Eventually(receiver.Count, patience).Should(BeNumerically(">=", 1))
	process.signal(syscall.SIGTERM)

	receiver.Answer(http.StatusOK)
	before := receiver.Count()
	i.flags = append(i.flags, "--trusted-proxies=127.0.0.0/8")
	process = i.start()
	g.Eventually(receiver.Count, patience).Should(Equal(before + 1))
	calls := receiver.Calls()
	first, last := calls[0].Header.Get(traceparent), calls[before].Header.Get(traceparent)
	g.Expect(traceOf(first)).To(Equal(traceOf(last)), "attempts of two processes are of one trace")
	g.Expect(spanOf(first)).NotTo(Equal(spanOf(last)))
	g.Expect(traceOf(first)).NotTo(Equal(traceOf(stranger)))

	g.Eventually(func() int { return len(spansOf(collector, traceOf(first))["deliver"]) }, patience).Should(Equal(before + 1))
	spans := spansOf(collector, traceOf(first))
	call, commit := spans["POST /webhooks/contacts/email"][0], spans["commit"][0]
	g.Expect(call.Kind).To(Equal(tracepb.Span_SPAN_KIND_SERVER))
	g.Expect(call.ParentSpanId).To(BeEmpty())
	g.Expect(call.Links).To(HaveLen(1))
	g.Expect(hex.EncodeToString(call.Links[0].TraceId)).To(Equal(traceOf(stranger)))
	g.Expect(call.Attribute("postbus.list")).To(Equal("newsletter"))
	g.Expect(commit.ParentSpanId).To(Equal(call.SpanId))
	attempts := spans["deliver"]
	g.Expect(attempts).To(HaveLen(before + 1))
	for n, attempt := range attempts {
		g.Expect(attempt.ParentSpanId).To(Equal(call.SpanId))
		g.Expect(hex.EncodeToString(attempt.SpanId)).To(Equal(spanOf(calls[n].Header.Get(traceparent))), "the callback goes on with the attempt's span")
		g.Expect(attempt.Attribute("messaging.message.id")).To(Equal(calls[n].Header.Get("webhook-id")))
	}
	g.Expect(attempts[0].Attribute("error.type")).To(Equal("HTTPStatus"))
	g.Expect(attempts[0].Status.GetCode()).To(Equal(tracepb.Status_STATUS_CODE_ERROR))
	g.Expect(attempts[before].Status.GetCode()).To(Equal(tracepb.Status_STATUS_CODE_UNSET))

	// 127.0.0.1 is a trusted proxy now, so its trace goes on.
	const trusted = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0"
	postTraced(t, i, objects.key, "grace@example.com", trusted+"1")
	g.Eventually(receiver.Count, patience).Should(Equal(before + 2))
	g.Expect(traceOf(receiver.Calls()[before+1].Header.Get(traceparent))).To(Equal(traceOf(trusted)))
	postTraced(t, i, objects.key, "joan@example.com", trusted+"0")
	g.Eventually(receiver.Count, patience).Should(Equal(before + 3))
	g.Expect(receiver.Calls()[before+2].Header).NotTo(HaveKey("Traceparent"), "the proxy said that it is not sampled")
	process.signal(syscall.SIGTERM)
	g.Expect(process.err).NotTo(HaveOccurred())
	g.Expect(collector.Text()).NotTo(Or(ContainSubstring("@example.com"), ContainSubstring(objects.key), ContainSubstring(receiver.URL())))
}

// postTraced posts a contact as a part of a trace.
func postTraced(t *testing.T, i *installation, key, email, trace string) {
	t.Helper()
	g := NewWithT(t)
	form := url.Values{"key": {key}, "email": {email}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		"http://"+i.ingress+"/webhooks/contacts/email", strings.NewReader(form.Encode()))
	g.Expect(err).NotTo(HaveOccurred())
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set(traceparent, trace)
	response, err := http.DefaultClient.Do(request)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(response.Body.Close()).To(Succeed()) }()
	g.Expect(response.StatusCode).To(Equal(http.StatusOK))
}

// spansOf returns the spans of a trace by name.
func spansOf(collector *testkit.Collector, trace string) map[string][]testkit.Span {
	found := map[string][]testkit.Span{}
	for _, span := range collector.Spans() {
		if hex.EncodeToString(span.TraceId) == trace {
			found[span.Name] = append(found[span.Name], span)
		}
	}
	return found
}

// traceOf and spanOf are the parts of a traceparent.
func traceOf(traceparent string) string { return strings.Split(traceparent+"---", "-")[1] }
func spanOf(traceparent string) string  { return strings.Split(traceparent+"---", "-")[2] }
