package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/store"
)

// maxRequestValue is the length of the longest value of an annotation that asks
// for something.
const maxRequestValue = 256

// errRequest says why an annotation can't be understood.
var errRequest = errors.New("the request can't be understood")

// annotated is a request that the annotations of an object make.
type annotated struct {
	store.Request
	// invalid is why it can't be asked of the dispatcher, nil when it can.
	invalid error
}

// requestsOf returns what the annotations ask for, in a fixed order.
func requestsOf(subscription *v1alpha1.WebhookSubscription, now time.Time) (requests []annotated) {
	annotations := subscription.Annotations
	add := func(kind v1alpha1.RequestType, value string, parse func(*store.Request) error) {
		if value == "" {
			return
		}
		made := annotated{Request: store.Request{Key: keyOf(subscription), Type: kind, Value: value}}
		if len(value) > 2*maxRequestValue {
			made.Value, made.invalid = clip(value, 2*maxRequestValue), fmt.Errorf("%w: the value is too long", errRequest)
		} else {
			made.invalid = parse(&made.Request)
		}
		requests = append(requests, made)
	}
	add(v1alpha1.RequestReactivate, annotations[v1alpha1.AnnotationReactivate], func(r *store.Request) error {
		r.Replay = meaning(annotations[v1alpha1.AnnotationReplayEvents]) == "true"
		return nil
	})
	add(v1alpha1.RequestReplayRange, rangeValue(annotations), func(r *store.Request) error {
		return parseRange(r, annotations, now)
	})
	add(v1alpha1.RequestReplayEvent, annotations[v1alpha1.AnnotationReplayEvent], func(r *store.Request) error {
		r.EventID = meaning(r.Value)
		return nil
	})
	for kind, annotation := range map[v1alpha1.RequestType]string{
		v1alpha1.RequestReplayFailed: v1alpha1.AnnotationReplayFailed,
		v1alpha1.RequestTest:         v1alpha1.AnnotationTest,
	} {
		add(kind, annotations[annotation], func(*store.Request) error { return nil })
	}
	slices.SortFunc(requests, func(a, b annotated) int { return strings.Compare(string(a.Type), string(b.Type)) })
	return requests
}

// meaning is the part of an annotation's value that has one: what follows a space
// only makes a new value of it.
func meaning(value string) string {
	value, _, _ = strings.Cut(value, " ")
	return value
}

// rangeValue names the range that annotations ask for; empty when they ask for
// none.
func rangeValue(annotations map[string]string) string {
	since, until := annotations[v1alpha1.AnnotationReplaySince], annotations[v1alpha1.AnnotationReplayUntil]
	if since == "" && until == "" {
		return ""
	}
	return since + "/" + until
}

// parseRange reads a range of the log.
func parseRange(request *store.Request, annotations map[string]string, now time.Time) (err error) {
	if request.Since, err = parseTime(annotations, v1alpha1.AnnotationReplaySince); err != nil {
		return err
	}
	request.Until = now
	if annotations[v1alpha1.AnnotationReplayUntil] != "" {
		if request.Until, err = parseTime(annotations, v1alpha1.AnnotationReplayUntil); err != nil {
			return err
		}
	}
	if request.Until.Before(request.Since) {
		return fmt.Errorf("%w: %s is before %s", errRequest, v1alpha1.AnnotationReplayUntil, v1alpha1.AnnotationReplaySince)
	}
	return nil
}

func parseTime(annotations map[string]string, name string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, meaning(annotations[name]))
	if err != nil {
		return at, fmt.Errorf("%w: %s must be a time such as 2026-11-22T10:00:00Z", errRequest, name)
	}
	return at, nil
}

// request has the dispatcher answer what annotations ask for, and status tell the
// answers that the row has. A request that was answered is not put again, nor is one
// of the same value.
func (w webhookSubscriptions) request(ctx context.Context, subscription *v1alpha1.WebhookSubscription, delivery store.Delivery) error {
	told := subscription.Status.Requests
	subscription.Status.Requests = nil
	for _, asked := range requestsOf(subscription, w.now()) {
		answer, answered := delivery.Life.Answers[asked.Type]
		answered = answered && answer.Value == asked.Value
		var status v1alpha1.RequestStatus
		switch {
		case asked.invalid != nil:
			status = refusedRequest(asked, told, w.now())
		case answered:
			status = answeredRequest(asked.Type, answer)
		default:
			if err := w.store.PutRequest(ctx, asked.Request); err != nil {
				return fmt.Errorf("ask for %s: %w", asked.Type, err)
			}
			status = v1alpha1.RequestStatus{Type: asked.Type, Value: asked.Value, Result: v1alpha1.RequestPending}
		}
		subscription.Status.Requests = append(subscription.Status.Requests, status)
	}
	if answer, ok := delivery.Life.Answers[v1alpha1.RequestReactivate]; ok {
		subscription.Status.LastHandledReactivation = answer.Value
	}
	return nil
}

// refusedRequest is the status of a request that the dispatcher is not asked. It
// keeps the time of the refusal.
func refusedRequest(asked annotated, told []v1alpha1.RequestStatus, now time.Time) v1alpha1.RequestStatus {
	status := v1alpha1.RequestStatus{
		Type: asked.Type, Value: asked.Value, Result: v1alpha1.RequestRefused,
		Message: asked.invalid.Error(), Time: statusTime(now),
	}
	for _, before := range told {
		if before.Type == status.Type && before.Value == status.Value && before.Message == status.Message {
			return before
		}
	}
	return status
}

func answeredRequest(kind v1alpha1.RequestType, answer store.Answer) v1alpha1.RequestStatus {
	return v1alpha1.RequestStatus{
		Type: kind, Value: answer.Value, Result: answer.Result,
		Message: clip(answer.Message, noteSize), Time: statusTime(answer.Time),
	}
}

// tell sends events about what a pass changed beside the state: more events were
// set aside, a request was refused.
func (w webhookSubscriptions) tell(before, after *v1alpha1.WebhookSubscription) {
	if aside := ptr.Deref(after.Status.SetAsideEvents, 0); aside > ptr.Deref(before.Status.SetAsideEvents, 0) {
		w.recorder.Eventf(after, nil, corev1.EventTypeWarning, v1alpha1.ReasonEventsSetAside, eventAction,
			"%d events are set aside because they could not be delivered. The annotation %s sends them again.",
			aside, v1alpha1.AnnotationReplayFailed)
	}
	for _, request := range after.Status.Requests {
		known := slices.ContainsFunc(before.Status.Requests, func(told v1alpha1.RequestStatus) bool {
			return told.Type == request.Type && told.Value == request.Value && told.Result == request.Result
		})
		if request.Result == v1alpha1.RequestRefused && !known {
			w.recorder.Eventf(after, nil, corev1.EventTypeWarning, v1alpha1.ReasonRequestRefused, eventAction,
				"%s: %s", request.Type, request.Message)
		}
	}
}
