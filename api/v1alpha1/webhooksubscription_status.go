package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SubscriptionState is where a subscription stands in its life.
//
// +kubebuilder:validation:Enum=Pending;Active;Failing;Failed;Suspended;Replaying
type SubscriptionState string

// The states of a subscription.
const (
	// StatePending: the controller has not accepted the spec; the condition
	// Accepted tells why. Nothing is sent.
	StatePending SubscriptionState = "Pending"
	// StateActive: events are sent, and the last call succeeded if there was one.
	StateActive SubscriptionState = "Active"
	// StateFailing: calls fail since failingSince and are retried.
	StateFailing SubscriptionState = "Failing"
	// StateFailed: the callback was deactivated. Nothing is sent, events are kept
	// as status.buffer tells, until somebody reactivates it.
	StateFailed SubscriptionState = "Failed"
	// StateReplaying: events are sent again, beside the live ones.
	StateReplaying SubscriptionState = "Replaying"
	// StateSuspended: spec.suspend is true. Nothing is sent, events wait.
	StateSuspended SubscriptionState = "Suspended"
)

// FailureReason says why an attempt failed.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=64
type FailureReason string

// The reasons of a failed attempt. They are reasons of ConditionReachable too.
const (
	// FailureHTTPStatus: the callback answered with a status other than 2xx.
	FailureHTTPStatus FailureReason = "HTTPStatus"
	// FailureRedirect: the callback answered with a redirect, which is not followed.
	FailureRedirect FailureReason = "Redirect"
	// FailureTimeout: no complete answer came within callback.timeout.
	FailureTimeout FailureReason = "Timeout"
	// FailureConnectionRefused: nothing listens at the address.
	FailureConnectionRefused FailureReason = "ConnectionRefused"
	// FailureConnectionBroken: the connection ended before the answer did.
	FailureConnectionBroken FailureReason = "ConnectionBroken"
	// FailureDNS: the host name could not be resolved.
	FailureDNS FailureReason = "DNSError"
	// FailureTLS: the TLS handshake failed, or the certificate is not trusted.
	FailureTLS FailureReason = "TLSError"
	// FailureRender: the body could not be made from the event.
	FailureRender FailureReason = "RenderError"
	// FailureFilter: spec.filter failed with the event.
	FailureFilter FailureReason = "FilterError"
	// FailureSigning: the signing secret could not be read.
	FailureSigning FailureReason = "SigningError"
	// FailureEncryption: the encryption key could not be read.
	FailureEncryption FailureReason = "EncryptionError"
	// FailureSecret: a Secret that the callback needs, for its URL, a header, TLS
	// or OAuth2, could not be read.
	FailureSecret FailureReason = "SecretError"
	// FailureToken: the token endpoint gave no token.
	FailureToken FailureReason = "TokenError"
	// FailureAddressForbidden: the address, or that it is called without TLS, is
	// not allowed to callbacks. Nothing was sent.
	FailureAddressForbidden FailureReason = "AddressForbidden"
	// FailureNetwork: any other error between here and the callback.
	FailureNetwork FailureReason = "NetworkError"
)

