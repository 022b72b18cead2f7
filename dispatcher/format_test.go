package dispatcher

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/utils/ptr"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/testkit"
)

var numbers = &listNumbers{
	id:             1,
	standardFields: map[string]int32{"FIRSTNAME": 2},
	customFields:   map[string]int32{"special date": 7},
}

// subscribed is the event of the vendor's own sample, at 2025-11-11 09:27:29.
func subscribed() *contact.Event {
	at := time.Date(2025, 11, 11, 9, 27, 29, 5e8, time.UTC)
	return &contact.Event{
		Position: 371, ID: "evt_1", List: contact.ListKey{Namespace: "marketing", Name: "newsletter"},
		Type: contact.EventSubscribe, Source: contact.SourceRecipient, Time: at,
		Contact: contact.Contact{
			ID: 6049065, Email: "max.muster@example.com", ExternalID: "c-1", Permission: contact.PermissionDoubleOptIn,
			StandardFields: map[string]string{"FIRSTNAME": "Max", "LASTNAME": "Muster <&>"},
			CustomFields:   map[string]any{"special date": "2020-12-12", "score": 1.5},
			Source:         "form", SubscriptionPage: "https://example.com/", Revision: 3, CreatedAt: at, UpdatedAt: at,
			OptIn: &contact.OptIn{Mailing: "dh6hdjk9", RequestedAt: at},
		},
	}
}

func render(t *testing.T, f format, e *contact.Event) string {
	t.Helper()
	g := NewWithT(t)
	g.Expect(f.knows(e)).To(BeTrue())
	carried, err := f.render(e, numbers)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(carried.query).To(BeEmpty())
	g.Expect(carried.contentType).To(Equal("application/json"))
	return string(carried.body)
}

func TestStandard(t *testing.T) {
	g := NewWithT(t)
	g.Expect(render(t, standard{}, subscribed())).To(MatchJSON(`{
		"type": "contact.subscribed",
		"timestamp": "2025-11-11T09:27:29.5Z",
		"data": {
			"namespace": "marketing", "list": "newsletter", "source": "Recipient",
			"contact": {
				"id": "6049065", "email": "max.muster@example.com", "externalId": "c-1", "permission": 4,
				"standardFields": {"FIRSTNAME": "Max", "LASTNAME": "Muster <&>"},
				"customFields": {"special date": "2020-12-12", "score": 1.5},
				"customSource": "form", "subscriptionPage": "https://example.com/", "revision": 3,
				"createdAt": "2025-11-11T09:27:29.5Z", "updatedAt": "2025-11-11T09:27:29.5Z"
			}
		}
	}`))
	for kind, name := range map[v1alpha1.EventType]string{
		contact.EventCreate: "contact.created", contact.EventUnsubscribe: "contact.unsubscribed",
		contact.EventChangeProfile: "contact.profile_changed", contact.EventDelete: "contact.deleted",
	} {
		e := subscribed()
		e.Type, e.Changed = kind, []string{"FIRSTNAME"}
		g.Expect(render(t, standard{}, e)).To(And(ContainSubstring(`"type":"`+name+`"`), ContainSubstring(`"changed":["FIRSTNAME"]`)))
	}
	left := subscribed()
	code := 2
	left.Type, left.Reason = contact.EventUnsubscribe, &contact.Reason{Code: &code, Text: "moved"}
	g.Expect(render(t, standard{}, left)).To(ContainSubstring(`"reason":{"code":2,"text":"moved"}`))
	first, again := render(t, standard{}, subscribed()), render(t, standard{}, subscribed())
	g.Expect(first).To(Equal(again), "a retry carries the same bytes")
}

func TestCloudEventHeaders(t *testing.T) {
	g := NewWithT(t)
	plain, err := newFormat(&v1alpha1.WebhookSubscriptionSpec{}).render(subscribed(), numbers)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(plain.header).To(BeEmpty())
	carried, err := newFormat(&v1alpha1.WebhookSubscriptionSpec{Payload: v1alpha1.Payload{CloudEvents: ptr.To(true)}}).render(subscribed(), numbers)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(carried.body).To(Equal(plain.body), "only headers are added")
	g.Expect(carried.header).To(Equal(map[string]string{
		"ce-specversion": "1.0", "ce-id": "evt_1", "ce-source": "/namespaces/marketing/contactlists/newsletter",
		"ce-type": "dev.postbus.contact.subscribed", "ce-time": "2025-11-11T09:27:29.5Z", "ce-subject": "6049065",
	}))
}

