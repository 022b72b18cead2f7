package dispatcher

import (
	"cmp"
	"slices"
	"sync"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
)

// mailingwork is the JSON that Mailingwork's webhooks send. The opt-in's shape
// is the vendor's; those of the other two events follow it.
type mailingwork struct{}

// mailingworkTime is how the vendor writes times. It names no zone; this is UTC.
const mailingworkTime = "2006-01-02 15:04:05"

// emailNumber is the number of the field that holds the e-mail address.
const emailNumber = 1

// mailingworkBody has the keys of all three events, in the vendor's order.
type mailingworkBody struct {
	ID               int64              `json:"id"`
	OptInSetupID     *int32             `json:"optinsetup_id,omitempty"`
	OptOutSetupID    *int32             `json:"optoutsetup_id,omitempty"`
	ProfileManagerID *int32             `json:"profilemanager_id,omitempty"`
	SubscriberID     int64              `json:"subscriber_id"`
	Fields           []mailingworkField `json:"fields"`
	Lists            []mailingworkList  `json:"lists"`
	ActivateAt       string             `json:"activate_at,omitempty"`
	FinalizedAt      string             `json:"finalized_at,omitempty"`
	ChangedAt        string             `json:"changed_at,omitempty"`
}

type mailingworkField struct {
	ID    int32 `json:"id"`
	Value any   `json:"value"`
}

type mailingworkList struct {
	ID int32 `json:"id"`
	// Value is 1 where the contact is subscribed; in an opt-out, where it has
	// just opted out.
	Value int `json:"value"`
}

// knows: the vendor has three events, optin_finalized, optout_finalized and
// profilemanager_finalized; the last is a change by the contact itself.
func (mailingwork) knows(event *contact.Event) bool {
	switch event.Type {
	case contact.EventSubscribe, contact.EventUnsubscribe:
		return true
	case contact.EventChangeProfile:
		return event.Source == contact.SourceRecipient
	default:
		return false
	}
}

func (mailingwork) render(event *contact.Event, list *listNumbers) (payload, error) {
	at := event.Time.UTC().Format(mailingworkTime)
	body := mailingworkBody{
		ID:           event.Position,
		SubscriberID: event.Contact.ID,
		Fields:       numberedFields(&event.Contact, list),
		Lists:        []mailingworkList{{ID: list.id, Value: 1}},
	}
	switch event.Type {
	case contact.EventSubscribe:
		body.OptInSetupID, body.ActivateAt = &list.id, at
	case contact.EventUnsubscribe:
		body.OptOutSetupID, body.FinalizedAt = &list.id, at
	case contact.EventChangeProfile:
		body.ProfileManagerID, body.ChangedAt = &list.id, at
		if event.Contact.Permission == contact.PermissionNone {
			body.Lists[0].Value = 0
		}
	}
	return jsonPayload(body)
}

// numberedFields returns the e-mail address and the fields that are set and
// have a number, by number.
func numberedFields(c *contact.Contact, list *listNumbers) []mailingworkField {
	fields := []mailingworkField{{ID: emailNumber, Value: c.Email}}
	for name, value := range c.StandardFields {
		if id, ok := list.standardFields[name]; ok {
			fields = append(fields, mailingworkField{ID: id, Value: value})
		}
	}
	for name, value := range c.CustomFields {
		if id, ok := list.customFields[name]; ok {
			fields = append(fields, mailingworkField{ID: id, Value: value})
		}
	}
	slices.SortFunc(fields, func(a, b mailingworkField) int { return cmp.Compare(a.ID, b.ID) })
	return fields
}

// listNumbers are the numbers that a ContactList gives itself and its fields.
type listNumbers struct {
	// bound: the events that the store holds under the list's name are the list's.
	bound          bool
	id             int32
	standardFields map[string]int32
	customFields   map[string]int32
}

func newListNumbers(list *v1alpha1.ContactList) *listNumbers {
	numbers := &listNumbers{bound: list.IsBound(), standardFields: map[string]int32{}, customFields: map[string]int32{}}
	if list.Spec.ID != nil {
		numbers.id = *list.Spec.ID
	}
	for _, field := range list.Spec.StandardFields {
		if field.ID != nil {
			numbers.standardFields[string(field.Name)] = *field.ID
		}
	}
	for _, field := range list.Spec.CustomFields {
		if field.ID != nil {
			numbers.customFields[field.Name] = *field.ID
		}
	}
	return numbers
}

// listBook has the numbers of all ContactLists. Its zero value is empty.
type listBook struct {
	byKey sync.Map // contact.ListKey to *listNumbers
}

// set notes a list; nil forgets it.
func (b *listBook) set(key contact.ListKey, numbers *listNumbers) {
	if numbers == nil {
		b.byKey.Delete(key)
		return
	}
	b.byKey.Store(key, numbers)
}

// has reports whether a list exists whose events may be replayed. Operational events
// belong to no list.
func (b *listBook) has(key contact.ListKey) bool { return key.Name == "" || b.of(key).bound }

// names returns the names of the lists in a namespace whose events may be replayed.
func (b *listBook) names(namespace string) (names []string) {
	b.byKey.Range(func(key, numbers any) bool {
		if key := key.(contact.ListKey); key.Namespace == namespace && numbers.(*listNumbers).bound {
			names = append(names, key.Name)
		}
		return true
	})
	return names
}

// of returns a list's numbers. A list that is gone has none: its number is 0.
func (b *listBook) of(key contact.ListKey) *listNumbers {
	if numbers, ok := b.byKey.Load(key); ok {
		return numbers.(*listNumbers)
	}
	return &listNumbers{}
}
