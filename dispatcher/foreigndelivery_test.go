package dispatcher

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/utils/ptr"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/testkit"
)

// raise stores a contact with an event of it, as the given one, and returns the
// event's id.
func (r *rig) raise(event *contact.Event) string {
	r.t.Helper()
	decision, err := r.store.Change(r.t.Context(), store.Change{
		List: contact.ListKey{Namespace: r.namespace, Name: "newsletter"}, Address: event.Contact.Email,
		Apply: func(current *contact.Contact) contact.Decision {
			next := event.Contact
			next.ID = 0
			if current != nil {
				next.ID = current.ID
			}
			return contact.Decision{Contact: next, Changed: true, Events: []contact.Event{*event}}
		},
	})
	NewWithT(r.t).Expect(err).NotTo(HaveOccurred())
	return decision.Events[0].ID
}

// settled is a delivery whose events have all succeeded.
var settled = And(HaveField("Open", BeEmpty()), HaveField("Health.LastSuccess", Not(BeZero())), HaveField("Health.FailingSince", BeZero()))

func TestMaileonCallbackOfAnotherHand(t *testing.T) {
	email := v1alpha1.PayloadField{Name: "email", StandardField: v1alpha1.FieldEmail}
	for name, row := range map[string]struct {
		url        string // what is put behind the host
		parameters []v1alpha1.PayloadField
		body       []v1alpha1.PayloadField
		want       string
	}{
		"only the URL":         {want: `{"parameters": [], "body": null}`},
		"a URL with a query":   {url: "/hook?token=T", want: `{"parameters": [["token", "T"]], "body": null}`},
		"parameters":           {parameters: []v1alpha1.PayloadField{email}, want: `{"parameters": [["email", "max.muster@example.com"]], "body": null}`},
		"parameters on others": {url: "/?token=T", parameters: []v1alpha1.PayloadField{email}, want: `{"parameters": [["token", "T"], ["email", "max.muster@example.com"]], "body": null}`},
		"a body": {
			body: []v1alpha1.PayloadField{
				email,
				{Name: "first", StandardField: "FIRSTNAME"},
				{Name: "score", CustomField: "score"},
				{Name: "city", StandardField: "CITY"},
				{Name: "token", Constant: "T"},
				{Name: "at", EventField: "timestamp"},
				{Name: "msg_id", EventField: "msg_id"},
			},
			want: `{"parameters": [], "body": {"email": "max.muster@example.com", "first": "Max", "score": 1.5, "city": null,
				"token": "T", "at": "2025-11-11 09:27:29", "msg_id": null}}`,
		},
		"both": {
			parameters: []v1alpha1.PayloadField{{Name: "what is new", EventField: "new_value"}, {Name: "old", EventField: "old_value"}},
			body:       []v1alpha1.PayloadField{email},
			want:       `{"parameters": [["what is new", "Max"], ["old", ""]], "body": {"email": "max.muster@example.com"}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			callback := startProgram[json.RawMessage](t, python(t), "testdata/maileon_receiver.py")
			r := newRig(t)
			crm := r.subscribe("crm", func(s *v1alpha1.WebhookSubscription) {
				s.Spec.Callback.URL = callback.url + row.url
				s.Spec.Payload = v1alpha1.Payload{Format: v1alpha1.FormatMaileon, URLParameters: row.parameters, BodyFields: row.body}
			})
			r.run()
			r.raise(changed("FIRSTNAME"))
			g.Eventually(callback.calls, patience).Should(Receive(MatchJSON(row.want)))
			g.Eventually(r.delivery(crm), patience).Should(settled)
		})
	}
}

func TestMailingworkCallbackOfAnotherHand(t *testing.T) {
	g := NewWithT(t)
	callback := startProgram[json.RawMessage](t, python(t), "testdata/mailingwork_receiver.py")
	r := newRig(t)
	id, number := int32(60), int32(2)
	list := testkit.List(r.namespace, "newsletter")
	list.Spec.ID = &id
	list.Spec.StandardFields = []v1alpha1.StandardField{{Name: "FIRSTNAME", ID: &number}}
	g.Expect(plane.Client.Create(t.Context(), list)).To(Succeed())
	for event, kind := range map[string]v1alpha1.EventType{
		"optin_finalized": contact.EventSubscribe, "optout_finalized": contact.EventUnsubscribe, "profilemanager_finalized": contact.EventChangeProfile,
	} {
		r.subscribe("crm-"+event[:5], func(s *v1alpha1.WebhookSubscription) {
			s.Spec.Events = []v1alpha1.EventType{kind}
			s.Spec.Callback.URL = callback.url + "/" + event
			s.Spec.Payload = v1alpha1.Payload{Format: v1alpha1.FormatMailingwork}
		})
	}
	r.run()
	for event, kind := range map[string]v1alpha1.EventType{
		"optin_finalized": contact.EventSubscribe, "optout_finalized": contact.EventUnsubscribe, "profilemanager_finalized": contact.EventChangeProfile,
	} {
		e := subscribed()
		e.Type, e.Time = kind, time.Unix(1762853249, 0)
		r.raise(e)
		g.Eventually(callback.calls, patience).Should(Receive(MatchJSON(`{"event": "` + event + `", "setup": 60, "subscriber": 1,
			"fields": {"1": "max.muster@example.com", "2": "Max"}, "lists": {"60": true}, "at": 1762853249}`)))
	}
}

// The official SDK reads a call as a CloudEvent and finds it valid.
func TestCloudEventsSDKParses(t *testing.T) {
	g := NewWithT(t)
	sink := startProgram[json.RawMessage](t, node(t), "testdata/node/cloudevents_receiver.mjs")
	r := newRig(t)
	crm := r.subscribe("crm", func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Callback.URL = sink.url
		s.Spec.Payload.CloudEvents = ptr.To(true)
	})
	r.run()
	for kind, name := range standardTypes {
		e := subscribed()
		e.Type = kind
		id := r.raise(e)
		g.Eventually(sink.calls, patience).Should(Receive(MatchJSON(fmt.Sprintf(`{
			"specversion": "1.0", "id": %q, "source": "/namespaces/%s/contactlists/newsletter", "type": "dev.postbus.%s",
			"time": "2025-11-11T09:27:29.500Z", "subject": "1", "datacontenttype": "application/json", "email": "max.muster@example.com"
		}`, id, r.namespace, name))))
	}
	g.Eventually(r.delivery(crm), patience).Should(settled)
}
