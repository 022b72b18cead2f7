package dispatcher

import (
	"net/url"
	"time"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/link"
)

// kindSubscription is the kind of the objects that the dispatcher raises
// operational events about.
const kindSubscription = "WebhookSubscription"

// subject is what an event is about: a contact, or an object. Events of one subject keep
// their order. Somebody who leaves and comes back is another contact to the store, and
// the same person to a receiver: it is the address that counts.
type subject struct {
	list    contact.ListKey
	address string
}

// isOperational tells whether an event tells of an object, not of a contact.
func isOperational(event *contact.Event) bool { return event.Operation != nil }

func subjectOf(event *contact.Event) subject { return subject{event.List, event.Address} }

// operationBody is an operational event in the format Standard.
type operationBody struct {
	Type      v1alpha1.EventType `json:"type"`
	Timestamp time.Time          `json:"timestamp"`
	Data      operationData      `json:"data"`
}

// operationData tells of an object. What an event of its type does not have is
// not there.
type operationData struct {
	Namespace       string                 `json:"namespace"`
	Kind            string                 `json:"kind"`
	Name            string                 `json:"name"`
	Reason          v1alpha1.FailureReason `json:"reason,omitempty"`
	HTTPStatus      int                    `json:"httpStatus,omitempty"`
	FailingSince    time.Time              `json:"failingSince,omitzero"`
	DeactivationDue time.Time              `json:"deactivationDue,omitzero"`
	BufferedUntil   time.Time              `json:"bufferedUntil,omitzero"`
	BufferedEvents  *int64                 `json:"bufferedEvents,omitempty"`
	Replay          *bool                  `json:"replay,omitempty"`
	ExpiresAt       time.Time              `json:"expiresAt,omitzero"`
	ReactivateURL   string                 `json:"reactivateURL,omitempty"`
}

// operationContents returns what the body of an operational event says.
func operationContents(event *contact.Event) operationBody {
	told := event.Operation
	data := operationData{
		Namespace: event.List.Namespace, Kind: told.Kind, Name: told.Name,
		Reason: told.Reason, HTTPStatus: told.HTTPStatus, FailingSince: told.FailingSince,
		DeactivationDue: told.DeactivationDue, BufferedUntil: told.BufferedUntil, ExpiresAt: told.ExpiresAt,
		ReactivateURL: told.ReactivateURL,
	}
	switch event.Type {
	case contact.EventDeactivated:
		data.BufferedEvents = &told.Events
	case contact.EventReactivated:
		data.BufferedEvents, data.Replay = &told.Events, &told.Replay
	}
	return operationBody{Type: event.Type, Timestamp: event.Time, Data: data}
}

// reactivationLinks makes links that reactivate.
type reactivationLinks struct {
	// keys sign the links.
	keys *link.Ring
	// base is what links begin with; nil when that is not known.
	base *url.URL
}

// to returns an event with the link that ends its deactivation, if it tells of one
// and a link can be made.
func (l reactivationLinks) to(event *contact.Event) *contact.Event {
	if l.base == nil || (event.Type != contact.EventDeactivated && event.Type != contact.EventNotice) {
		return event
	}
	linked, operation := *event, *event.Operation
	operation.ReactivateURL = l.keys.ReactivationURL(l.base, reactivationOf(event))
	linked.Operation = &operation
	return &linked
}

// reactivationOf returns what the link says that ends the deactivation that an
// event tells of.
func reactivationOf(event *contact.Event) link.Reactivation {
	return link.Reactivation{Namespace: event.List.Namespace, Name: event.Operation.Name, DeactivatedAt: event.Time}
}

// testOperation makes a test event, which tells of a contact, one that a
// subscription to nothing but operational events asks for, about no object.
func testOperation(s *subscription, event *contact.Event) *contact.Event {
	event.Type = v1alpha1.EventType(s.filter.Operations[0])
	event.List.Name, event.Source, event.Contact = "", "", contact.Contact{}
	event.Operation = &contact.Operation{Kind: kindSubscription, Name: "test"}
	if event.Type == contact.EventKeyExpiring {
		event.Operation.Kind, event.Operation.ExpiresAt = "ApiKey", event.Time
	}
	return event
}
