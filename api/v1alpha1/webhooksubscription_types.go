package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// WebhookSubscription has a callback called when something happens to the
// contacts of its namespace's lists.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=postbus
// +kubebuilder:selectablefield:JSONPath=`.spec.app`
// +kubebuilder:selectablefield:JSONPath=`.spec.suspend`
// +kubebuilder:selectablefield:JSONPath=`.status.state`
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.status.state`
// +kubebuilder:printcolumn:name="App",type=string,JSONPath=`.spec.app`
// +kubebuilder:printcolumn:name="Pending",type=integer,JSONPath=`.status.pendingEvents`
// +kubebuilder:printcolumn:name="Failing Since",type=string,JSONPath=`.status.failingSince`
// +kubebuilder:printcolumn:name="Last Success",type=date,JSONPath=`.status.lastSuccessTime`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Host",type=string,priority=1,JSONPath=`.status.callbackHost`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Reachable")].reason`
type WebhookSubscription struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec is what shall be called when.
	// +required
	Spec WebhookSubscriptionSpec `json:"spec,omitzero"`
	// status is what the controller has seen and the dispatcher has told.
	// +optional
	// +default={"conditions":[{"type":"Ready","status":"Unknown","reason":"Progressing","message":"Waiting for the controller.","lastTransitionTime":"1970-01-01T00:00:00Z"},{"type":"Accepted","status":"Unknown","reason":"Progressing","message":"Waiting for the controller.","lastTransitionTime":"1970-01-01T00:00:00Z"}]}
	Status WebhookSubscriptionStatus `json:"status,omitzero"`
}

// WebhookSubscriptionSpec is what shall be called when.
//
// +kubebuilder:validation:XValidation:rule="!has(self.callback.method) || self.callback.method != 'GET' || (has(self.payload) && has(self.payload.format) && self.payload.format == 'MailUp')",message="callback.method GET needs payload.format MailUp: the other formats need a body"
// +kubebuilder:validation:XValidation:rule="!has(self.payload) || !has(self.payload.encryption) || self.payload.encryption.algorithm != 'RC4' || !self.callback.url.contains('?')",message="callback.url must not have a query where payload.encryption.algorithm is RC4: what is encrypted is the whole query"
type WebhookSubscriptionSpec struct {
	// app is a free name for filtering: kubectl get webhooksubscriptions
	// --field-selector spec.app=crm. At most 63 characters.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	App string `json:"app,omitempty"`

	// events are the types of events that are sent. Empty means all.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=5
	Events []EventType `json:"events,omitempty"`

	// sources are where events that are sent may come from. Empty means all.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=3
	Sources []EventSource `json:"sources,omitempty"`

	// lists are the names of the ContactLists, of this namespace, whose
	// contacts' events are sent. Empty means all lists of the namespace.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	Lists []string `json:"lists,omitempty"`

	// callback is what is called.
	//
	// +required
	Callback Callback `json:"callback,omitzero"`

	// payload is what a call carries.
	//
	// +optional
	Payload Payload `json:"payload,omitzero"`

	// signing says which secret calls are signed with.
	//
	// +optional
	Signing Signing `json:"signing,omitzero"`

	// retry says when a failed call is repeated.
	//
	// +optional
	Retry Retry `json:"retry,omitzero"`

	// ordering says whether one contact's events wait for each other:
	// PerContact sends them in order, one at a time, so an unsubscribe never
	// overtakes the subscribe before it; None lifts that.
	//
	// +optional
	// +default="PerContact"
	Ordering Ordering `json:"ordering,omitempty"`

	// rateLimit bounds how hard the callback is called.
	//
	// +optional
	RateLimit RateLimit `json:"rateLimit,omitzero"`

	// suspend holds the subscription: while it is true nothing is sent, events
	// wait, and they are sent once it is lifted.
	//
	// +optional
	Suspend *bool `json:"suspend,omitempty"`
}

// EventType is what happened to a contact: Create (it is stored for the first
// time), Subscribe (its permission goes from none to any other), Unsubscribe
// (it leaves), ChangeProfile (a field changes), Delete (it is removed).
//
// +kubebuilder:validation:Enum=Create;Subscribe;Unsubscribe;ChangeProfile;Delete
type EventType string

