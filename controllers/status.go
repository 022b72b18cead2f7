package controllers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"postbus.dev/postbus/api/v1alpha1"
)

// eventAction is the action of every event: what the controller was doing.
const eventAction = "Reconcile"

// finding is what is known of one condition.
type finding struct {
	status  metav1.ConditionStatus
	reason  string
	message string
}

// progressing is Ready while the controller has not come to the end of a spec.
var progressing = finding{
	status:  metav1.ConditionUnknown,
	reason:  v1alpha1.ReasonProgressing,
	message: "The controller has not finished looking at this spec and tries again.",
}

func isTrue(reason, message string) finding {
	return finding{status: metav1.ConditionTrue, reason: reason, message: message}
}

func isFalse(reason, message string) finding {
	return finding{status: metav1.ConditionFalse, reason: reason, message: message}
}

// finish is the only place that writes status: it concludes from what the steps
// left, patches once if anything changed, and tells of a change of state.
func (l *loop[T]) finish(ctx context.Context, before, object T, stepErr error) (reconcile.Result, error) {
	l.settle(object, stepErr)
	if equality.Semantic.DeepEqual(before, object) {
		return outcome(stepErr)
	}
	if err := l.client.Status().Patch(ctx, object, onlyIfUnchanged(before)); err != nil {
		err = client.IgnoreNotFound(err)
		if failed(stepErr) {
			err = errors.Join(stepErr, err)
		}
		return outcome(err)
	}
	l.announce(before, object)
	if l.tell != nil {
		l.tell(before, object)
	}
	return outcome(stepErr)
}

// settle sets Ready and observedGeneration. A failure says nothing about the
// spec, so it leaves both, unless what they say is about an older spec.
func (l *loop[T]) settle(object T, stepErr error) {
	status := statusOf(object)
	if failed(stepErr) {
		if *status.generation != object.GetGeneration() {
			setCondition(object, v1alpha1.ConditionReady, progressing)
		}
		return
	}
	*status.generation = object.GetGeneration()
	setCondition(object, v1alpha1.ConditionReady, l.conclude(object, refusalIn(stepErr)))
}

// announce sends an event when Ready has another reason than before.
func (l *loop[T]) announce(before, object T) {
	old := meta.FindStatusCondition(*statusOf(before).conditions, v1alpha1.ConditionReady)
	ready := meta.FindStatusCondition(*statusOf(object).conditions, v1alpha1.ConditionReady)
	if ready == nil || ready.Reason == v1alpha1.ReasonProgressing || (old != nil && old.Reason == ready.Reason) {
		return
	}
	kind := corev1.EventTypeNormal
	if ready.Status != metav1.ConditionTrue {
		kind = corev1.EventTypeWarning
	}
	l.recorder.Eventf(object, nil, kind, ready.Reason, eventAction, "%s", clip(ready.Message, noteSize))
}

// noteSize is how many bytes the API server takes as an event's note.
const noteSize = 1024

// clip returns a text of at most size bytes that begins as the given one and is
// UTF-8.
func clip(text string, size int) string {
	const more = "…"
	text = strings.ToValidUTF8(text, "?")
	if len(text) <= size {
		return text
	}
	end := size - len(more)
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + more
}

// record sets a condition to what a check found, True when it found nothing,
// and returns the check's error. A failure leaves the condition as it is.
func record(object client.Object, condition string, checked error, good finding) error {
	if failed(checked) {
		return checked
	}
	found := good
	if refused := refusalIn(checked); refused != nil {
		found = isFalse(refused.reason, refused.message)
	}
	setCondition(object, condition, found)
	return checked
}

func setCondition(object client.Object, condition string, found finding) {
	status := statusOf(object)
	meta.SetStatusCondition(status.conditions, metav1.Condition{
		Type:               condition,
		Status:             found.status,
		Reason:             found.reason,
		Message:            found.message,
		ObservedGeneration: object.GetGeneration(),
	})
	if condition == v1alpha1.ConditionReady && status.ready != nil {
		*status.ready = found.status
	}
}

// commonStatus are the fields of status that the loop sets on every kind.
type commonStatus struct {
	conditions *[]metav1.Condition
	generation *int64
	// ready repeats the Ready condition on kinds that have such a field.
	ready *metav1.ConditionStatus
}

func statusOf(object client.Object) commonStatus {
	switch object := object.(type) {
	case *v1alpha1.ContactList:
		return commonStatus{conditions: &object.Status.Conditions, generation: &object.Status.ObservedGeneration}
	case *v1alpha1.ApiKey:
		return commonStatus{
			conditions: &object.Status.Conditions,
			generation: &object.Status.ObservedGeneration,
			ready:      &object.Status.Ready,
		}
	case *v1alpha1.WebhookSubscription:
		return commonStatus{conditions: &object.Status.Conditions, generation: &object.Status.ObservedGeneration}
	default:
		panic(fmt.Sprintf("no status of %T is known", object))
	}
}
