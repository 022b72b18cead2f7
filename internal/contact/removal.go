package contact

import (
	"time"

	"postbus.dev/postbus/api/v1alpha1"
)

// Removal is a checked call that ends a contact. As with Maileon, unsubscribing
// ends it too: the next call with its address makes a new one.
type Removal struct {
	// Event is EventUnsubscribe or EventDelete.
	Event v1alpha1.EventType
	// EventSource is what the event carries.
	EventSource v1alpha1.EventSource
	// Time is when the call was made.
	Time time.Time
	// Reason is why an unsubscriber leaves, nil when nobody said.
	Reason *Reason
	// Forget removes the person from the event log too, on an EventDelete.
	Forget bool
}

// EndWithList says that a contact ends because its list does. No event tells of it: the
// subscriptions that name the list wait for one of that name.
func EndWithList(current *Contact) Decision {
	if current == nil {
		return Decision{}
	}
	return Decision{Contact: *current, Changed: true, Removed: true}
}

// Decide says what the call does. A contact that is not there is no error: the
// caller has what it wanted.
func (r Removal) Decide(current *Contact) Decision {
	event := Event{Type: r.Event, Source: r.EventSource, Time: r.Time, Reason: r.Reason, Forget: r.Forget}
	switch {
	case current != nil:
		return Decision{Contact: *current, Changed: true, Removed: true, Events: []Event{event}}
	case r.Forget: // events of the past may still know the person
		return Decision{Changed: true, Events: []Event{event}}
	default:
		return Decision{}
	}
}
