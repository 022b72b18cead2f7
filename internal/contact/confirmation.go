package contact

import "time"

// Confirmation is what somebody does who opens the link in an opt-in mail and
// confirms.
type Confirmation struct {
	// RequestedAt is when the opt-in was requested that the mail was about.
	RequestedAt time.Time
	// Plus tells that the mail asked for permission 5, not 4.
	Plus bool
	// Time is when it was confirmed.
	Time time.Time
}

// Used tells whether the contact has confirmed since the mail was asked for, so
// that its link does nothing any more. Of several mails before a confirmation
// any one may be the one that confirms.
func (c Confirmation) Used(current *Contact) bool {
	return current.OptIn != nil && !current.OptIn.ConfirmedAt.Before(c.RequestedAt)
}

// Decide says what the confirmation does: nothing for a contact that is gone,
// and nothing with a link that was used.
func (c Confirmation) Decide(current *Contact) Decision {
	if current == nil || c.Used(current) {
		return unchanged(current)
	}
	decision := Decision{Contact: *current, Changed: true}
	after := &decision.Contact
	confirmed := OptIn{RequestedAt: c.RequestedAt, Plus: c.Plus}
	if current.OptIn != nil {
		confirmed = *current.OptIn
	}
	confirmed.ConfirmedAt = c.Time
	after.OptIn = &confirmed
	after.Permission = c.permission(current.Permission)
	after.Revision++
	after.UpdatedAt = c.Time
	event := Event{Type: EventSubscribe, Source: SourceRecipient, Time: c.Time}
	switch {
	case subscribes(current.Permission, after.Permission):
		decision.Events = []Event{event}
	case current.Permission != after.Permission:
		event.Type, event.Changed = EventChangeProfile, []string{changedPermission}
		decision.Events = []Event{event}
	}
	return decision
}

// permission returns what the contact's becomes: 4, or 5 with Plus; 5 stays.
func (c Confirmation) permission(before Permission) Permission {
	if c.Plus || before == PermissionDoubleOptInPlus {
		return PermissionDoubleOptInPlus
	}
	return PermissionDoubleOptIn
}

// unchanged is the decision to do nothing with a contact, or with nobody.
func unchanged(current *Contact) Decision {
	if current == nil {
		return Decision{}
	}
	return Decision{Contact: *current}
}
