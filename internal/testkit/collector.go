package testkit

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// Collector takes traces by OTLP over HTTP (https://opentelemetry.io/docs/specs/otlp),
// as a collector of OpenTelemetry does. It is safe for concurrent use.
type Collector struct {
	server *httptest.Server

	mu    sync.Mutex
	spans []Span
	text  []byte
	tries int
	echo  bool
}

// Span is one that a Collector got.
type Span struct {
	*tracepb.Span
	// Service is the name of the service that made it.
	Service string
}

// Attribute returns the text of an attribute, empty when there is none.
func (s Span) Attribute(name string) string {
	for _, attribute := range s.GetAttributes() {
		if attribute.GetKey() == name {
			return attribute.GetValue().GetStringValue()
		}
	}
	return ""
}

// NewCollector starts a Collector that ends with the test.
func NewCollector(t testing.TB) *Collector {
	t.Helper()
	collector := &Collector{}
	collector.server = httptest.NewServer(collector)
	t.Cleanup(collector.server.Close)
	return collector
}

// URL returns what to set OTEL_EXPORTER_OTLP_ENDPOINT to.
func (c *Collector) URL() string { return c.server.URL }

// Gossip makes the Collector refuse all, and repeat the headers that it was sent.
func (c *Collector) Gossip() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.echo = true
}

// Spans returns the spans so far, in the order in which they ended in each process.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Tries returns how many times somebody sent spans.
func (c *Collector) Tries() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tries
}

// Text returns all that was sent, as text and as it came.
func (c *Collector) Text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.text)
}

// ServeHTTP takes spans.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the sender went away
	}
	var sent collectorpb.ExportTraceServiceRequest
	if r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" || proto.Unmarshal(body, &sent) != nil {
		http.Error(w, "these are no traces", http.StatusBadRequest)
		return
	}
	c.tries++
	c.text = append(append(c.text, body...), prototext.Format(&sent)...)
	if c.echo {
		w.WriteHeader(http.StatusForbidden)
		_ = r.Header.Write(w) // what is lost of it is not looked at
		return
	}
	for _, of := range sent.GetResourceSpans() {
		service := ""
		for _, attribute := range of.GetResource().GetAttributes() {
			if attribute.GetKey() == "service.name" {
				service = attribute.GetValue().GetStringValue()
			}
		}
		for _, scope := range of.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				c.spans = append(c.spans, Span{Span: span, Service: service})
			}
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}
