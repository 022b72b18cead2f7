package controllers

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/store"
)

// mirrorDelivery copies what the dispatcher tells into status.
func mirrorDelivery(status *v1alpha1.WebhookSubscriptionStatus, delivery store.Delivery) {
	life := &delivery.Life
	pending := int64(len(delivery.Open)) + life.Owed.Events + delivery.Behind
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
	status.DeactivationDue = statusTime(delivery.Health.DeactivationDue)
	status.LastFailure = attemptFailure(delivery.Health.LastFailure)
	status.SetAsideEvents = ptr.To(delivery.SetAside)
	status.DeactivatedAt, status.Buffer = nil, nil
	if life.Deactivation != nil {
		status.DeactivatedAt = statusTime(life.Deactivation.At)
		status.DeactivationDue = nil
		status.Buffer = bufferStatus(life.Deactivation, int64(len(delivery.Open))+life.Owed.Events)
	}
	status.Replay = replayStatus(life.Replay)
}

func bufferStatus(deactivation *store.Deactivation, events int64) *v1alpha1.BufferStatus {
	return &v1alpha1.BufferStatus{
		Events: &events, Until: *statusTime(deactivation.Until),
		LostEvents: ptr.To(deactivation.Lost), LostFrom: statusTime(deactivation.LostFrom), LostTo: statusTime(deactivation.LostTo),
	}
}

func replayStatus(replay *store.Replay) *v1alpha1.ReplayStatus {
	if replay == nil {
		return nil
	}
	status := &v1alpha1.ReplayStatus{
		Of: replay.Of, State: v1alpha1.ReplayRunning,
		Total: ptr.To(replay.Total), Sent: ptr.To(replay.Sent), Failed: ptr.To(replay.Failed),
		Remaining: ptr.To(max(0, replay.Total-replay.Sent-replay.Failed)),
		StartedAt: *statusTime(replay.StartedAt), FinishedAt: statusTime(replay.FinishedAt),
	}
	switch {
	case replay.Interrupted:
		status.State = v1alpha1.ReplayInterrupted
	case !replay.Running():
		status.State = v1alpha1.ReplayCompleted
	}
	return status
}

// maxRecentAttempts is how many attempts status tells of.
const maxRecentAttempts = 10

// recentAttempts returns attempts as status has them, newest first.
func recentAttempts(attempts []store.Attempt) (recent []v1alpha1.Attempt) {
	for _, attempt := range slices.Backward(attempts) {
		recent = append(recent, attempt.Status())
	}
	return recent
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
	if store.IsHTTPStatus(failure.HTTPStatus) {
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
	case status.DeactivatedAt != nil:
		status.State = v1alpha1.StateFailed
		return isFalse(v1alpha1.ReasonDeactivated, deactivatedMessage(subscription))
	case suspended(subscription.Spec.Suspend):
		status.State = v1alpha1.StateSuspended
		return isTrue(v1alpha1.ReasonSuspended, "spec.suspend is true: nothing is sent, events wait.")
	case status.FailingSince != nil:
		status.State = v1alpha1.StateFailing
		return isFalse(v1alpha1.ReasonFailing, failingMessage(status))
	case status.Replay != nil && status.Replay.State == v1alpha1.ReplayRunning:
		status.State = v1alpha1.StateReplaying
		return isTrue(v1alpha1.ReasonReplaying, withWarning("Events are sent again, beside the live ones.", subscription))
	default:
		status.State = v1alpha1.StateActive
		return isTrue(v1alpha1.ReasonActive, withWarning("Events are sent to the callback.", subscription))
	}
}

// deactivatedMessage says what to do. The counts are in status, so that the
// message stays the same while they rise.
func deactivatedMessage(subscription *v1alpha1.WebhookSubscription) string {
	status := &subscription.Status
	message := "The callback was deactivated at " + status.DeactivatedAt.UTC().Format(time.RFC3339)
	if status.LastFailure != nil {
		message += ": " + describeStatus(status.LastFailure)
	}
	return message + fmt.Sprintf(". Events are kept until %s. To reactivate it: kubectl annotate --overwrite -n %s webhooksubscription %s %s=\"$(date -Is)\" %s=true (false drops what was kept).",
		status.Buffer.Until.UTC().Format(time.RFC3339), subscription.Namespace, subscription.Name,
		v1alpha1.AnnotationReactivate, v1alpha1.AnnotationReplayEvents)
}

func failingMessage(status *v1alpha1.WebhookSubscriptionStatus) string {
	message := "Calls fail since " + status.FailingSince.UTC().Format(time.RFC3339)
	if status.LastFailure != nil {
		message += ": " + describeStatus(status.LastFailure)
	}
	message += "."
	if status.DeactivationDue != nil {
		message += " The callback will be deactivated when its retries are used up, see status.deactivationDue."
	}
	return message
}

// describeStatus is describe of what status keeps.
func describeStatus(failure *v1alpha1.AttemptFailure) string {
	told := &store.Failure{Reason: failure.Reason}
	if failure.HTTPStatus != nil {
		told.HTTPStatus = int(*failure.HTTPStatus)
	}
	return describe(told)
}

// describe names a failure without the number of attempts, which would make a
// new message of every retry.
func describe(failure *store.Failure) string {
	if failure.HTTPStatus == 0 {
		return string(failure.Reason)
	}
	return fmt.Sprintf("%s %d", failure.Reason, failure.HTTPStatus)
}
