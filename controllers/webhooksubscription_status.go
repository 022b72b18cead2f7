package controllers

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/store"
)

// mirrorDelivery copies what the dispatcher tells into status.
func mirrorDelivery(status *v1alpha1.WebhookSubscriptionStatus, delivery store.Delivery) {
	pending := int64(len(delivery.Open)) + delivery.Behind
	retrying := int64(0)
	for _, event := range delivery.Open {
		if event.Attempts > 0 {
			retrying++
		}
	}
	status.PendingEvents = &pending
	status.RetryingEvents = &retrying
	status.LastSuccessTime = statusTime(delivery.Health.LastSuccess)
	status.FailingSince = statusTime(delivery.Health.FailingSince)
	status.LastFailure = attemptFailure(delivery.Health.LastFailure)
}

func attemptFailure(failure *store.Failure) *v1alpha1.AttemptFailure {
	if failure == nil {
		return nil
	}
	told := &v1alpha1.AttemptFailure{
		Time:     metav1.NewTime(failure.Time.Truncate(time.Second)),
		Reason:   failure.Reason,
		Attempts: int32(max(1, failure.Attempts)),
	}
	// The schema allows three digits, as HTTP does.
	if failure.HTTPStatus >= 100 && failure.HTTPStatus <= 999 {
		status := int32(failure.HTTPStatus)
		told.HTTPStatus = &status
	}
	return told
}

// statusTime returns a time as status keeps it, in whole seconds, so that what
// is read back equals what was written.
func statusTime(at time.Time) *metav1.Time {
	if at.IsZero() {
		return nil
	}
	whole := metav1.NewTime(at.Truncate(time.Second))
	return &whole
}

// reachable says what the last call tells of the callback.
func reachable(health store.Health) finding {
	switch {
	case !health.FailingSince.IsZero() && health.LastFailure != nil:
		return isFalse(string(health.LastFailure.Reason), "The last call failed: "+describe(health.LastFailure)+".")
	case !health.FailingSince.IsZero():
		return isFalse(v1alpha1.ReasonFailing, "The last call failed.")
	case !health.LastSuccess.IsZero():
		return isTrue(v1alpha1.ReasonSucceeded, "The callback answered the last call with success.")
	default:
		return finding{
			status:  metav1.ConditionUnknown,
			reason:  v1alpha1.ReasonNotCalled,
			message: "The callback has not been called yet.",
		}
	}
}

// concludeSubscription sets the state and says what Ready is in it.
func concludeSubscription(subscription *v1alpha1.WebhookSubscription, refused *refusal) finding {
	status := &subscription.Status
	switch {
	case refused != nil:
		status.State = v1alpha1.StatePending
		return isFalse(refused.reason, refused.message)
	case suspended(subscription.Spec.Suspend):
		status.State = v1alpha1.StateSuspended
		return isTrue(v1alpha1.ReasonSuspended, "spec.suspend is true: nothing is sent, events wait.")
	case status.FailingSince != nil:
		status.State = v1alpha1.StateFailing
		return isFalse(v1alpha1.ReasonFailing, failingMessage(status))
	default:
		status.State = v1alpha1.StateActive
		return isTrue(v1alpha1.ReasonActive, withWarning("Events are sent to the callback.", subscription))
	}
}

func failingMessage(status *v1alpha1.WebhookSubscriptionStatus) string {
	message := "Calls fail since " + status.FailingSince.UTC().Format(time.RFC3339)
	if failure := status.LastFailure; failure != nil {
		told := &store.Failure{Reason: failure.Reason}
		if failure.HTTPStatus != nil {
			told.HTTPStatus = int(*failure.HTTPStatus)
		}
		message += ": " + describe(told)
	}
	return message + "."
}

// describe names a failure without the number of attempts, which would make a
// new message of every retry.
func describe(failure *store.Failure) string {
	if failure.HTTPStatus == 0 {
		return string(failure.Reason)
	}
	return fmt.Sprintf("%s %d", failure.Reason, failure.HTTPStatus)
}
