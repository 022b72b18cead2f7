package tracing_test

import (
	"context"
	"encoding/hex"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/testkit"
	"postbus.dev/postbus/internal/tracing"
)

const (
	callersTrace = "0af7651916cd43dd8448eb211c80319c"
	callersSpan  = "b7ad6b7169203331"
	sampled      = "00-" + callersTrace + "-" + callersSpan + "-01"
	unsampled    = "00-" + callersTrace + "-" + callersSpan + "-00"
)

// open returns tracing to a collector.
func open(t *testing.T) (*tracing.Tracing, *testkit.Collector) {
	t.Helper()
	collector := testkit.NewCollector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL())
	opened, err := tracing.Open(t.Context(), "postbus", "test")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return opened, collector
}

// accept has one call be accepted, and returns what its events carry.
func accept(ctx context.Context, t *tracing.Tracing, trusted bool, sent string) (carried string) {
	ctx, span := t.Accept(ctx, tracing.Call{Header: http.Header{"Traceparent": {sent}}, Trusted: trusted, Route: "/path", Time: time.Now()})
	tracing.End(span, false)
	return tracing.Carried(ctx)
}

func TestWhoseTrace(t *testing.T) {
	for name, test := range map[string]struct {
		trusted       bool
		sent          string
		environment   map[string]string
		parent, links bool
		none          bool
	}{
		"a call without a trace begins one":             {},
		"a trusted caller's goes on":                    {trusted: true, sent: sampled, parent: true},
		"a trusted caller may say that nothing is made": {trusted: true, sent: unsampled, none: true},
		"a stranger's is linked":                        {sent: sampled, links: true},
		"a stranger does not keep us from tracing":      {sent: unsampled, links: true},
		"a trace that is none is ignored":               {trusted: true, sent: "00-" + callersTrace + "-00"},
		"none is taken where nothing is propagated":     {trusted: true, sent: sampled, environment: map[string]string{"OTEL_PROPAGATORS": "none"}},
		"a stranger does not make us trace": {
			sent: sampled, none: true,
			environment: map[string]string{"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			for name, value := range test.environment {
				t.Setenv(name, value)
			}
			opened, collector := open(t)
			carried := accept(t.Context(), opened, test.trusted, test.sent)
			g.Expect(opened.Close(t.Context())).To(Succeed())
			if test.none {
				g.Expect(carried).To(BeEmpty())
				g.Expect(collector.Spans()).To(BeEmpty())
				return
			}
			g.Expect(collector.Spans()).To(HaveLen(1))
			span := collector.Spans()[0]
			g.Expect(carried).To(Equal("00-" + hex.EncodeToString(span.TraceId) + "-" + hex.EncodeToString(span.SpanId) + "-01"))
			g.Expect(hex.EncodeToString(span.TraceId) == callersTrace).To(Equal(test.parent))
			g.Expect(hex.EncodeToString(span.ParentSpanId) == callersSpan).To(Equal(test.parent))
			g.Expect(len(span.Links) == 1).To(Equal(test.links))
			g.Expect(span.Service).To(Equal("postbus"))
		})
	}
}

