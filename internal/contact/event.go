package contact

import (
	"slices"
	"time"

	"postbus.dev/postbus/api/v1alpha1"
)

// The types of events, as a WebhookSubscription names them. One call can raise
// several, in this order.
const (
	EventCreate        v1alpha1.EventType = "Create"
	EventSubscribe     v1alpha1.EventType = "Subscribe"
	EventUnsubscribe   v1alpha1.EventType = "Unsubscribe"
	EventChangeProfile v1alpha1.EventType = "ChangeProfile"
	EventDelete        v1alpha1.EventType = "Delete"
)

// EventNone is no event: as the only one of spec.events it asks for none of
// contacts.
const EventNone v1alpha1.EventType = "None"

// EventNotice is in the log too: an address is to be mailed that a callback was
// deactivated. It comes behind the operational event, is an event of its own for
// each address, and means no subscription either.
const EventNotice v1alpha1.EventType = "Notice"

// EventListRemoved is in the log too: a list was deleted together with its contacts and
// events, which the log no longer has. Operation names the list. It is for dispatchers,
// which drop what they have in memory of the list, and no subscription can name it.
const EventListRemoved v1alpha1.EventType = "ListRemoved"

// EventOptInMail is in the log beside them and means no subscription: an opt-in
// was started, and the dispatcher mails its link.
const EventOptInMail v1alpha1.EventType = "OptInMail"

// The operational events are in the log too. They tell of an object, not of a
// contact, and their list has a namespace but no name.
const (
	EventFailing     = v1alpha1.EventType(v1alpha1.OperationalFailing)
	EventDeactivated = v1alpha1.EventType(v1alpha1.OperationalDeactivated)
	EventReactivated = v1alpha1.EventType(v1alpha1.OperationalReactivated)
	EventKeyExpiring = v1alpha1.EventType(v1alpha1.OperationalKeyExpiring)
)

// EventTypes are the types of events about contacts, those that subscriptions
// name in spec.events.
var EventTypes = []v1alpha1.EventType{EventCreate, EventSubscribe, EventUnsubscribe, EventChangeProfile, EventDelete}

// LogTypes are all types of events that the log has. Whoever follows the log must
// read them all, or would wait for ever behind one that is left out.
var LogTypes = append(slices.Clone(EventTypes),
	EventOptInMail, EventNotice, EventListRemoved, EventFailing, EventDeactivated, EventReactivated, EventKeyExpiring)

// The sources of events, as a WebhookSubscription names them.
const (
	SourceAPI       v1alpha1.EventSource = "API"
	SourceConsole   v1alpha1.EventSource = "Console"
	SourceRecipient v1alpha1.EventSource = "Recipient"
)

// Event is something that happened to a contact, as the log keeps it.
type Event struct {
	// Position is the event's place in the log, given by the store: later
	// commits have higher positions.
	Position int64
	// ID names the event everywhere, given by the store; receivers see it as
	// webhook-id, the same over retries and replays.
	ID string
	// List is the list that the contact is on.
	List ListKey
	// Address is the contact's address as addresses are compared, given by the
	// store. Empty once the event is a tombstone. On an operational event it is
	// Operation.Object.
	Address string
	// Type is what happened.
	Type v1alpha1.EventType
	// Source is where it came from.
	Source v1alpha1.EventSource
	// Time is when it happened.
	Time time.Time
	// Contact is the contact after the event.
	Contact Contact
	// Changed are the names of the fields that a ChangeProfile changed, sorted:
	// a standard field's name, a custom field's, "external_id" or "permission".
	Changed []string
	// Reason is why the contact left, on an Unsubscribe; nil when nobody said.
	Reason *Reason
	// Forget: whoever had the address is to be forgotten, on a Delete. Earlier
	// events of the address are gone from the log. The event's contact is zero
	// when there was none to remove; nobody is told then.
	Forget bool
	// Operation is what an operational event tells; nil on any other.
	Operation *Operation
	// Hops is how many callbacks one after the other led to the event; 0 when
	// nobody's callback did.
	Hops int
	// Trace is the W3C traceparent of the call that raised the event; empty when that
	// is not traced.
	Trace string
	// Size is what Measure returns, given by the store when it appends or reads the
	// event. Whatever keeps events in memory is bounded by their sizes.
	Size int
}

// Erases reports whether the event removes others from the log, see Removes.
func (e *Event) Erases() bool { return e.Forget || e.Type == EventListRemoved }

// Removes reports whether the event removes another one from the log: an earlier event of
// a person who is forgotten, or of a list that is removed.
func (e *Event) Removes(other *Event) bool {
	switch {
	case other.Position >= e.Position:
		return false
	case e.Forget:
		return other.List == e.List && other.Address == e.Address
	default:
		return e.Type == EventListRemoved && other.List == ListKey{Namespace: e.List.Namespace, Name: e.Operation.Name}
	}
}

// Operation is what happened to an object. Which fields are set depends on the
// event's type.
type Operation struct {
	// Kind and Name are the object's; its namespace is that of the event's list.
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Reason and HTTPStatus are of the last failed attempt.
	Reason     v1alpha1.FailureReason `json:"reason,omitempty"`
	HTTPStatus int                    `json:"httpStatus,omitempty"`
	// FailingSince is when calls began to fail.
	FailingSince time.Time `json:"failingSince,omitzero"`
	// DeactivationDue is when the callback will be deactivated.
	DeactivationDue time.Time `json:"deactivationDue,omitzero"`
	// BufferedUntil is when a deactivated subscription's buffer ends.
	BufferedUntil time.Time `json:"bufferedUntil,omitzero"`
	// Replay tells of a reactivation that the buffered events are sent.
	Replay bool `json:"replay,omitempty"`
	// Events is how many events were buffered when that happened.
	Events int64 `json:"events,omitempty"`
	// ExpiresAt is when the key expires.
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
	// Recipient is the address that a notice is mailed to.
	Recipient string `json:"recipient,omitempty"`
	// ReactivateURL is the link that ends a deactivation. It is made when it is
	// sent, and never stored.
	ReactivateURL string `json:"-"`
}

// Object names the object among all of its namespace, in a form that no address
// has.
func (o *Operation) Object() string { return o.Kind + "/" + o.Name }

// ListKey names a ContactList of any namespace.
type ListKey struct {
	Namespace string
	Name      string
}

// Decision is what a call does to a contact.
type Decision struct {
	// Contact is the contact after the call.
	Contact Contact
	// Refused is why the call is refused, an *InputError; nil when it is not. The store
	// changes nothing then and returns it.
	Refused error
	// Changed tells whether there is anything to store. Without it there are
	// no events either.
	Changed bool
	// Created tells whether the contact did not exist before.
	Created bool
	// Removed tells whether the contact was there and is stored no more; Contact
	// is what it was.
	Removed bool
	// OptInStarted tells whether a double opt-in was started. The store appends
	// an EventOptInMail to the log then, behind the events.
	OptInStarted bool
	// Repeated tells that this repeats a call that was answered before: nothing
	// was done now. The store sets it.
	Repeated bool
	// LogBytes is how many bytes the call appended to the log: the encoded payloads
	// of its events, and of an EventOptInMail. The store sets it.
	LogBytes int
	// Events are what the call raises, in order. The store gives them Position,
	// ID, List and Contact.
	Events []Event
}
