package dispatcher

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
)

// format makes the body of a call, which a GET has in its query.
type format interface {
	// knows tells whether the event exists in this format. One that does not
	// is not sent.
	knows(event *contact.Event) bool
	// render returns the body: the same bytes each time for the same event and list.
	render(event *contact.Event, list *listNumbers) (body []byte, contentType string, err error)
}

// newFormat returns the format of a payload: Standard where it names none.
func newFormat(payload *v1alpha1.Payload) format {
	switch payload.Format {
	case v1alpha1.FormatMailingwork:
		return mailingwork{}
	case v1alpha1.FormatMailUp:
		return mailUp{parameters: payload.Parameters}
	default:
		return standard{}
	}
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

// customText returns a custom field's value as text.
func customText(value any) string {
	if number, ok := value.(float64); ok {
		return strconv.FormatFloat(number, 'f', -1, 64)
	}
	return fmt.Sprint(value)
}
