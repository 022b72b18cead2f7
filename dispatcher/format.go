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
	Contact standardContact `json:"contact"`
}

// standardContact is the part of a contact that receivers are shown, under
// names that stay when the stored contact changes.
type standardContact struct {
	ID               int64              `json:"id,string"`
	Email            string             `json:"email"`
	ExternalID       string             `json:"externalId,omitempty"`
	Permission       contact.Permission `json:"permission"`
	StandardFields   map[string]string  `json:"standardFields,omitempty"`
	CustomFields     map[string]any     `json:"customFields,omitempty"`
	CustomSource     string             `json:"customSource,omitempty"`
	SubscriptionPage string             `json:"subscriptionPage,omitempty"`
	Revision         int64              `json:"revision"`
	CreatedAt        time.Time          `json:"createdAt"`
	UpdatedAt        time.Time          `json:"updatedAt"`
}

func (standard) knows(event *contact.Event) bool { return standardTypes[event.Type] != "" }

func (standard) render(event *contact.Event, _ *listNumbers) ([]byte, string, error) {
	c := &event.Contact
	body, err := json.Marshal(standardBody{
		Type:      standardTypes[event.Type],
		Timestamp: event.Time,
		Data: standardData{
			Namespace: event.List.Namespace, List: event.List.Name,
			Source: event.Source, Changed: event.Changed, Reason: event.Reason,
			Contact: standardContact{
				ID: c.ID, Email: c.Email, ExternalID: c.ExternalID, Permission: c.Permission,
				StandardFields: c.StandardFields, CustomFields: c.CustomFields,
				CustomSource: c.Source, SubscriptionPage: c.SubscriptionPage,
				Revision: c.Revision, CreatedAt: c.CreatedAt, UpdatedAt: c.UpdatedAt,
			},
		},
	})
	return body, contentTypeJSON, err
}
