package dispatcher

import (
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/testkit"
)

func TestTemplateFormat(t *testing.T) {
	g := NewWithT(t)
	f := newFormat(&v1alpha1.WebhookSubscriptionSpec{Payload: v1alpha1.Payload{
		Format: v1alpha1.FormatTemplate, Template: `{"what": event.type, "who": event.contact.email}`,
	}})
	g.Expect(render(t, f, subscribed())).To(Equal(`{"what":"Subscribe","who":"max.muster@example.com"}`))
	g.Expect(f.knows(&contact.Event{Type: contact.EventOptInMail})).To(BeFalse())
	_, err := newTemplate(`{`).render(subscribed(), numbers)
	g.Expect(err).To(MatchError(ContainSubstring("Syntax error")), "another version of the controller accepted it")
}

func TestChosenEvents(t *testing.T) {
	for source, row := range map[string]struct {
		has     bool
		problem string
	}{
		"":                                   {has: true},
		`event.type == "Subscribe"`:          {has: true},
		`event.type == "Delete"`:             {has: false},
		`event.contact.customFields.nothing`: {has: true, problem: "no such key"},
		`(`:                                  {has: true, problem: "Syntax error"},
	} {
		g := NewWithT(t)
		c := newChosen(source)
		g.Expect(c.has(subscribed())).To(Equal(row.has), source)
		if row.problem == "" {
			g.Expect(c.check(subscribed())).To(Succeed(), source)
		} else {
			g.Expect(c.check(subscribed())).To(MatchError(ContainSubstring(row.problem)), source)
		}
	}
}

func TestOperationalEventsPassFilters(t *testing.T) {
	g := NewWithT(t)
	event := &contact.Event{Type: contact.EventFailing, Operation: &contact.Operation{Kind: "WebhookSubscription", Name: "crm"}}
	for _, source := range []string{`false`, `event.contact.customFields.nothing`, `(`} {
		c := newChosen(source)
		g.Expect(c.has(event)).To(BeTrue(), source)
		g.Expect(c.check(event)).To(Succeed(), source)
	}
}

// An update of status, such as a new version of a Secret, leaves the runner as it is
// when nothing that it works to has changed.
func TestSubscriptionsWithOneFilterAreEqual(t *testing.T) {
	g := NewWithT(t)
	object := testkit.Subscription("marketing", "crm", "https://crm.example.com")
	object.Spec.Filter = `event.type == "Subscribe"`
	object.Spec.Payload = v1alpha1.Payload{Format: v1alpha1.FormatTemplate, Template: `{"what": event.type}`}
	r := &runner{sub: newSubscription(object)}
	g.Expect(r.has(newSubscription(object))).To(BeTrue())
	object.Spec.Filter = `event.type == "Delete"`
	g.Expect(r.has(newSubscription(object))).To(BeFalse())
}

func TestFilterAndTemplateDeliver(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	crm := r.subscribe("crm", func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Filter = `event.contact.standardFields.COUNTRY == "DE"`
		s.Spec.Payload = v1alpha1.Payload{Format: v1alpha1.FormatTemplate, Template: `{"who": event.contact.email}`}
	})
	fr := r.subscribe("fr", func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Filter = `event.contact.standardFields.COUNTRY == "FR"`
	})
	raise := func(address, country string) {
		e := subscribed()
		e.Contact.Email, e.Contact.ExternalID, e.Contact.StandardFields = address, "", map[string]string{"COUNTRY": country}
		r.raise(e)
	}
	raise("before@example.com", "DE") // what is read from the log is filtered, too
	raise("other@example.com", "FR")
	r.run()
	g.Eventually(r.receiver.Count, patience).Should(Equal(2))
	for _, address := range []string{"a@example.com", "b@example.com"} {
		raise(address, "AT")
		raise(address, "DE")
	}
	g.Eventually(r.receiver.Count, patience).Should(Equal(4))
	var bodies []string
	for _, call := range r.receiver.Calls() {
		if call.Path == "/crm" {
			bodies = append(bodies, string(call.Body))
		}
	}
	g.Expect(bodies).To(ConsistOf(`{"who":"before@example.com"}`, `{"who":"a@example.com"}`, `{"who":"b@example.com"}`))
	g.Eventually(r.delivery(crm), patience).Should(settled)
	g.Eventually(r.delivery(fr), patience).Should(And(settled, HaveField("Behind", BeZero())))
}

// An event that an expression fails with stops nothing but itself, and is not lost.
func TestEventThatAnExpressionFailsWithIsSetAside(t *testing.T) {
	for name, row := range map[string]struct {
		edit   func(*v1alpha1.WebhookSubscriptionSpec)
		reason v1alpha1.FailureReason
	}{
		"a filter": {
			func(spec *v1alpha1.WebhookSubscriptionSpec) { spec.Filter = `event.contact.customFields.score > 1.0` },
			v1alpha1.FailureFilter,
		},
		"a template": {
			func(spec *v1alpha1.WebhookSubscriptionSpec) {
				spec.Payload = v1alpha1.Payload{Format: v1alpha1.FormatTemplate, Template: `[event.contact.customFields.score]`}
			},
			v1alpha1.FailureRender,
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			r := newRig(t)
			crm := r.subscribe("crm", func(s *v1alpha1.WebhookSubscription) { row.edit(&s.Spec) })
			r.run()
			poison := subscribed()
			poison.Contact.CustomFields = nil
			aside := r.raise(poison)
			good := subscribed()
			good.Contact.Email, good.Contact.ExternalID = "good@example.com", ""
			sent := r.raise(good)
			g.Eventually(func() []string { return r.ids("/crm") }, patience).Should(Equal([]string{sent}))
			g.Eventually(r.delivery(crm), patience).Should(And(settled, HaveField("SetAside", BeEquivalentTo(1))))
			g.Expect(r.log.String()).To(And(ContainSubstring(aside), ContainSubstring(string(row.reason)),
				ContainSubstring("no such key"), Not(ContainSubstring("max.muster"))))
		})
	}
}