// WebhookSubscriptionStatus is what the controller has seen of a
// WebhookSubscription and the dispatcher has told of it. State changes appear
// within 2 seconds, counters within 5.
type WebhookSubscriptionStatus struct {
	// conditions has Ready, Accepted and Reachable: see the reasons at their names.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +patchStrategy=merge
	// +patchMergeKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty" patchStrategy:"merge" patchMergeKey:"type"`

	// observedGeneration is the metadata.generation that this status is about.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// namespaceUID is the UID of the Namespace whose data the subscription uses in the
	// store. The controller sets it once the data that the store holds under the
	// namespace's name is known to belong to this Namespace. Unset, nothing
	// is sent.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	NamespaceUID string `json:"namespaceUID,omitempty"`

	// formerNamespaceUID is the UID of an earlier Namespace of the same name whose
	// data the store still holds. It is set while Ready has the reason
	// NamespaceReplaced, and is the value for the annotation
	// postbus.dev/adopt-data-of or postbus.dev/remove-data-of of the Namespace.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	FormerNamespaceUID string `json:"formerNamespaceUID,omitempty"`

	// state is where the subscription stands.
	//
	// +optional
	State SubscriptionState `json:"state,omitempty"`

	// callbackHost is the host of the callback's URL, without the path, which may
	// hold a secret.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=300
	CallbackHost string `json:"callbackHost,omitempty"`

	// secrets are the Secrets that the subscription needs, in the version in which
	// the controller last found them good. The dispatcher uses a Secret in
	// this version only, and reads it again when the version changes, so it needs
	// no right to list or watch Secrets.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Secrets []SecretVersion `json:"secrets,omitempty"`

	// signing is what is known of the signing secret.
	//
	// +optional
	Signing SigningStatus `json:"signing,omitzero"`

	// lastSuccessTime is when the callback last answered with success.
	//
	// +optional
	LastSuccessTime *metav1.Time `json:"lastSuccessTime,omitempty"`

	// failingSince is when the first attempt failed after the last success.
	// Not set unless the last call failed.
	//
	// +optional
	FailingSince *metav1.Time `json:"failingSince,omitempty"`

	// lastFailure is the last attempt that failed, kept after the callback has
	// recovered.
	//
	// +optional
	LastFailure *AttemptFailure `json:"lastFailure,omitzero"`

	// pendingEvents is how many events wait to be sent, those being retried
	// included.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	PendingEvents *int64 `json:"pendingEvents,omitempty"`

	// retryingEvents is how many events failed at least once and are being
	// retried.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	RetryingEvents *int64 `json:"retryingEvents,omitempty"`

	// setAsideEvents is how many events used up their retries, or could not be
	// made into a call, while the callback was otherwise well. The annotation
	// postbus.dev/replay-failed sends them again.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	SetAsideEvents *int64 `json:"setAsideEvents,omitempty"`

	// deactivationDue is when the callback will be deactivated unless a call
	// succeeds. Set while calls fail.
	//
	// +optional
	DeactivationDue *metav1.Time `json:"deactivationDue,omitempty"`

	// deactivatedAt is when the callback was deactivated. Not set unless it is.
	//
	// +optional
	DeactivatedAt *metav1.Time `json:"deactivatedAt,omitempty"`

	// buffer tells what is kept for the reactivation. Not set unless the
	// callback is deactivated.
	//
	// +optional
	Buffer *BufferStatus `json:"buffer,omitzero"`

	// lastHandledReactivation is the value of the annotation
	// postbus.dev/reactivate that was answered last.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=600
	LastHandledReactivation string `json:"lastHandledReactivation,omitempty"`

	// replay tells of the last replay. Not set when there was none.
	//
	// +optional
	Replay *ReplayStatus `json:"replay,omitzero"`

	// requests answer the annotations that ask for something, the last one of
	// each type.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=5
	Requests []RequestStatus `json:"requests,omitempty"`

	// recentAttempts are the last 10 calls of the callback, newest first. Those
	// of the last seconds before a process died may be missing. The store has
	// 200, see postbus attempts --store.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	RecentAttempts []Attempt `json:"recentAttempts,omitempty"`
}

// Attempt tells of one call of the callback.
type Attempt struct {
	// time is when it began.
	//
	// +required
	Time metav1.MicroTime `json:"time,omitzero"`

	// eventID is the event's id, which receivers know as webhook-id.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	EventID string `json:"eventID,omitempty"`

	// eventType is what happened: a type of spec.events, or of
	// spec.operationalEvents.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	EventType string `json:"eventType,omitempty"`

	// attempt is 1 for the first attempt of an event, 2 for the first retry.
	//
	// +required
	// +kubebuilder:validation:Minimum=1
	Attempt int32 `json:"attempt,omitempty"`

	// outcome is Delivered, Aborted where Postbus ended the call because it was
	// stopped, or the reason of the failure as in lastFailure.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Outcome string `json:"outcome,omitempty"`

	// httpStatus is the status that the callback answered with. Not set when
	// there was no answer.
	//
	// +optional
	// +kubebuilder:validation:Minimum=100
	// +kubebuilder:validation:Maximum=999
	HTTPStatus *int32 `json:"httpStatus,omitempty"`

	// duration is how long it took, such as 12.3ms.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	Duration *metav1.Duration `json:"duration,omitempty"`

	// replay tells whether a replay sent the event.
	//
	// +optional
	Replay *bool `json:"replay,omitempty"`

	// test tells whether it was made to try the callback, by postbus.dev/test.
	//
	// +optional
	Test *bool `json:"test,omitempty"`
}

// AttemptFailure tells of an attempt that failed.
type AttemptFailure struct {
	// time is when the attempt ended.
	//
	// +required
	Time metav1.Time `json:"time,omitzero"`

	// reason is why it failed.
	//
	// +required
	Reason FailureReason `json:"reason,omitempty"`

	// httpStatus is the status that the callback answered with. Not set when
	// there was no answer.
	//
	// +optional
	// +kubebuilder:validation:Minimum=100
	// +kubebuilder:validation:Maximum=999
	HTTPStatus *int32 `json:"httpStatus,omitempty"`

	// attempts is how many attempts the event had then, this one included.
	//
	// +required
	// +kubebuilder:validation:Minimum=1
	Attempts int32 `json:"attempts,omitempty"`
}
