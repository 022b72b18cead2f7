package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// The annotations that ask for something to be done once. Any new value is a new
// request, the same value again is none. Where a value has a meaning, such as a
// time, it ends at the first space: what follows may be anything, and makes a new
// value of one that was there before. Status answers each request.
const (
	// AnnotationReactivate reactivates a subscription that was deactivated. Its
	// value is free, usually the time.
	AnnotationReactivate = "postbus.dev/reactivate"
	// AnnotationReplayEvents says whether a reactivation sends the buffered
	// events: "true" does, anything else or nothing drops them. It is no request
	// by itself.
	AnnotationReplayEvents = "postbus.dev/replay-events"
	// AnnotationReplaySince sends the events from this time on again (RFC 3339).
	AnnotationReplaySince = "postbus.dev/replay-since"
	// AnnotationReplayUntil ends the range that AnnotationReplaySince begins (RFC
	// 3339); now where it is not given.
	AnnotationReplayUntil = "postbus.dev/replay-until"
	// AnnotationReplayEvent sends one event again. Its value is the event's id,
	// which receivers know as webhook-id.
	AnnotationReplayEvent = "postbus.dev/replay-event"
	// AnnotationReplayFailed sends the events again that were set aside. Its
	// value is free, usually "true".
	AnnotationReplayFailed = "postbus.dev/replay-failed"
	// AnnotationTest sends one marked test event. Its value is free, usually the
	// time.
	AnnotationTest = "postbus.dev/test"
)

// Deactivation says when a callback that is down is no longer called.
type Deactivation struct {
	// policy is when the subscription is deactivated. OnUnreachable, the default:
	// when an event has used up its retries and no call has succeeded since that
	// event's first one, or when the callback answers 410. Never: such an event
	// is set aside, and the others go on.
	//
	// +optional
	// +default="OnUnreachable"
	Policy DeactivationPolicy `json:"policy,omitempty"`
}

// DeactivationPolicy says when a subscription is deactivated.
//
// +kubebuilder:validation:Enum=OnUnreachable;Never
type DeactivationPolicy string

// The policies of deactivation.
const (
	DeactivateOnUnreachable DeactivationPolicy = "OnUnreachable"
	DeactivateNever         DeactivationPolicy = "Never"
)

// Buffer says what is kept for a callback that was deactivated.
type Buffer struct {
	// window is how long after the deactivation events are kept for the
	// subscription. Those that come later are lost to it. 1s to 720h, 120h (5
	// days) by default. A change of it holds from the next deactivation on.
	//
	// +optional
	// +default="120h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('720h')",message="buffer.window must be between 1s and 720h"
	Window *metav1.Duration `json:"window,omitempty"`
}

// ReplayLimit bounds how hard a replay calls the callback.
type ReplayLimit struct {
	// requestsPerSecond is how many calls of a replay are made in a second at
	// most, beside those of live events. 1 to 10000, 100 by default.
	//
	// +optional
	// +default=100
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	RequestsPerSecond int32 `json:"requestsPerSecond,omitempty"`
}

// OperationalEvent names something that happens to objects of Postbus rather
// than to a contact: a subscription's callback begins to fail, is deactivated, is
// reactivated; an ApiKey is about to expire.
//
// +kubebuilder:validation:Enum=subscription.failing;subscription.deactivated;subscription.reactivated;apikey.expiring
type OperationalEvent string

// The operational events.
const (
	OperationalFailing     OperationalEvent = "subscription.failing"
	OperationalDeactivated OperationalEvent = "subscription.deactivated"
	OperationalReactivated OperationalEvent = "subscription.reactivated"
	OperationalKeyExpiring OperationalEvent = "apikey.expiring"
)

// Notify says who is told that a callback was deactivated.
type Notify struct {
	// emails are the addresses that get a mail, with a link that reactivates. It
	// needs a mail server (--smtp-server of the dispatcher). An address gets at most
	// one mail an hour about a subscription, and 10 about all subscriptions of a
	// namespace; later deactivations are told by the next mail. --notice-domains can
	// restrict the addresses. At most 10.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=10
	// +kubebuilder:validation:items:MinLength=3
	// +kubebuilder:validation:items:MaxLength=254
	// +kubebuilder:validation:items:Pattern=`^[^@\s<>,;:"]+@[^@\s<>,;:"]+$`
	Emails []string `json:"emails,omitempty"`
}

