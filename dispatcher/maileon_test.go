package dispatcher

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
)

// profileChanged is a change by the contact itself, of one field.
func profileChanged() *contact.Event {
	e := subscribed()
	e.Type, e.Changed = contact.EventChangeProfile, []string{"special date"}
	return e
}

func changed(names ...string) *contact.Event {
	e := profileChanged()
	e.Changed = names
	return e
}

// leftBy is an Unsubscribe for a reason of MailUp's, -1 for none.
func leftBy(source v1alpha1.EventSource, code int) *contact.Event {
	e := subscribed()
	e.Type, e.Source = contact.EventUnsubscribe, source
	if code >= 0 {
		e.Reason = &contact.Reason{Code: &code}
	}
	return e
}

func TestMaileonFields(t *testing.T) {
	event := func(name v1alpha1.EventField) v1alpha1.PayloadField { return v1alpha1.PayloadField{EventField: name} }
	for name, row := range map[string]struct {
		field v1alpha1.PayloadField
		event *contact.Event
		query string // what stands behind "ä n="
		body  string
	}{
		"the address":                    {v1alpha1.PayloadField{StandardField: "email"}, subscribed(), "max.muster%40example.com", `"max.muster@example.com"`},
		"the external id":                {v1alpha1.PayloadField{StandardField: "external_id"}, subscribed(), "c-1", `"c-1"`},
		"no external id":                 {v1alpha1.PayloadField{StandardField: "external_id"}, &contact.Event{Type: contact.EventDelete}, "", `null`},
		"a standard field":               {v1alpha1.PayloadField{StandardField: "LASTNAME"}, subscribed(), "Muster+%3C%26%3E", `"Muster <&>"`},
		"a standard field that is unset": {v1alpha1.PayloadField{StandardField: "CITY"}, subscribed(), "", `null`},
		"a custom field":                 {v1alpha1.PayloadField{CustomField: "special date"}, subscribed(), "2020-12-12", `"2020-12-12"`},
		"a custom number":                {v1alpha1.PayloadField{CustomField: "score"}, subscribed(), "1.5", `1.5`},
		"a custom field that is unset":   {v1alpha1.PayloadField{CustomField: "nothing"}, subscribed(), "", `null`},
		"a constant":                     {v1alpha1.PayloadField{Constant: "a+b [Email]"}, subscribed(), "a%2Bb+%5BEmail%5D", `"a+b [Email]"`},
		"the time":                       {event("timestamp"), subscribed(), "2025-11-11+09%3A27%3A29", `"2025-11-11 09:27:29"`},
		"a message":                      {event("msg_id"), subscribed(), "", `null`},
		"a transaction":                  {event("transaction_id"), subscribed(), "", `null`},
		"the old value":                  {event("old_value"), profileChanged(), "", `null`},
		"the field that changed":         {event("property"), profileChanged(), "special+date", `"special date"`},
		"several that changed":           {event("property"), changed("CITY", "ZIP"), "CITY%2CZIP", `"CITY,ZIP"`},
		"none that changed":              {event("property"), subscribed(), "", `null`},
		"the new value":                  {event("new_value"), profileChanged(), "2020-12-12", `"2020-12-12"`},
		"a new standard value":           {event("new_value"), changed("FIRSTNAME"), "Max", `"Max"`},
		"a new external id":              {event("new_value"), changed("external_id"), "c-1", `"c-1"`},
		"a value that was cleared":       {event("new_value"), changed("CITY"), "", `null`},
		"new values of several":          {event("new_value"), changed("FIRSTNAME", "LASTNAME"), "", `null`},
		"how one subscribed":             {event("source"), subscribed(), "", `null`},
		"left by the link":               {event("source"), leftBy(contact.SourceRecipient, 2), "link", `"link"`},
		"left, without a reason":         {event("source"), leftBy(contact.SourceRecipient, -1), "link", `"link"`},
		"left by one click":              {event("source"), leftBy(contact.SourceRecipient, 32), "list-unsubscribe-header", `"list-unsubscribe-header"`},
		"left by the header's address":   {event("source"), leftBy(contact.SourceAPI, 64), "list-unsubscribe-header", `"list-unsubscribe-header"`},
		"removed by a call":              {event("source"), leftBy(contact.SourceAPI, -1), "other", `"other"`},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			row.field.Name = "ä n"
			f := maileon{urlParameters: []v1alpha1.PayloadField{row.field}, bodyFields: []v1alpha1.PayloadField{row.field}}
			g.Expect(f.knows(row.event)).To(BeTrue())
			carried, err := f.render(row.event, numbers)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(carried.query).To(Equal("%C3%A4+n=" + row.query))
			g.Expect(string(carried.body)).To(MatchJSON(`{"ä n": ` + row.body + `}`))
			g.Expect(carried.contentType).To(Equal("application/json"))
		})
	}
}

func TestMaileonParts(t *testing.T) {
	g := NewWithT(t)
	fields := []v1alpha1.PayloadField{{Name: "email", StandardField: "email"}, {Name: "a", Constant: "1"}}
	carried, err := maileon{}.render(subscribed(), numbers)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(carried).To(Equal(payload{}), "an empty POST when nothing is chosen")
	carried, err = maileon{urlParameters: fields}.render(subscribed(), numbers)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(carried).To(Equal(payload{query: "email=max.muster%40example.com&a=1"}), "in the order in which they are listed")
}

func TestTimeoutOfFormats(t *testing.T) {
	for name, row := range map[string]struct {
		format  v1alpha1.PayloadFormat
		timeout *metav1.Duration
		want    time.Duration
	}{
		"Maileon":               {v1alpha1.FormatMaileon, nil, 5 * time.Second},
		"Maileon with a longer": {v1alpha1.FormatMaileon, &metav1.Duration{Duration: 10 * time.Second}, 10 * time.Second},
		"another":               {v1alpha1.FormatMailUp, nil, 10 * time.Second},
		"none":                  {"", nil, 10 * time.Second},
	} {
		object := &v1alpha1.WebhookSubscription{Spec: v1alpha1.WebhookSubscriptionSpec{
			Payload: v1alpha1.Payload{Format: row.format}, Callback: v1alpha1.Callback{Timeout: row.timeout},
		}}
		NewWithT(t).Expect(newSubscription(object).timeout).To(Equal(row.want), name)
	}
}