func TestMailingwork(t *testing.T) {
	g := NewWithT(t)
	const common = `"id":371,"subscriber_id":6049065,"fields":[{"id":1,"value":"max.muster@example.com"},{"id":2,"value":"Max"},{"id":7,"value":"2020-12-12"}]`
	g.Expect(render(t, mailingwork{}, subscribed())).To(MatchJSON(
		`{` + common + `,"optinsetup_id":1,"lists":[{"id":1,"value":1}],"activate_at":"2025-11-11 09:27:29"}`))

	out := subscribed()
	out.Type = contact.EventUnsubscribe
	g.Expect(render(t, mailingwork{}, out)).To(MatchJSON(
		`{` + common + `,"optoutsetup_id":1,"lists":[{"id":1,"value":1}],"finalized_at":"2025-11-11 09:27:29"}`))

	profile := subscribed()
	profile.Type = contact.EventChangeProfile
	g.Expect(render(t, mailingwork{}, profile)).To(MatchJSON(
		`{` + common + `,"profilemanager_id":1,"lists":[{"id":1,"value":1}],"changed_at":"2025-11-11 09:27:29"}`))
	profile.Contact.Permission = contact.PermissionNone
	g.Expect(render(t, mailingwork{}, profile)).To(ContainSubstring(`"lists":[{"id":1,"value":0}]`))
}

func TestMailingworkKnowsThreeEvents(t *testing.T) {
	g := NewWithT(t)
	for kind, want := range map[v1alpha1.EventType][]v1alpha1.EventSource{
		contact.EventCreate:        nil,
		contact.EventSubscribe:     {contact.SourceAPI, contact.SourceConsole, contact.SourceRecipient},
		contact.EventUnsubscribe:   {contact.SourceAPI, contact.SourceConsole, contact.SourceRecipient},
		contact.EventChangeProfile: {contact.SourceRecipient},
		contact.EventDelete:        nil,
	} {
		var known []v1alpha1.EventSource
		for _, source := range []v1alpha1.EventSource{contact.SourceAPI, contact.SourceConsole, contact.SourceRecipient} {
			if (mailingwork{}).knows(&contact.Event{Type: kind, Source: source}) {
				known = append(known, source)
			}
		}
		g.Expect(known).To(Equal(want), string(kind))
	}
}

// A list that was deleted has no numbers; its contacts' events still go out.
func TestListWithoutNumbers(t *testing.T) {
	g := NewWithT(t)
	var lists listBook
	key := contact.ListKey{Namespace: "marketing", Name: "newsletter"}
	lists.set(key, numbers)
	g.Expect(lists.of(key)).To(Equal(numbers))
	lists.set(key, nil)
	carried, err := mailingwork{}.render(subscribed(), lists.of(key))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(carried.body)).To(ContainSubstring(`"fields":[{"id":1,"value":"max.muster@example.com"}],"lists":[{"id":0,"value":1}]`))
}

// An event that was taken before the spec had another format is not sent in one that
// has no such event: its call would say something else, or nothing.
func TestEventsThatAFormatDoesNotKnow(t *testing.T) {
	g := NewWithT(t)
	receiver := testkit.NewReceiver(t)
	c, s := callerOf(t, Options{Guard: toReceivers}, receiver.URL(), nil)
	operational := &contact.Event{ID: "evt_2", Type: contact.EventFailing, Operation: &contact.Operation{Kind: kindSubscription, Name: "crm"}}
	for name, row := range map[string]struct {
		format format
		event  *contact.Event
	}{
		"a Create in Mailingwork":         {mailingwork{}, aCall().event},
		"an operational event in MailUp":  {mailUp{}, operational},
		"an operational event in Maileon": {maileon{}, operational},
	} {
		s.format = row.format
		o, err := c.attempt(t.Context(), checked(t, s), call{event: row.event})
		g.Expect(o).To(Equal(outcome{verdict: unsendable, reason: v1alpha1.FailureRender}), name)
		g.Expect(err).To(MatchError(errUnknownEvent))
	}
	g.Expect(receiver.Count()).To(BeZero())
	o, err := c.attempt(t.Context(), checked(t, s), call{event: aCall().event, test: true})
	g.Expect(o.verdict).To(Equal(delivered), "%v", err)
}