// BufferStatus tells what is kept for a subscription that was deactivated.
type BufferStatus struct {
	// events is how many events wait for the reactivation: those that were unsent
	// or failed at the deactivation, and those that came until the end of the
	// window.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Events *int64 `json:"events,omitempty"`

	// until is when the window ends.
	//
	// +required
	Until metav1.Time `json:"until,omitzero"`

	// lostEvents is how many events came after the window and are lost to the
	// subscription. A replay by postbus.dev/replay-since can still send them
	// while the log has them.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	LostEvents *int64 `json:"lostEvents,omitempty"`

	// lostFrom is when the first of them happened. Not set while there are none.
	//
	// +optional
	LostFrom *metav1.Time `json:"lostFrom,omitempty"`

	// lostTo is when the last of them happened. Not set while there are none.
	//
	// +optional
	LostTo *metav1.Time `json:"lostTo,omitempty"`
}

// ReplayContent names what a replay sends again.
//
// +kubebuilder:validation:Enum=Buffer;Range;Event;Failed
type ReplayContent string

// What replays send again.
const (
	// ReplayOfBuffer: what was kept while the subscription was deactivated.
	ReplayOfBuffer ReplayContent = "Buffer"
	// ReplayOfRange: the events of a time.
	ReplayOfRange ReplayContent = "Range"
	// ReplayOfEvent: one event.
	ReplayOfEvent ReplayContent = "Event"
	// ReplayOfFailed: the events that were set aside.
	ReplayOfFailed ReplayContent = "Failed"
)

// ReplayState is how a replay stands.
//
// +kubebuilder:validation:Enum=Running;Completed;Interrupted
type ReplayState string

// The states of a replay.
const (
	// ReplayRunning: events are being sent.
	ReplayRunning ReplayState = "Running"
	// ReplayCompleted: each event was sent, or set aside because it failed.
	ReplayCompleted ReplayState = "Completed"
	// ReplayInterrupted: the callback was deactivated meanwhile. What was left is
	// in the buffer.
	ReplayInterrupted ReplayState = "Interrupted"
)

// ReplayStatus tells of the last replay, running or not.
type ReplayStatus struct {
	// of is what is sent again.
	//
	// +required
	Of ReplayContent `json:"of,omitempty"`

	// state is how the replay stands.
	//
	// +required
	State ReplayState `json:"state,omitempty"`

	// total is how many events the replay has.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Total *int64 `json:"total,omitempty"`

	// sent is how many of them the callback has taken.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Sent *int64 `json:"sent,omitempty"`

	// failed is how many of them used up their retries and were set aside.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Failed *int64 `json:"failed,omitempty"`

	// remaining is how many are still to be sent.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Remaining *int64 `json:"remaining,omitempty"`

	// startedAt is when the replay began.
	//
	// +required
	StartedAt metav1.Time `json:"startedAt,omitzero"`

	// finishedAt is when it ended. Not set while it is running.
	//
	// +optional
	FinishedAt *metav1.Time `json:"finishedAt,omitempty"`
}

// RequestType names what an annotation asks for.
//
// +kubebuilder:validation:Enum=Reactivate;ReplayRange;ReplayEvent;ReplayFailed;Test
type RequestType string

// What can be asked for.
const (
	RequestReactivate   RequestType = "Reactivate"
	RequestReplayRange  RequestType = "ReplayRange"
	RequestReplayEvent  RequestType = "ReplayEvent"
	RequestReplayFailed RequestType = "ReplayFailed"
	RequestTest         RequestType = "Test"
)

// RequestResult is what became of a request.
//
// +kubebuilder:validation:Enum=Pending;Done;Refused;Failed
type RequestResult string

// The results of requests.
const (
	// RequestPending: the dispatcher has not answered yet. A replay waits for the
	// one before it.
	RequestPending RequestResult = "Pending"
	// RequestDone: it was done, or a replay of it was begun.
	RequestDone RequestResult = "Done"
	// RequestRefused: it can't be done; the message says why.
	RequestRefused RequestResult = "Refused"
	// RequestFailed: it was tried and failed; the message says how. Of a test,
	// that the callback did not take the event.
	RequestFailed RequestResult = "Failed"
)

// RequestStatus answers the last request of a type.
type RequestStatus struct {
	// type is what was asked for.
	//
	// +required
	Type RequestType `json:"type,omitempty"`

	// value is the annotation's, so that people see which request is answered;
	// of a range the values of both annotations, with a slash between them.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=600
	Value string `json:"value,omitempty"`

	// result is what became of it.
	//
	// +required
	Result RequestResult `json:"result,omitempty"`

	// message says it in words.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`

	// time is when it was answered. Not set while it is pending.
	//
	// +optional
	Time *metav1.Time `json:"time,omitempty"`
}
