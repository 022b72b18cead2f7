package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// WebhookSubscription has a callback called when something happens to the
// contacts of its namespace's lists.
//
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 245 || (has(self.spec.signing) && has(self.spec.signing.secretRef))",message="metadata.name must have at most 245 characters where spec.signing.secretRef names no Secret: the signing Secret is called like the subscription, followed by -signing"
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
// +kubebuilder:validation:XValidation:rule="!has(self.callback.method) || self.callback.method != 'GET' || !has(self.payload) || !has(self.payload.encryption) || self.payload.encryption.algorithm != 'JWE'",message="callback.method GET can't have payload.encryption.algorithm JWE: a GET has no body that could be encrypted"
// +kubebuilder:validation:XValidation:rule="!has(self.payload) || !has(self.payload.encryption) || self.payload.encryption.algorithm != 'RC4' || !has(self.callback.url) || !self.callback.url.contains('?')",message="callback.url must not have a query where payload.encryption.algorithm is RC4: what is encrypted is the whole query"
// +kubebuilder:validation:XValidation:rule="!has(self.operationalEvents) || self.operationalEvents.size() == 0 || !has(self.payload) || !has(self.payload.format) || self.payload.format in ['Standard', 'Template']",message="operationalEvents need payload.format Standard or Template: the other formats tell of contacts alone"
// +kubebuilder:validation:XValidation:rule="!has(self.events) || !('None' in self.events) || (self.events.size() == 1 && has(self.operationalEvents) && self.operationalEvents.size() > 0)",message="events has None, which stands alone there and needs operationalEvents: nothing would be sent otherwise"
// +kubebuilder:validation:XValidation:rule="!has(self.payload) || !has(self.payload.format) || self.payload.format != 'Mailingwork' || !has(self.events) || self.events.size() == 0 || self.events.exists(e, e in ['Subscribe', 'Unsubscribe'] || (e == 'ChangeProfile' && (!has(self.sources) || self.sources.size() == 0 || 'Recipient' in self.sources)))",message="events must have Subscribe, Unsubscribe, or ChangeProfile with the source Recipient where payload.format is Mailingwork: nothing would be sent otherwise"
type WebhookSubscriptionSpec struct {
	// app is a free name for filtering: kubectl get webhooksubscriptions
	// --field-selector spec.app=crm. At most 63 characters.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	App string `json:"app,omitempty"`

	// events are the types of events that are sent. Empty means all. None, alone,
	// sends operationalEvents and no events of contacts.
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

	// filter says which of these events are sent: a CEL expression over the variable
	// event whose result is true for them, such as
	// event.contact.standardFields.COUNTRY == "DE". One that does not compile, or
	// could cost too much, is not accepted; an event that it fails with is set
	// aside. Without a filter all are sent. 1 to 4096 characters.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Filter string `json:"filter,omitempty"`

	// callback is what is called.
	//
	// +required
	Callback Callback `json:"callback,omitzero"`

	// payload is what a call carries.
	//
	// +optional
	Payload Payload `json:"payload,omitzero"`

	// signing says how calls are signed, and with which secret.
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

	// deactivation says when a callback that is down is no longer called.
	//
	// +optional
	Deactivation Deactivation `json:"deactivation,omitzero"`

	// buffer says what is kept for a callback that was deactivated.
	//
	// +optional
	Buffer Buffer `json:"buffer,omitzero"`

	// replay bounds how hard a replay calls the callback.
	//
	// +optional
	Replay ReplayLimit `json:"replay,omitzero"`

	// operationalEvents are what else is sent: what happens to the
	// WebhookSubscriptions and ApiKeys of the namespace, this one left out. They
	// need payload.format Standard or Template. sources, lists and filter say nothing
	// of them. Empty means none.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=4
	OperationalEvents []OperationalEvent `json:"operationalEvents,omitempty"`

	// notify says who is told by mail that the callback was deactivated.
	//
	// +optional
	Notify Notify `json:"notify,omitzero"`

	// suspend holds the subscription: while it is true nothing is sent, events
	// wait, and they are sent once it is lifted.
	//
	// +optional
	Suspend *bool `json:"suspend,omitempty"`
}

// EventType is what happened to a contact: Create (it is stored for the first
// time), Subscribe (its permission goes from none to any other), Unsubscribe
// (it leaves), ChangeProfile (a field changes), Delete (it is removed). None is
// none of them.
//
// +kubebuilder:validation:Enum=Create;Subscribe;Unsubscribe;ChangeProfile;Delete;None
type EventType string

// EventSource is where an event comes from: API (a call), Console (an
// operator), Recipient (the contact itself). The set is MailUp's.
//
// +kubebuilder:validation:Enum=API;Console;Recipient
type EventSource string

// Retry says when a failed call is repeated.
type Retry struct {
	// intervals are the waits before the first, second, … retry of an event,
	// each from 1s to 24h. Five times 5m by default. When they are used up, the
	// event is set aside, or the callback is deactivated: see deactivation.
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

	// requestsPerSecond is how many calls may begin in a second, retries and
	// replays among them, evenly spread. 1 to 10000, without a limit by default.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	RequestsPerSecond int32 `json:"requestsPerSecond,omitempty"`
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

// GetConditions returns the conditions of the status.
func (s *WebhookSubscription) GetConditions() []metav1.Condition { return s.Status.Conditions }
