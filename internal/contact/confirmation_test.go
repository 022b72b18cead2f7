package contact_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
)

// first and second are when the two opt-ins of these tests were requested.
var (
	first  = created.Add(time.Hour)
	second = created.Add(2 * time.Hour)
)

func TestConfirmationByThePermissionBefore(t *testing.T) {
	subscribed := []v1alpha1.EventType{contact.EventSubscribe}
	changed := []v1alpha1.EventType{contact.EventChangeProfile}
	for name, row := range map[string]struct {
		before contact.Permission
		plus   bool
		after  contact.Permission
		events []v1alpha1.EventType
	}{
		"1 becomes 4 and subscribes":           {contact.PermissionNone, false, contact.PermissionDoubleOptIn, subscribed},
		"1 becomes 5 with plus and subscribes": {contact.PermissionNone, true, contact.PermissionDoubleOptInPlus, subscribed},
		"2 becomes 4":                          {contact.PermissionSingleOptIn, false, contact.PermissionDoubleOptIn, changed},
		"2 becomes 5 with plus":                {contact.PermissionSingleOptIn, true, contact.PermissionDoubleOptInPlus, changed},
		"3 becomes 4":                          {contact.PermissionConfirmedOptIn, false, contact.PermissionDoubleOptIn, changed},
		"3 becomes 5 with plus":                {contact.PermissionConfirmedOptIn, true, contact.PermissionDoubleOptInPlus, changed},
		"4 stays and raises nothing":           {contact.PermissionDoubleOptIn, false, contact.PermissionDoubleOptIn, nil},
		"4 becomes 5 with plus":                {contact.PermissionDoubleOptIn, true, contact.PermissionDoubleOptInPlus, changed},
		"5 is not lowered to 4":                {contact.PermissionDoubleOptInPlus, false, contact.PermissionDoubleOptInPlus, nil},
		"5 stays with plus":                    {contact.PermissionDoubleOptInPlus, true, contact.PermissionDoubleOptInPlus, nil},
		"6 becomes 4":                          {contact.PermissionOther, false, contact.PermissionDoubleOptIn, changed},
		"6 becomes 5 with plus":                {contact.PermissionOther, true, contact.PermissionDoubleOptInPlus, changed},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			requested := func(c *contact.Contact) {
				c.Permission = row.before
				c.OptIn = &contact.OptIn{Mailing: "welcome", Plus: row.plus, RequestedAt: first}
			}
			current, want := aContact(requested), *aContact(requested)
			want.Permission, want.Revision, want.UpdatedAt = row.after, 8, now
			want.OptIn.ConfirmedAt = now

			decision := contact.Confirmation{RequestedAt: first, Plus: row.plus, Time: now}.Decide(current)
			g.Expect(decision.Contact).To(Equal(want))
			g.Expect(decision.Changed).To(BeTrue(), "the link is used up, whatever else")
			g.Expect(typesOf(decision.Events)).To(Equal(row.events))
			for _, event := range decision.Events {
				g.Expect(event.Source).To(Equal(contact.SourceRecipient))
				g.Expect(event.Time).To(Equal(now))
			}
			if row.before != contact.PermissionNone && row.events != nil {
				g.Expect(changedOf(decision.Events)).To(Equal([]string{"permission"}))
			}
			g.Expect(decision.OptInStarted).To(BeFalse(), "no other mail is sent")
			g.Expect(current).To(Equal(aContact(requested)), "the stored contact must stay as it is")
		})
	}
}

func TestConfirmationByTheStateOfTheOptIn(t *testing.T) {
	for name, row := range map[string]struct {
		optIn *contact.OptIn
		link  time.Time
		used  bool
	}{
		"the only mail": {
			optIn: &contact.OptIn{RequestedAt: first}, link: first,
		},
		"the mail that was used": {
			optIn: &contact.OptIn{RequestedAt: first, ConfirmedAt: first.Add(time.Minute)}, link: first, used: true,
		},
		"used in the moment of the request": {
			optIn: &contact.OptIn{RequestedAt: first, ConfirmedAt: first}, link: first, used: true,
		},
		"the older of two mails": {
			optIn: &contact.OptIn{RequestedAt: second}, link: first,
		},
		"the newer of two mails": {
			optIn: &contact.OptIn{RequestedAt: second}, link: second,
		},
		"the older of two, after either was used": {
			optIn: &contact.OptIn{RequestedAt: second, ConfirmedAt: second.Add(time.Minute)}, link: first, used: true,
		},
		"the newer of two, after either was used": {
			optIn: &contact.OptIn{RequestedAt: second, ConfirmedAt: second.Add(time.Minute)}, link: second, used: true,
		},
		"a mail that was asked for after a confirmation": {
			optIn: &contact.OptIn{RequestedAt: second, ConfirmedAt: first.Add(time.Minute)}, link: second,
		},
		"the mail before that confirmation": {
			optIn: &contact.OptIn{RequestedAt: second, ConfirmedAt: first.Add(time.Minute)}, link: first, used: true,
		},
		"a contact that knows of no opt-in": {link: first},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			current := aContact(func(c *contact.Contact) { c.OptIn = row.optIn })
			confirmation := contact.Confirmation{RequestedAt: row.link, Time: now}
			g.Expect(confirmation.Used(current)).To(Equal(row.used))

			decision := confirmation.Decide(current)
			g.Expect(decision.Changed).To(Equal(!row.used))
			if row.used {
				g.Expect(decision).To(Equal(contact.Decision{Contact: *current}), "it does nothing")
				return
			}
			g.Expect(decision.Contact.Permission).To(Equal(contact.PermissionDoubleOptIn))
			g.Expect(typesOf(decision.Events)).To(Equal([]v1alpha1.EventType{contact.EventSubscribe}))
			g.Expect(decision.Contact.OptIn.ConfirmedAt).To(Equal(now))
			g.Expect(confirmation.Used(&decision.Contact)).To(BeTrue(), "it works once")
		})
	}
}

func TestConfirmationOfAContactThatIsGone(t *testing.T) {
	decision := contact.Confirmation{RequestedAt: first, Time: now}.Decide(nil)
	NewWithT(t).Expect(decision).To(BeZero())
}

func TestOptInAfterAConfirmationCanBeConfirmed(t *testing.T) {
	g := NewWithT(t)
	confirmed := contact.Confirmation{RequestedAt: first, Time: second}.
		Decide(aContact(func(c *contact.Contact) { c.OptIn = &contact.OptIn{RequestedAt: first} }))
	again := aSave(func(s *contact.Save) {
		s.ResendPolicy, s.OptIn = v1alpha1.ResendAlways, &contact.OptIn{Plus: true}
	}).Decide(&confirmed.Contact)
	g.Expect(again.OptInStarted).To(BeTrue())
	g.Expect(again.Contact.OptIn.ConfirmedAt).To(Equal(second), "the mail before stays used up")
	g.Expect(contact.Confirmation{RequestedAt: first}.Used(&again.Contact)).To(BeTrue())

	plus := contact.Confirmation{RequestedAt: now, Plus: true, Time: now.Add(time.Minute)}
	g.Expect(plus.Decide(&again.Contact).Contact.Permission).To(Equal(contact.PermissionDoubleOptInPlus))
}
