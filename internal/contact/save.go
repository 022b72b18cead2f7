package contact

import (
	"maps"
	"slices"
	"time"

	"postbus.dev/postbus/api/v1alpha1"
)

// Save is a checked call that creates or updates one contact of one list.
type Save struct {
	// Address is the contact's address.
	Address Address
	// Update lets the call change a contact that exists (sync_mode 1). Without
	// it, nothing but an opt-in request is stored for one (sync_mode 2).
	Update bool
	// Permission is the permission given, 0 when none is. A new contact without
	// one has PermissionNone.
	Permission Permission
	// ExternalID is the external id given: nil when none is, empty to clear it.
	ExternalID *string
	// StandardFields are the standard fields given, by name, as
	// CheckStandardField returns them; empty clears a field.
	StandardFields map[string]string
	// CustomFields are the custom fields given, by name, as CheckCustomField
	// returns them; nil clears a field.
	CustomFields map[string]any
	// Source and SubscriptionPage tell where the contact comes from, empty when
	// not given.
	Source           string
	SubscriptionPage string
	// OptIn asks for a double opt-in when it is not nil. Its RequestedAt is set
	// by Decide.
	OptIn *OptIn
	// ResendPolicy says whether a repeated request starts another opt-in; empty
	// means v1alpha1.ResendUnconfirmed.
	ResendPolicy v1alpha1.ResendPolicy
	// ResendInterval is how long after an opt-in request another one starts
	// nothing, whatever the policy.
	ResendInterval time.Duration
	// EventSource is what the events that the call raises carry.
	EventSource v1alpha1.EventSource
	// Time is when the call was made.
	Time time.Time
}

// Decide says what the call makes of the stored contact, or, for nil, of none.
// It depends on its argument alone and doesn't change it. It refuses a call that makes the
// values of the contact's fields larger than MaxValueBytes.
func (s Save) Decide(current *Contact) Decision {
	decision := s.decide(current)
	if err := s.checkValues(current, &decision.Contact); err != nil {
		return Decision{Refused: err}
	}
	return decision
}

func (s Save) decide(current *Contact) Decision {
	if current == nil {
		return s.create()
	}
	decision := Decision{Contact: *current}
	after := &decision.Contact
	var changed []string
	if s.Update {
		changed = s.update(after)
	}
	if s.OptIn != nil && s.mayRepeatOptIn(current) {
		s.startOptIn(after)
		decision.OptInStarted = true
	}
	if s.Update || decision.OptInStarted {
		decision.Changed = s.trace(after)
	}
	if subscribes(current.Permission, after.Permission) {
		decision.Events = append(decision.Events, s.event(EventSubscribe))
	} else if after.Permission != current.Permission {
		changed = append(changed, changedPermission)
	}
	if len(changed) > 0 {
		event := s.event(EventChangeProfile)
		event.Changed = slices.Compact(slices.Sorted(slices.Values(changed)))
		decision.Events = append(decision.Events, event)
	}
	decision.Changed = decision.Changed || decision.OptInStarted || len(decision.Events) > 0
	if decision.Changed {
		after.Revision++
		after.UpdatedAt = s.Time
	}
	return decision
}

// create makes a new contact of the call.
func (s Save) create() Decision {
	after := Contact{
		Email:      s.Address.Display,
		Permission: PermissionNone,
		Revision:   1,
		CreatedAt:  s.Time,
		UpdatedAt:  s.Time,
	}
	s.update(&after)
	s.trace(&after)
	if s.OptIn != nil {
		s.startOptIn(&after)
	}
	events := []Event{s.event(EventCreate)}
	if subscribes(PermissionNone, after.Permission) {
		events = append(events, s.event(EventSubscribe))
	}
	return Decision{
		Contact: after, Changed: true, Created: true, OptInStarted: s.OptIn != nil, Events: events,
	}
}

// What an event's Changed calls that is no field.
const (
	changedExternalID = "external_id"
	changedPermission = "permission"
)

// lowers tells whether a call would take a confirmed permission back: 5 stays
// 5, and 4 can only become 5.
func lowers(before, given Permission) bool {
	return before.Confirmed() && given != PermissionDoubleOptInPlus
}

func subscribes(before, after Permission) bool {
	return before == PermissionNone && after != PermissionNone
}

// update applies permission, external id and fields, and returns the names of
// the fields that changed, "external_id" among them.
func (s Save) update(after *Contact) (changed []string) {
	if s.Permission != 0 && !lowers(after.Permission, s.Permission) {
		after.Permission = s.Permission
	}
	if s.ExternalID != nil && *s.ExternalID != after.ExternalID {
		after.ExternalID = *s.ExternalID
		changed = append(changed, changedExternalID)
	}
	var names []string
	after.StandardFields, names = merge(after.StandardFields, s.StandardFields, "")
	changed = append(changed, names...)
	after.CustomFields, names = merge(after.CustomFields, s.CustomFields, nil)
	return append(changed, names...)
}

// merge returns the stored fields with the given ones over them, and the names
// of those that differ. A given value equal to cleared removes its field. The
// stored map stays as it is.
func merge[V comparable](stored, given map[string]V, cleared V) (merged map[string]V, changed []string) {
	merged = stored
	for name, value := range given {
		before, has := stored[name]
		if before == value && has || value == cleared && !has {
			continue
		}
		if len(changed) == 0 {
			merged = maps.Clone(stored)
		}
		changed = append(changed, name)
		if value == cleared {
			delete(merged, name)
			continue
		}
		if merged == nil {
			merged = map[string]V{}
		}
		merged[name] = value
	}
	return merged, changed
}

// trace stores where the contact comes from, as far as the call says so, and
// tells whether that is new. It is no event: nobody subscribes to it.
func (s Save) trace(after *Contact) (changed bool) {
	if s.Source != "" && s.Source != after.Source {
		after.Source = s.Source
		changed = true
	}
	if s.SubscriptionPage != "" && s.SubscriptionPage != after.SubscriptionPage {
		after.SubscriptionPage = s.SubscriptionPage
		changed = true
	}
	return changed
}

// mayRepeatOptIn tells whether the list's policy starts an opt-in for a contact
// that exists already.
func (s Save) mayRepeatOptIn(current *Contact) bool {
	if current.OptIn != nil && s.Time.Sub(current.OptIn.RequestedAt) < s.ResendInterval {
		return false
	}
	switch s.ResendPolicy {
	case v1alpha1.ResendAlways:
		return true
	case v1alpha1.ResendNever:
		return current.OptIn == nil && !current.Permission.Confirmed()
	default:
		return !current.Permission.Confirmed()
	}
}

func (s Save) startOptIn(after *Contact) {
	request := *s.OptIn
	request.RequestedAt = s.Time
	if after.OptIn != nil {
		request.ConfirmedAt = after.OptIn.ConfirmedAt
	}
	after.OptIn = &request
}

func (s Save) event(kind v1alpha1.EventType) Event {
	return Event{Type: kind, Source: s.EventSource, Time: s.Time}
}
