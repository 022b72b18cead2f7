package contact_test

import (
	"encoding/json"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
)

var (
	created = time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC)
	now     = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
)

func TestDecideOnNewContact(t *testing.T) {
	for name, row := range map[string]struct {
		save   func(*contact.Save)
		want   func(*contact.Contact)
		events []v1alpha1.EventType
	}{
		"an address alone has permission none": {
			save:   func(*contact.Save) {},
			want:   func(*contact.Contact) {},
			events: []v1alpha1.EventType{contact.EventCreate},
		},
		"permission none, given": {
			save:   func(s *contact.Save) { s.Permission = contact.PermissionNone },
			want:   func(*contact.Contact) {},
			events: []v1alpha1.EventType{contact.EventCreate},
		},
		"another permission subscribes": {
			save:   func(s *contact.Save) { s.Permission = contact.PermissionOther },
			want:   func(c *contact.Contact) { c.Permission = contact.PermissionOther },
			events: []v1alpha1.EventType{contact.EventCreate, contact.EventSubscribe},
		},
		"with sync_mode 1 it is all the same": {
			save: func(s *contact.Save) { s.Update, s.Permission = true, contact.PermissionDoubleOptIn },
			want: func(c *contact.Contact) { c.Permission = contact.PermissionDoubleOptIn },
			events: []v1alpha1.EventType{
				contact.EventCreate, contact.EventSubscribe,
			},
		},
		"fields, external id, source and page are stored": {
			save: func(s *contact.Save) {
				s.ExternalID = new("4711")
				s.StandardFields = map[string]string{"FIRSTNAME": "Max", "CITY": ""}
				s.CustomFields = map[string]any{"children": 3.0, "vegan": nil}
				s.Source, s.SubscriptionPage = "fair", "https://example.com/form"
			},
			want: func(c *contact.Contact) {
				c.ExternalID = "4711"
				c.StandardFields = map[string]string{"FIRSTNAME": "Max"}
				c.CustomFields = map[string]any{"children": 3.0}
				c.Source, c.SubscriptionPage = "fair", "https://example.com/form"
			},
			events: []v1alpha1.EventType{contact.EventCreate},
		},
		"an opt-in starts, whatever the policy, and the permission waits for it": {
			save: func(s *contact.Save) {
				s.OptIn = &contact.OptIn{Mailing: "dh6hdjk9", Plus: true}
				s.ResendPolicy = v1alpha1.ResendNever
			},
			want: func(c *contact.Contact) {
				c.OptIn = &contact.OptIn{Mailing: "dh6hdjk9", Plus: true, RequestedAt: now}
			},
			events: []v1alpha1.EventType{contact.EventCreate},
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			save := aSave(row.save)
			want := contact.Contact{
				Email: "Max@example.com", Permission: contact.PermissionNone, Revision: 1, CreatedAt: now, UpdatedAt: now,
			}
			row.want(&want)
			decision := save.Decide(nil)
			g.Expect(decision.Contact).To(Equal(want))
			g.Expect(decision.Created).To(BeTrue())
			g.Expect(decision.Changed).To(BeTrue())
			g.Expect(decision.OptInStarted).To(Equal(save.OptIn != nil))
			g.Expect(typesOf(decision.Events)).To(Equal(row.events))
			for _, event := range decision.Events {
				g.Expect(event.Source).To(Equal(contact.SourceAPI))
				g.Expect(event.Time).To(Equal(now))
				g.Expect(event.Changed).To(BeEmpty())
			}
		})
	}
}

