// Package tracing answers: how does an operator follow one contact through the
// components?
//
// A trace begins with a call that ingress accepts, and its context is carried by the
// call's events in the log. So the dispatcher's attempts, of whatever process and
// whenever, belong to it, and so may what the callback does:
//
//	ingress: accepted call ─┬─▶ store: commit
//	                        └─▶ dispatcher: attempt, attempt, … ──traceparent──▶ callback
//
// OpenTelemetry's own environment variables configure all of it. Nothing is traced
// unless they name where traces are sent to.
package tracing

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Scope names what makes the spans.
const Scope = "postbus.dev/postbus"

// Tracing makes spans and hands them to a collector. Nil makes none.
type Tracing struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	// propagates: contexts are taken from proxies and handed to callbacks.
	propagates bool
}

// Open returns what the environment asks for: nil where no endpoint is set
// (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT), or tracing is off
// (OTEL_SDK_DISABLED=true, OTEL_TRACES_EXPORTER=none). The service is called by this
// name unless OTEL_SERVICE_NAME calls it otherwise. Close must be called in the end.
// See https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables.
func Open(ctx context.Context, service, version string) (*Tracing, error) {
	if !wanted() {
		return nil, nil //nolint:nilnil // nil is tracing that makes no spans
	}
	if err := checkEnvironment(); err != nil {
		return nil, err
	}
	exporter, err := otlptracehttp.New(ctx) // reads OTEL_EXPORTER_OTLP_*
	if err != nil {
		return nil, fmt.Errorf("make the exporter of traces: %w", err)
	}
	described, err := resource.New(ctx,
		resource.WithAttributes(semconv.ServiceName(service), semconv.ServiceVersion(version)),
		resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("describe the process in traces: %w", err)
	}
	// Reads OTEL_TRACES_SAMPLER, OTEL_BSP_* and OTEL_SPAN_*.
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(described))
	return &Tracing{
		provider: provider, tracer: provider.Tracer(Scope, trace.WithInstrumentationVersion(version)),
		propagates: os.Getenv("OTEL_PROPAGATORS") != "none",
	}, nil
}

func wanted() bool {
	named := os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
	return named && os.Getenv("OTEL_TRACES_EXPORTER") != "none" && !strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true")
}

// checkEnvironment refuses what would be ignored otherwise.
func checkEnvironment() error {
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if protocol := os.Getenv(name); protocol != "" && protocol != "http/protobuf" {
			return fmt.Errorf("%s is %q, traces are sent by http/protobuf only, mostly to port 4318", name, protocol)
		}
	}
	for name, known := range map[string][]string{"OTEL_TRACES_EXPORTER": {"", "otlp"}, "OTEL_PROPAGATORS": {"", "none", "tracecontext", "tracecontext,baggage"}} {
		if value := os.Getenv(name); !slices.Contains(known, value) {
			return fmt.Errorf("%s is %q, it must be %s", name, value, strings.Join(known[1:], " or "))
		}
	}
	return nil
}

// Close sends what was not sent yet, until the context ends.
func (t *Tracing) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("send the last traces: %w", withoutAnswer(err))
	}
	return nil
}

// format is W3C Trace Context (https://www.w3.org/TR/trace-context), without baggage:
// that could hold anything.
var format propagation.TraceContext

// Call is what is told of a call that ingress let in.
type Call struct {
	// Header are what the caller sent, of which the context of its trace is read.
	Header http.Header
	// Trusted: it came from a proxy that an operator trusts.
	Trusted bool
	// Route is the path, without what names a contact.
	Route string
	// Time is when it came.
	Time time.Time
}

// Accept begins the span of a call. The context that the caller sent is its parent if
// the caller is trusted. Else the two are merely linked: a stranger must not decide
// what is traced here, and under which id.
func (t *Tracing) Accept(ctx context.Context, call Call) (context.Context, trace.Span) {
	if t == nil {
		return ctx, none
	}
	options := []trace.SpanStartOption{
		trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(call.Time),
		trace.WithAttributes(semconv.HTTPRequestMethodPost, semconv.HTTPRoute(call.Route)),
	}
	sent := trace.SpanContextFromContext(format.Extract(ctx, propagation.HeaderCarrier(call.Header)))
	switch {
	case !t.propagates || !sent.IsValid():
	case call.Trusted:
		ctx = trace.ContextWithRemoteSpanContext(ctx, sent)
	default:
		options = append(options, trace.WithLinks(trace.Link{SpanContext: sent.WithTraceState(trace.TraceState{})}))
	}
	return t.tracer.Start(ctx, "POST "+call.Route, options...)
}

// Child begins a span of a part of what the context's span is of.
func Child(ctx context.Context, name string) (context.Context, trace.Span) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, none
	}
	return parent.TracerProvider().Tracer(Scope).Start(ctx, name)
}

// End ends a span, as failed or not. No error is told: it may have what somebody sent.
func End(span trace.Span, failed bool) {
	if failed {
		span.SetStatus(codes.Error, "")
	}
	span.End()
}

// none is a span that records nothing.
var none trace.Span = noop.Span{}

// traceparent is the header, and the key of what is carried.
const traceparent = "traceparent"

// Carried returns what an event carries of the span in a context, empty where it is
// not sampled: nothing is traced of such an event later either.
func Carried(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ""
	}
	carrier := propagation.MapCarrier{}
	format.Inject(ctx, carrier)
	return carrier[traceparent]
}

// Attempt is what is told of an attempt to deliver an event. It has nothing of the
// person, and nothing of the callback's address.
type Attempt struct {
	// Carried is what the event carries; empty where it is not traced.
	Carried string
	// Namespace and Subscription say who gets the event.
	Namespace, Subscription string
	// EventID and EventType are the event's, Number is 1 for its first attempt.
	EventID, EventType string
	Number             int
	// Replayed: a replay sends it.
	Replayed bool
}

// Begin begins the span of an attempt to deliver an event that is traced. Its parent
// is the call that made the event. A replay, which somebody asked for days later, has
// a trace of its own, linked to that (OpenTelemetry's semantic conventions of
// messaging: a message's creation is a link, and may be the parent).
func (t *Tracing) Begin(ctx context.Context, attempt Attempt) (context.Context, trace.Span) {
	if t == nil || attempt.Carried == "" {
		return ctx, none
	}
	made := trace.SpanContextFromContext(format.Extract(ctx, propagation.MapCarrier{traceparent: attempt.Carried}))
	options := []trace.SpanStartOption{
		trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(
			semconv.MessagingSystemKey.String("postbus"), semconv.MessagingOperationName("deliver"), semconv.MessagingOperationTypeProcess,
			semconv.MessagingMessageID(attempt.EventID), semconv.MessagingDestinationSubscriptionName(attempt.Namespace+"/"+attempt.Subscription),
			attribute.String("postbus.event.type", attempt.EventType), attribute.Int("postbus.attempt", attempt.Number),
			attribute.Bool("postbus.replay", attempt.Replayed),
		),
	}
	if attempt.Replayed {
		options = append(options, trace.WithNewRoot(), trace.WithLinks(trace.Link{SpanContext: made}))
	} else {
		ctx = trace.ContextWithRemoteSpanContext(ctx, made)
	}
	return t.tracer.Start(ctx, "deliver", options...)
}

// Hand puts the span of an attempt into the headers of its call, if it is sampled.
func (t *Tracing) Hand(ctx context.Context, header http.Header) {
	if t != nil && t.propagates && trace.SpanContextFromContext(ctx).IsSampled() {
		format.Inject(ctx, propagation.HeaderCarrier(header))
	}
}
