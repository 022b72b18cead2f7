package dispatcher

import (
	"context"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"postbus.dev/postbus/internal/tracing"
)

// beginSpan begins the span of an attempt, if its event is traced.
func (r *runner) beginSpan(ctx context.Context, made call) (context.Context, trace.Span) {
	return r.tracing.Begin(ctx, tracing.Attempt{
		Carried: made.event.Trace, Namespace: r.key.Namespace, Subscription: r.key.Name,
		EventID: made.event.ID, EventType: string(made.event.Type), Number: made.number, Replayed: made.replayed,
	})
}

// endSpan ends it with how the attempt ended.
func endSpan(span trace.Span, o outcome) {
	if o.status != 0 {
		span.SetAttributes(semconv.HTTPResponseStatusCode(o.status))
	}
	if o.verdict != delivered {
		span.SetAttributes(semconv.ErrorTypeKey.String(o.label()))
	}
	tracing.End(span, o.verdict != delivered)
}
