package contact

import "time"

// Contact is one person on one list.
type Contact struct {
	// ID is the contact's number, given by the store, never reused.
	ID int64 `json:"id"`
	// Email is the address as it is written: the domain in lower case, the
	// local part as it was given.
	Email string `json:"email"`
	// ExternalID is the contact's id elsewhere, unique in its list. Empty when
	// there is none.
	ExternalID string `json:"externalId,omitempty"`
	// Permission is what the contact allowed.
	Permission Permission `json:"permission"`
	// StandardFields are the standard fields that are set, by name.
	StandardFields map[string]string `json:"standardFields,omitempty"`
	// CustomFields are the custom fields that are set, by name. A value is a
	// string (String, Date), a float64 (Integer, Float) or a bool (Boolean),
	// which are the types that JSON gives back.
	CustomFields map[string]any `json:"customFields,omitempty"`
	// Source tells where the contact comes from: the parameter src, readable
	// as CUSTOM_SOURCE.
	Source string `json:"customSource,omitempty"`
	// SubscriptionPage is the page that made the call, kept for reports.
	SubscriptionPage string `json:"subscriptionPage,omitempty"`
	// OptIn is the double opt-in that was last requested, nil when none was.
	OptIn *OptIn `json:"optIn,omitempty"`
	// Revision rises by one with each change, from 1.
	Revision int64 `json:"revision"`
	// CreatedAt and UpdatedAt are when the contact was stored first and last.
	CreatedAt time.Time `json:"createdAt"`
	UpdatedAt time.Time `json:"updatedAt"`
}

// OptIn is a double opt-in that was requested for a contact.
type OptIn struct {
	// Mailing is the key of the opt-in mailing, empty for the list's default.
	Mailing string `json:"mailing,omitempty"`
	// Plus asks for permission 5 instead of 4 once it is confirmed.
	Plus bool `json:"plus,omitempty"`
	// RequestedAt is when it was last requested.
	RequestedAt time.Time `json:"requestedAt"`
	// ConfirmedAt is when one was last confirmed, this one or one before it;
	// zero when none was. Mails about requests up to then are used up.
	ConfirmedAt time.Time `json:"confirmedAt,omitzero"`
}

// Permission is what a contact allowed. The numbers are Maileon's.
type Permission int

// The permissions.
const (
	PermissionNone            Permission = 1
	PermissionSingleOptIn     Permission = 2
	PermissionConfirmedOptIn  Permission = 3
	PermissionDoubleOptIn     Permission = 4
	PermissionDoubleOptInPlus Permission = 5
	PermissionOther           Permission = 6
)

// Confirmed tells whether the permission comes from a confirmed double opt-in,
// which no call ever lowers.
func (p Permission) Confirmed() bool {
	return p == PermissionDoubleOptIn || p == PermissionDoubleOptInPlus
}

// Counts are how many contacts a list has.
type Counts struct {
	// Contacts is the number of all of them.
	Contacts int64
	// Subscribed is the number of those with a permission other than none.
	Subscribed int64
}