func TestDecideOnExistingContact(t *testing.T) {
	for name, row := range map[string]struct {
		current func(*contact.Contact)
		save    func(*contact.Save)
		want    func(*contact.Contact)
		events  []v1alpha1.EventType
		changed []string
	}{
		"sync_mode 2 leaves data and permission": {
			save: func(s *contact.Save) {
				s.Permission, s.ExternalID = contact.PermissionSingleOptIn, new("4711")
				s.StandardFields = map[string]string{"FIRSTNAME": "Moritz"}
				s.CustomFields = map[string]any{"children": 4.0}
				s.Source, s.SubscriptionPage = "fair", "https://example.com/fair"
			},
		},
		"sync_mode 1 with the same data changes nothing": {
			save: func(s *contact.Save) {
				s.Update, s.Permission, s.ExternalID = true, contact.PermissionNone, new("42")
				s.StandardFields = map[string]string{"FIRSTNAME": "Max", "CITY": ""}
				s.CustomFields = map[string]any{"children": 3.0, "vegan": nil}
				s.Source = "form"
			},
		},
		"another spelling of the address changes nothing": {
			save: func(s *contact.Save) { s.Update, s.Address.Display = true, "MAX@example.com" },
		},
		"fields change, appear and are cleared": {
			save: func(s *contact.Save) {
				s.Update, s.ExternalID = true, new("4711")
				s.StandardFields = map[string]string{"FIRSTNAME": "", "ZIP": "10115"}
				s.CustomFields = map[string]any{"children": 4.0, "vegan": false}
			},
			want: func(c *contact.Contact) {
				c.ExternalID = "4711"
				c.StandardFields = map[string]string{"LASTNAME": "Mustermann", "ZIP": "10115"}
				c.CustomFields = map[string]any{"children": 4.0, "vegan": false}
			},
			events:  []v1alpha1.EventType{contact.EventChangeProfile},
			changed: []string{"FIRSTNAME", "ZIP", "children", "external_id", "vegan"},
		},
		"fields appear where there were none": {
			current: func(c *contact.Contact) { c.StandardFields, c.CustomFields = nil, nil },
			save: func(s *contact.Save) {
				s.Update, s.StandardFields, s.CustomFields = true, map[string]string{"ZIP": "1"}, map[string]any{"vegan": true}
			},
			want: func(c *contact.Contact) {
				c.StandardFields, c.CustomFields = map[string]string{"ZIP": "1"}, map[string]any{"vegan": true}
			},
			events:  []v1alpha1.EventType{contact.EventChangeProfile},
			changed: []string{"ZIP", "vegan"},
		},
		"the external id is cleared": {
			save:    func(s *contact.Save) { s.Update, s.ExternalID = true, new("") },
			want:    func(c *contact.Contact) { c.ExternalID = "" },
			events:  []v1alpha1.EventType{contact.EventChangeProfile},
			changed: []string{"external_id"},
		},
		"none to another permission subscribes": {
			save:   func(s *contact.Save) { s.Update, s.Permission = true, contact.PermissionSingleOptIn },
			want:   func(c *contact.Contact) { c.Permission = contact.PermissionSingleOptIn },
			events: []v1alpha1.EventType{contact.EventSubscribe},
		},
		"a subscription that changes a field too raises both": {
			save: func(s *contact.Save) {
				s.Update, s.Permission, s.StandardFields = true, contact.PermissionDoubleOptIn, map[string]string{"ZIP": "1"}
			},
			want: func(c *contact.Contact) {
				c.Permission = contact.PermissionDoubleOptIn
				c.StandardFields = map[string]string{"FIRSTNAME": "Max", "LASTNAME": "Mustermann", "ZIP": "1"}
			},
			events:  []v1alpha1.EventType{contact.EventSubscribe, contact.EventChangeProfile},
			changed: []string{"ZIP"},
		},
		"one permission to another is a change of the profile": {
			current: func(c *contact.Contact) { c.Permission = contact.PermissionSingleOptIn },
			save:    func(s *contact.Save) { s.Update, s.Permission = true, contact.PermissionConfirmedOptIn },
			want:    func(c *contact.Contact) { c.Permission = contact.PermissionConfirmedOptIn },
			events:  []v1alpha1.EventType{contact.EventChangeProfile},
			changed: []string{"permission"},
		},
		"a permission goes back to none": {
			current: func(c *contact.Contact) { c.Permission = contact.PermissionOther },
			save:    func(s *contact.Save) { s.Update, s.Permission = true, contact.PermissionNone },
			want:    func(c *contact.Contact) { c.Permission = contact.PermissionNone },
			events:  []v1alpha1.EventType{contact.EventChangeProfile},
			changed: []string{"permission"},
		},
		"no permission given keeps the stored one": {
			current: func(c *contact.Contact) { c.Permission = contact.PermissionSingleOptIn },
			save:    func(s *contact.Save) { s.Update = true },
		},
		"4 is never lowered": {
			current: func(c *contact.Contact) { c.Permission = contact.PermissionDoubleOptIn },
			save:    func(s *contact.Save) { s.Update, s.Permission = true, contact.PermissionOther },
		},
		"5 is never lowered": {
			current: func(c *contact.Contact) { c.Permission = contact.PermissionDoubleOptInPlus },
			save:    func(s *contact.Save) { s.Update, s.Permission = true, contact.PermissionNone },
		},
		"5 does not become 4": {
			current: func(c *contact.Contact) { c.Permission = contact.PermissionDoubleOptInPlus },
			save:    func(s *contact.Save) { s.Update, s.Permission = true, contact.PermissionDoubleOptIn },
		},
		"4 may become 5": {
			current: func(c *contact.Contact) { c.Permission = contact.PermissionDoubleOptIn },
			save:    func(s *contact.Save) { s.Update, s.Permission = true, contact.PermissionDoubleOptInPlus },
			want:    func(c *contact.Contact) { c.Permission = contact.PermissionDoubleOptInPlus },
			events:  []v1alpha1.EventType{contact.EventChangeProfile},
			changed: []string{"permission"},
		},
		"source and page alone are stored and raise nothing": {
			save: func(s *contact.Save) {
				s.Update, s.Source, s.SubscriptionPage = true, "fair", "https://example.com/fair"
			},
			want: func(c *contact.Contact) { c.Source, c.SubscriptionPage = "fair", "https://example.com/fair" },
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			current := aContact(row.current)
			want := *aContact(row.current)
			if row.want != nil {
				row.want(&want)
				want.Revision, want.UpdatedAt = 8, now
			}
			decision := aSave(row.save).Decide(current)
			g.Expect(decision.Contact).To(Equal(want))
			g.Expect(decision.Changed).To(Equal(row.want != nil))
			g.Expect(decision.Created).To(BeFalse())
			g.Expect(decision.OptInStarted).To(BeFalse())
			g.Expect(typesOf(decision.Events)).To(Equal(row.events))
			g.Expect(changedOf(decision.Events)).To(Equal(row.changed))
			g.Expect(current).To(Equal(aContact(row.current)), "the stored contact must stay as it is")
		})
	}
}

