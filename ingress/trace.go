package ingress

import (
	"context"
	"errors"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/tracing"
)

// accept begins the span of a call whose key, or link, is good. So strangers make no
// spans, whatever they send. An import has none: its events would make one trace of
// thousands of deliveries.
func (s *server) accept(r *http.Request, list *v1alpha1.ContactList, at time.Time) (context.Context, trace.Span) {
	ctx, span := s.options.Tracing.Accept(r.Context(), tracing.Call{
		Header: r.Header, Trusted: s.isTrusted(r.RemoteAddr), Route: route(r), Time: at,
	})
	if span.IsRecording() {
		span.SetAttributes(attribute.String("postbus.namespace", list.Namespace), attribute.String("postbus.list", list.Name))
	}
	return ctx, span
}

// endCall ends the span of a call. What was wrong with the call is not told, for that
// could be of a person; it is no failure of ingress.
func endCall(span trace.Span, err error) {
	var wrong *problem
	var input *contact.InputError
	switch {
	case err == nil:
		tracing.End(span, false)
	case errors.As(err, &wrong) && wrong.status < http.StatusInternalServerError, errors.As(err, &input),
		errors.Is(err, store.ErrExternalIDTaken), errors.Is(err, store.ErrOnceReused):
		span.SetAttributes(semconv.ErrorTypeKey.String("refused"))
		tracing.End(span, false)
	default:
		span.SetAttributes(semconv.ErrorTypeKey.String("failed"))
		tracing.End(span, true)
	}
}
