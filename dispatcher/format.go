package dispatcher

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"k8s.io/utils/ptr"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
)

// format makes what a call carries.
type format interface {
	// knows tells whether the event exists in this format. One that does not
	// is not sent.
	knows(event *contact.Event) bool
	// render returns the same bytes each time for the same event and list.
	render(event *contact.Event, list *listNumbers) (payload, error)
}

// payload is what one call carries.
type payload struct {
	// query is put behind the query that the URL has.
	query string
	// body may be empty, and has no contentType then.
	body        []byte
	contentType string
	// header is what a format has beside the headers of all calls.
	header map[string]string
}

// newFormat returns the format of a subscription: Standard where it names none.
func newFormat(spec *v1alpha1.WebhookSubscriptionSpec) format {
	switch spec.Payload.Format {
	case v1alpha1.FormatMailingwork:
		return mailingwork{}
	case v1alpha1.FormatMailUp:
		return mailUp{parameters: spec.Payload.Parameters, byGet: spec.Callback.Method == v1alpha1.MethodGet}
	case v1alpha1.FormatMaileon:
		return maileon{urlParameters: spec.Payload.URLParameters, bodyFields: spec.Payload.BodyFields}
	case v1alpha1.FormatTemplate:
		return newTemplate(spec.Payload.Template)
	default:
		return standard{cloudEvents: ptr.Deref(spec.Payload.CloudEvents, false)}
	}
}

// isOfContact tells whether an event is about a contact, one of those that
// spec.events can name.
func isOfContact(event *contact.Event) bool { return slices.Contains(contact.EventTypes, event.Type) }

const contentTypeJSON = "application/json"

// standard is JSON in the shape that Standard Webhooks 1.0 advises.
type standard struct {
	// cloudEvents adds the headers of CloudEvents.
	cloudEvents bool
}

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

func (standard) knows(event *contact.Event) bool {
	return isOfContact(event) || isOperational(event)
}

func (s standard) render(event *contact.Event, _ *listNumbers) (payload, error) {
	carried, err := jsonPayload(standardContents(event))
	if s.cloudEvents {
		carried.header = cloudEventHeader(event)
	}
	return carried, err
}

// standardContents returns what the body says, in JSON.
func standardContents(event *contact.Event) any {
	if isOperational(event) {
		return operationContents(event)
	}
	return standardBody{
		Type:      standardTypes[event.Type],
		Timestamp: event.Time,
		Data: standardData{
			Namespace: event.List.Namespace, List: event.List.Name,
			Source: event.Source, Changed: event.Changed, Reason: event.Reason,
			Contact: event.Contact.View(),
		},
	}
}

// cloudEventType is what the types of our events begin with as CloudEvents: names in
// reverse DNS, as CloudEvents 1.0 advises.
const cloudEventType = "dev.postbus."

// cloudEventHeader returns the attributes of an event as headers, by the binary
// content mode of CloudEvents 1.0. The body's type is its datacontenttype. None needs
// an escape: names of Kubernetes, numbers and times have no such characters. The
// address is in none, because proxies write headers into their logs.
func cloudEventHeader(event *contact.Event) map[string]string {
	header := map[string]string{
		"ce-specversion": "1.0",
		"ce-id":          event.ID,
		"ce-source":      "/namespaces/" + event.List.Namespace,
		"ce-type":        cloudEventType + cmp.Or(standardTypes[event.Type], string(event.Type)),
		"ce-time":        event.Time.UTC().Format(time.RFC3339Nano),
	}
	if isOperational(event) {
		header["ce-subject"] = event.Operation.Object()
	} else {
		header["ce-source"] += "/contactlists/" + event.List.Name
		header["ce-subject"] = strconv.FormatInt(event.Contact.ID, 10)
	}
	return header
}

// jsonPayload returns a payload whose body is a value in JSON.
func jsonPayload(value any) (payload, error) {
	body, err := json.Marshal(value)
	return payload{body: body, contentType: contentTypeJSON}, err
}

// fieldValue returns a standard or a custom field, nil when it is not set. No
// custom field can be called like a standard one.
func fieldValue(c *contact.Contact, name string) any {
	if text, ok := c.StandardFields[name]; ok {
		return text
	}
	return c.CustomFields[name]
}

// valueText returns a field's value as text, empty when it is not set.
func valueText(value any) string {
	switch value := value.(type) {
	case nil:
		return ""
	case float64:
		return strconv.FormatFloat(value, 'f', -1, 64)
	default:
		return fmt.Sprint(value)
	}
}