func TestAttempts(t *testing.T) {
	g := NewWithT(t)
	opened, collector := open(t)
	attempt := func(a tracing.Attempt) http.Header {
		ctx, span := opened.Begin(t.Context(), a)
		header := http.Header{}
		opened.Hand(ctx, header)
		tracing.End(span, true)
		return header
	}
	g.Expect(attempt(tracing.Attempt{EventID: "evt_1"})).To(BeEmpty(), "its call is not traced")
	first := attempt(tracing.Attempt{EventID: "evt_2", Carried: sampled})
	replayed := attempt(tracing.Attempt{EventID: "evt_3", Carried: sampled, Replayed: true})
	g.Expect(opened.Close(t.Context())).To(Succeed())

	spans := collector.Spans()
	g.Expect(spans).To(HaveLen(2))
	g.Expect(hex.EncodeToString(spans[0].TraceId)).To(Equal(callersTrace))
	g.Expect(hex.EncodeToString(spans[0].ParentSpanId)).To(Equal(callersSpan))
	g.Expect(first.Get("traceparent")).To(Equal("00-" + callersTrace + "-" + hex.EncodeToString(spans[0].SpanId) + "-01"))
	g.Expect(spans[0].Attribute("messaging.message.id")).To(Equal("evt_2"))

	g.Expect(hex.EncodeToString(spans[1].TraceId)).NotTo(Equal(callersTrace))
	g.Expect(spans[1].ParentSpanId).To(BeEmpty())
	g.Expect(spans[1].Links).To(HaveLen(1))
	g.Expect(hex.EncodeToString(spans[1].Links[0].TraceId)).To(Equal(callersTrace))
	g.Expect(replayed.Get("traceparent")).To(ContainSubstring(hex.EncodeToString(spans[1].TraceId)))
}

func TestCallbacksAreHandedNothing(t *testing.T) {
	g := NewWithT(t)
	t.Setenv("OTEL_PROPAGATORS", "none")
	opened, collector := open(t)
	ctx, span := opened.Begin(t.Context(), tracing.Attempt{Carried: sampled})
	header := http.Header{}
	opened.Hand(ctx, header)
	tracing.End(span, false)
	g.Expect(opened.Close(t.Context())).To(Succeed())
	g.Expect(header).To(BeEmpty())
	g.Expect(collector.Spans()).To(HaveLen(1))
}

func TestNothingIsTraced(t *testing.T) {
	const endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"
	for name, environment := range map[string]map[string]string{
		"no endpoint is set":     {},
		"the SDK is disabled":    {endpoint: "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "true"},
		"the exporter is no one": {endpoint: "http://127.0.0.1:4318", "OTEL_TRACES_EXPORTER": "none"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			for name, value := range environment {
				t.Setenv(name, value)
			}
			opened, err := tracing.Open(t.Context(), "postbus", "test")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(opened).To(BeNil())
			g.Expect(accept(t.Context(), opened, true, sampled)).To(BeEmpty())
			ctx, span := opened.Begin(t.Context(), tracing.Attempt{Carried: sampled})
			header := http.Header{}
			opened.Hand(ctx, header)
			tracing.End(span, false)
			g.Expect(header).To(BeEmpty())
			g.Expect(opened.Close(t.Context())).To(Succeed())
		})
	}
}

func TestEnvironmentIsRefused(t *testing.T) {
	for name, value := range map[string]string{
		"OTEL_EXPORTER_OTLP_PROTOCOL":        "grpc",
		"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json",
		"OTEL_TRACES_EXPORTER":               "zipkin",
		"OTEL_PROPAGATORS":                   "b3",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
			t.Setenv(name, value)
			_, err := tracing.Open(t.Context(), "postbus", "test")
			NewWithT(t).Expect(err).To(MatchError(And(ContainSubstring(name), ContainSubstring(value))))
		})
	}
}

// A collector that refuses traces may repeat what it was sent.
func TestCollectorsAnswerIsNotLogged(t *testing.T) {
	g := NewWithT(t)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20secret-of-the-collector")
	opened, collector := open(t)
	collector.Gossip()
	var mu sync.Mutex
	var logged strings.Builder
	tracing.LogErrors(funcr.New(func(_, line string) {
		mu.Lock()
		defer mu.Unlock()
		logged.WriteString(line)
	}, funcr.Options{}))
	accept(t.Context(), opened, false, "")
	if err := opened.Close(t.Context()); err != nil {
		g.Expect(err).NotTo(MatchError(ContainSubstring("secret")))
	}
	g.Expect(collector.Tries()).To(BeNumerically(">", 0))
	mu.Lock()
	defer mu.Unlock()
	g.Expect(logged.String()).NotTo(ContainSubstring("secret"))
}