func TestDecideRepeatsOptInByPolicy(t *testing.T) {
	requested := func(c *contact.Contact) { c.OptIn = &contact.OptIn{RequestedAt: created} }
	confirmed := func(c *contact.Contact) { c.Permission = contact.PermissionDoubleOptIn }
	untouched := func(*contact.Contact) {}
	for name, row := range map[string]struct {
		current func(*contact.Contact)
		policy  v1alpha1.ResendPolicy
		starts  bool
	}{
		"Never, none was requested yet":           {untouched, v1alpha1.ResendNever, true},
		"Never, one was requested":                {requested, v1alpha1.ResendNever, false},
		"Never, confirmed":                        {confirmed, v1alpha1.ResendNever, false},
		"Unconfirmed, none was requested yet":     {untouched, v1alpha1.ResendUnconfirmed, true},
		"Unconfirmed, one was requested":          {requested, v1alpha1.ResendUnconfirmed, true},
		"Unconfirmed, confirmed":                  {confirmed, v1alpha1.ResendUnconfirmed, false},
		"no policy is Unconfirmed: requested":     {requested, "", true},
		"no policy is Unconfirmed: confirmed":     {confirmed, "", false},
		"Always, one was requested":               {requested, v1alpha1.ResendAlways, true},
		"Always, confirmed, as sync_mode 2 keeps": {confirmed, v1alpha1.ResendAlways, true},
	} {
		for _, update := range []bool{false, true} {
			mode := map[bool]string{false: ", sync_mode 2", true: ", sync_mode 1"}[update]
			t.Run(name+mode, func(t *testing.T) {
				g := NewWithT(t)
				want := *aContact(row.current)
				if row.starts {
					want.OptIn = &contact.OptIn{Mailing: "welcome", RequestedAt: now}
					want.Source, want.Revision, want.UpdatedAt = "fair", 8, now
				} else if update {
					want.Source, want.Revision, want.UpdatedAt = "fair", 8, now
				}
				decision := aSave(func(s *contact.Save) {
					s.Update, s.ResendPolicy, s.Source = update, row.policy, "fair"
					s.OptIn = &contact.OptIn{Mailing: "welcome"}
				}).Decide(aContact(row.current))
				g.Expect(decision.OptInStarted).To(Equal(row.starts))
				g.Expect(decision.Changed).To(Equal(row.starts || update))
				g.Expect(decision.Contact).To(Equal(want))
				g.Expect(decision.Events).To(BeEmpty())
			})
		}
	}
}

