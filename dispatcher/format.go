package dispatcher

import (
	"encoding/json"
	"time"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
)

// format makes the body of a call.
type format interface {
	// knows tells whether the event exists in this format. One that does not
	// is not sent.
	knows(event *contact.Event) bool
	// render returns the body: the same bytes each time for the same event and list.
	render(event *contact.Event, list *listNumbers) (body []byte, contentType string, err error)
}

var formats = map[v1alpha1.PayloadFormat]format{
	v1alpha1.FormatStandard:    standard{},
	v1alpha1.FormatMailingwork: mailingwork{},
}

const contentTypeJSON = "application/json"

// standard is JSON in the shape that Standard Webhooks 1.0 advises.
type standard struct{}

// standardTypes are the events' names in the format Standard.
var standardTypes = map[v1alpha1.EventType]string{
	contact.EventCreate:        "contact.created",
	contact.EventSubscribe:     "contact.subscribed",
	contact.EventUnsubscribe:   "contact.unsubscribed",
	contact.EventChangeProfile: "contact.profile_changed",
	contact.EventDelete:        "contact.deleted",
}

type standardBody struct {
	Type      string       `json:"type"`
	Timestamp time.Time    `json:"timestamp"`
	Data      standardData `json:"data"`
}

type standardData struct {
	Namespace string               `json:"namespace"`
	List      string               `json:"list"`
	Source    v1alpha1.EventSource `json:"source"`
	// Changed are the fields that a contact.profile_changed is about.
	Changed []string `json:"changed,omitempty"`
	// Reason is why the contact of a contact.unsubscribed left.
	Reason  *contact.Reason `json:"reason,omitempty"`
	Contact contact.View    `json:"contact"`
}

func (standard) knows(event *contact.Event) bool { return standardTypes[event.Type] != "" }

func (standard) render(event *contact.Event, _ *listNumbers) ([]byte, string, error) {
	body, err := json.Marshal(standardBody{
		Type:      standardTypes[event.Type],
		Timestamp: event.Time,
		Data: standardData{
			Namespace: event.List.Namespace, List: event.List.Name,
			Source: event.Source, Changed: event.Changed, Reason: event.Reason,
			Contact: event.Contact.View(),
		},
	})
	return body, contentTypeJSON, err
}