// EventSource is where an event comes from: API (a call), Console (an
// operator), Recipient (the contact itself). The set is MailUp's.
//
// +kubebuilder:validation:Enum=API;Console;Recipient
type EventSource string

// Signing says which secret calls are signed with.
type Signing struct {
	// secretRef names the Secret whose data key "secret" holds the signing
	// secret as Standard Webhooks writes it: whsec_ and 24 to 64 bytes in
	// Base64. A Secret that does not exist is generated, and removed with this
	// object; an existing one is used as it is. Without secretRef the Secret is
	// called like the subscription, followed by "-signing".
	//
	// +optional
	SecretRef SecretReference `json:"secretRef,omitzero"`
}

// Retry says when a failed call is repeated.
type Retry struct {
	// intervals are the waits before the first, second, … retry of an event,
	// each from 1s to 24h. The last one is repeated until the callback
	// answers. Five times 5m by default.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=30
	// +kubebuilder:validation:items:Type=string
	// +kubebuilder:validation:items:MaxLength=16
	// +kubebuilder:validation:items:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="self.all(i, duration(i) >= duration('1s') && duration(i) <= duration('24h'))",message="retry.intervals must each be between 1s and 24h"
	Intervals []metav1.Duration `json:"intervals,omitempty"`
}

// Ordering says whether one contact's events wait for each other.
//
// +kubebuilder:validation:Enum=PerContact;None
type Ordering string

// The orderings.
const (
	OrderingPerContact Ordering = "PerContact"
	OrderingNone       Ordering = "None"
)

// RateLimit bounds how hard a callback is called.
type RateLimit struct {
	// maxInFlight is how many calls may be under way at once. 1 to 1000, 64 by
	// default.
	//
	// +optional
	// +default=64
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	MaxInFlight int32 `json:"maxInFlight,omitempty"`
}

// SubscriptionState is where a subscription stands in its life.
//
// +kubebuilder:validation:Enum=Pending;Active;Failing;Suspended
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
	// FailureSigning: the signing secret could not be read.
	FailureSigning FailureReason = "SigningError"
	// FailureEncryption: the encryption key could not be read.
	FailureEncryption FailureReason = "EncryptionError"
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

	// state is where the subscription stands.
	//
	// +optional
	State SubscriptionState `json:"state,omitempty"`

	// callbackHost is the host of callback.url, without the path, which may
	// hold a secret.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=300
	CallbackHost string `json:"callbackHost,omitempty"`

	// signingSecretVersion is the resourceVersion of the signing Secret that
	// the controller last saw. The dispatcher reads the Secret again when it
	// changes, so it needs no right to list or watch Secrets.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	SigningSecretVersion string `json:"signingSecretVersion,omitempty"`

	// encryptionKeyVersion is the resourceVersion of the Secret with the
	// encryption key that the controller last saw. It serves as
	// signingSecretVersion does. Not set where nothing is encrypted.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	EncryptionKeyVersion string `json:"encryptionKeyVersion,omitempty"`

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

// WebhookSubscriptionList is a list of WebhookSubscriptions, as the API server
// answers it.
//
// +kubebuilder:object:root=true
type WebhookSubscriptionList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []WebhookSubscription `json:"items"`
}

// SigningSecretName returns the name of the Secret that holds the signing secret.
func (s *WebhookSubscription) SigningSecretName() string {
	if s.Spec.Signing.SecretRef.Name != "" {
		return s.Spec.Signing.SecretRef.Name
	}
	return s.Name + "-signing"
}

// SecretNames returns the names of all Secrets that the subscription needs.
func (s *WebhookSubscription) SecretNames() []string {
	names := []string{s.SigningSecretName()}
	if key := s.Spec.Payload.Encryption.KeySecretRef.Name; key != "" && key != names[0] {
		names = append(names, key)
	}
	return names
}

// GetConditions returns the conditions of the status.
func (s *WebhookSubscription) GetConditions() []metav1.Condition { return s.Status.Conditions }