func TestDecideRepeatsOptInAfterTheInterval(t *testing.T) {
	for name, row := range map[string]struct {
		optIn    *contact.OptIn
		interval time.Duration
		policy   v1alpha1.ResendPolicy
		starts   bool
	}{
		"none was requested yet":           {nil, time.Hour, v1alpha1.ResendUnconfirmed, true},
		"shortly before the interval ends": {&contact.OptIn{RequestedAt: now.Add(time.Nanosecond - time.Hour)}, time.Hour, v1alpha1.ResendUnconfirmed, false},
		"when the interval ends":           {&contact.OptIn{RequestedAt: now.Add(-time.Hour)}, time.Hour, v1alpha1.ResendUnconfirmed, true},
		"Always waits too":                 {&contact.OptIn{RequestedAt: now.Add(-time.Minute)}, time.Hour, v1alpha1.ResendAlways, false},
		"Always, when the interval ends":   {&contact.OptIn{RequestedAt: now.Add(-time.Hour)}, time.Hour, v1alpha1.ResendAlways, true},
		"Never stays never":                {&contact.OptIn{RequestedAt: now.Add(-2 * time.Hour)}, time.Hour, v1alpha1.ResendNever, false},
		"without an interval":              {&contact.OptIn{RequestedAt: now}, 0, v1alpha1.ResendUnconfirmed, true},
		"a clock that was set back":        {&contact.OptIn{RequestedAt: now.Add(time.Minute)}, time.Hour, v1alpha1.ResendAlways, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			decision := aSave(func(s *contact.Save) {
				s.OptIn, s.ResendPolicy, s.ResendInterval = &contact.OptIn{}, row.policy, row.interval
			}).Decide(aContact(func(c *contact.Contact) { c.OptIn = row.optIn }))
			g.Expect(decision.OptInStarted).To(Equal(row.starts))
			g.Expect(decision.Changed).To(Equal(row.starts))
			if !row.starts {
				g.Expect(decision.Contact.OptIn).To(Equal(row.optIn), "what was requested stays what it was")
			}
		})
	}
}

func TestDecideTwiceWithOneSave(t *testing.T) {
	g := NewWithT(t)
	save := aSave(func(s *contact.Save) {
		s.Update, s.Permission, s.OptIn = true, contact.PermissionSingleOptIn, &contact.OptIn{Plus: true}
		s.StandardFields = map[string]string{"ZIP": "1"}
	})
	g.Expect(save.Decide(nil)).To(Equal(save.Decide(nil)), "the store may run it several times")
	g.Expect(save.Decide(aContact(nil))).To(Equal(save.Decide(aContact(nil))))
}

func TestDecideAfterJSON(t *testing.T) {
	g := NewWithT(t)
	save := aSave(func(s *contact.Save) {
		s.Update, s.StandardFields = true, map[string]string{"ZIP": "1"}
		s.CustomFields = map[string]any{"children": 2147483647.0, "height": 0.1, "vegan": true, "special date": "2020-12-12"}
	})
	data, err := json.Marshal(save.Decide(nil).Contact)
	g.Expect(err).NotTo(HaveOccurred())
	var stored contact.Contact
	g.Expect(json.Unmarshal(data, &stored)).To(Succeed())
	g.Expect(save.Decide(&stored).Changed).To(BeFalse(), "values must compare equal once they were stored")
}

func aSave(set func(*contact.Save)) contact.Save {
	save := contact.Save{
		Address:     contact.Address{Display: "Max@example.com", Key: "max@example.com"},
		EventSource: contact.SourceAPI,
		Time:        now,
	}
	set(&save)
	return save
}

func aContact(set func(*contact.Contact)) *contact.Contact {
	stored := &contact.Contact{
		ID: 1, Email: "Max@example.com", ExternalID: "42", Permission: contact.PermissionNone,
		StandardFields: map[string]string{"FIRSTNAME": "Max", "LASTNAME": "Mustermann"},
		CustomFields:   map[string]any{"children": 3.0},
		Source:         "form", Revision: 7, CreatedAt: created, UpdatedAt: created,
	}
	if set != nil {
		set(stored)
	}
	return stored
}

func typesOf(events []contact.Event) (types []v1alpha1.EventType) {
	for _, event := range events {
		types = append(types, event.Type)
	}
	return types
}

func changedOf(events []contact.Event) (changed []string) {
	for _, event := range events {
		changed = append(changed, event.Changed...)
	}
	return changed
}
