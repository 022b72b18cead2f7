package dispatcher

import (
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
)

// mailUp is the form that MailUp's webhooks send: parameters whose values have
// placeholders in them.
type mailUp struct {
	parameters []v1alpha1.PayloadParameter
	// byGet puts the form into the query.
	byGet bool
}

const contentTypeForm = "application/x-www-form-urlencoded"

// mailUpTime is how the vendor writes times: milliseconds, and two digits of
// offset. The offset is always +00 here.
const mailUpTime = "2006-01-02T15:04:05.000-07"

// mailUpChannel is the vendor's number of the channel Mail, the only one there is.
const mailUpChannel = "0"

// mailUpTypes are the events' names. The vendor has no CREATE.
var mailUpTypes = map[v1alpha1.EventType]string{
	contact.EventCreate:        "CREATE",
	contact.EventSubscribe:     "SUBSCRIBE",
	contact.EventUnsubscribe:   "UNSUBSCRIBE",
	contact.EventChangeProfile: "CHANGEPROFILE",
	contact.EventDelete:        "DELETE",
}

// placeholder is what stands in a value for something of the event. The schema
// lets no unknown one pass.
var placeholder = regexp.MustCompile(`\[[^\[\]]+\]`)

// fieldPlaceholder begins the placeholder of a standard or a custom field.
const fieldPlaceholder = "Field:"

func (mailUp) knows(event *contact.Event) bool { return mailUpTypes[event.Type] != "" }

func (m mailUp) render(event *contact.Event, list *listNumbers) (payload, error) {
	var form strings.Builder
	for i, parameter := range m.parameters {
		if i > 0 {
			form.WriteByte('&')
		}
		value := placeholder.ReplaceAllStringFunc(parameter.Value, func(found string) string {
			return mailUpValue(strings.Trim(found, "[]"), event, list)
		})
		form.WriteString(escapeLower(parameter.Name) + "=" + escapeLower(value))
		if form.Len() > maxPayload { // 50 parameters could have 17 MB
			return payload{}, errTooLong
		}
	}
	if m.byGet {
		return payload{query: form.String()}, nil
	}
	return payload{body: []byte(form.String()), contentType: contentTypeForm}, nil
}

// mailUpValue returns what a placeholder stands for: nothing for what there is
// no such thing of here, which are accounts (IdConsole), messages (IdNL), mobile
// phones (Prefix, Number) and groups.
func mailUpValue(name string, event *contact.Event, list *listNumbers) string {
	if field, ok := strings.CutPrefix(name, fieldPlaceholder); ok {
		return valueText(fieldValue(&event.Contact, field))
	}
	switch name {
	case "EventDate":
		return event.Time.UTC().Format(mailUpTime)
	case "IdList":
		return strconv.Itoa(int(list.id))
	case "EventType":
		return mailUpTypes[event.Type]
	case "EventSource":
		return strings.ToUpper(string(event.Source))
	case "Reason":
		return mailUpReason(event)
	case "Email":
		return event.Contact.Email
	case "Channel":
		return mailUpChannel
	default:
		return ""
	}
}

// mailUpReason returns the vendor's code of why a contact left. Maileon's names
// have none: a code that only resembles one would be a lie.
func mailUpReason(event *contact.Event) string {
	if event.Type != contact.EventUnsubscribe || event.Reason == nil || event.Reason.Code == nil {
		return ""
	}
	return strconv.Itoa(*event.Reason.Code)
}

// percentEscape is a percent escape as url.QueryEscape writes it.
var percentEscape = regexp.MustCompile(`%[0-9A-F]{2}`)

// escapeLower escapes text for a form, with percent escapes in lower case, as
// MailUp writes them.
func escapeLower(text string) string {
	return percentEscape.ReplaceAllStringFunc(url.QueryEscape(text), strings.ToLower)
}

// withQuery returns a URL with more text, if there is any, at the end of its query.
func withQuery(base, query string) string {
	if query == "" {
		return base
	}
	separator := "?"
	if _, own, has := strings.Cut(base, "?"); has {
		separator = "&"
		if own == "" || strings.HasSuffix(own, "&") {
			separator = ""
		}
	}
	return base + separator + query
}
