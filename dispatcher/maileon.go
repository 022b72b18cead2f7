package dispatcher

import (
	"net/url"
	"slices"
	"strings"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
)

// maileon is what Maileon's outgoing webhooks send: parameters in the URL and one
// flat JSON object, each if something is chosen for it. Nothing in a call names
// its event, so it knows all that are about contacts.
type maileon struct {
	urlParameters, bodyFields []v1alpha1.PayloadField
}

// maileonTime is how the vendor writes times in its reports. It names no zone;
// this is UTC.
const maileonTime = "2006-01-02 15:04:05"

// The vendor's names of how a contact left. It has more, of which nothing is known
// here.
const (
	maileonSourceLink   = "link"
	maileonSourceHeader = "list-unsubscribe-header"
	maileonSourceOther  = "other"
)

// maileonHeaderCodes are MailUp's codes of reasons that come from a mail's header
// List-Unsubscribe: its link, and its address.
var maileonHeaderCodes = []int{32, 64}

func (maileon) knows(event *contact.Event) bool { return isOfContact(event) }

func (m maileon) render(event *contact.Event, _ *listNumbers) (payload, error) {
	var parameters []string
	for _, parameter := range m.urlParameters {
		value := valueText(maileonValue(&parameter, event))
		parameters = append(parameters, url.QueryEscape(parameter.Name)+"="+url.QueryEscape(value))
	}
	var carried payload
	if len(m.bodyFields) > 0 {
		body := map[string]any{}
		for _, field := range m.bodyFields {
			body[field.Name] = maileonValue(&field, event)
		}
		var err error
		if carried, err = jsonPayload(body); err != nil {
			return payload{}, err
		}
	}
	carried.query = strings.Join(parameters, "&")
	return carried, nil
}

// maileonValue returns what a field of a call stands for, nil when that is
// nothing.
func maileonValue(field *v1alpha1.PayloadField, event *contact.Event) any {
	switch {
	case field.Constant != "":
		return field.Constant
	case field.EventField != "":
		return maileonEventValue(field.EventField, event)
	case field.CustomField != "":
		return event.Contact.CustomFields[field.CustomField]
	}
	switch field.StandardField {
	case v1alpha1.FieldEmail:
		return event.Contact.Email
	case v1alpha1.FieldExternalID:
		return textOrNil(event.Contact.ExternalID)
	default:
		return textOrNil(event.Contact.StandardFields[string(field.StandardField)])
	}
}

func textOrNil(text string) any {
	if text == "" {
		return nil
	}
	return text
}

// maileonEventValue returns something of the event: nil for messages and
// transactions, which there are none of here, and for the value that a field had
// before, which the log does not have.
func maileonEventValue(name v1alpha1.EventField, event *contact.Event) any {
	switch name {
	case v1alpha1.EventFieldTimestamp:
		return event.Time.UTC().Format(maileonTime)
	case v1alpha1.EventFieldSource:
		return maileonSource(event)
	case v1alpha1.EventFieldProperty:
		return textOrNil(strings.Join(event.Changed, ","))
	case v1alpha1.EventFieldNewValue:
		return changedValue(event)
	default:
		return nil
	}
}

// maileonSource returns how a contact left, in the vendor's words; nil of events
// that are none.
func maileonSource(event *contact.Event) any {
	byHeader := event.Reason != nil && event.Reason.Code != nil && slices.Contains(maileonHeaderCodes, *event.Reason.Code)
	switch {
	case event.Type != contact.EventUnsubscribe:
		return nil
	case byHeader:
		return maileonSourceHeader
	case event.Source == contact.SourceRecipient:
		return maileonSourceLink
	default:
		return maileonSourceOther
	}
}

// changedValue returns what the field that changed is now. The vendor changes one
// field at a time; where several changed, or the permission did, it is nil.
func changedValue(event *contact.Event) any {
	if len(event.Changed) != 1 {
		return nil
	}
	if event.Changed[0] == string(v1alpha1.FieldExternalID) {
		return textOrNil(event.Contact.ExternalID)
	}
	return fieldValue(&event.Contact, event.Changed[0])
}
