// Package encoding answers: how is what a store holds written into a column?
//
// The engines keep as JSON what nobody searches for. It is the same in each of
// them, so it is here.
package encoding

import (
	"encoding/json"
	"fmt"

	"postbus.dev/postbus/internal/contact"
)

// Contact returns the text that a contact is kept as.
func Contact(kept *contact.Contact) (string, error) {
	encoded, err := json.Marshal(kept)
	if err != nil {
		return "", fmt.Errorf("encode a contact: %w", err)
	}
	return string(encoded), nil
}

// DecodeContact returns the contact of a row.
func DecodeContact(id, revision int64, encoded []byte) (kept contact.Contact, err error) {
	if err := json.Unmarshal(encoded, &kept); err != nil {
		return kept, fmt.Errorf("decode contact %d: %w", id, err)
	}
	kept.ID, kept.Revision = id, revision
	return kept, nil
}

// Subscribed returns how much a contact adds to contact.Counts.Subscribed; nil is
// a contact that is not there.
func Subscribed(c *contact.Contact) int64 {
	if c == nil || c.Permission == contact.PermissionNone {
		return 0
	}
	return 1
}

// remembered is what is kept of a decision: what its caller was told, and
// nothing personal.
type remembered struct {
	ContactID    int64 `json:"contactID,omitempty"`
	Created      bool  `json:"created,omitempty"`
	Removed      bool  `json:"removed,omitempty"`
	OptInStarted bool  `json:"optInStarted,omitempty"`
}

// Decision returns the text that is kept of a decision for repeats of its call.
func Decision(first *contact.Decision) (string, error) {
	encoded, err := json.Marshal(remembered{
		ContactID: first.Contact.ID, Created: first.Created, Removed: first.Removed, OptInStarted: first.OptInStarted,
	})
	if err != nil {
		return "", fmt.Errorf("encode a decision: %w", err)
	}
	return string(encoded), nil
}

// DecodeDecision returns what a repeat of the call is told.
func DecodeDecision(encoded []byte) (repeated contact.Decision, err error) {
	var first remembered
	if err := json.Unmarshal(encoded, &first); err != nil {
		return repeated, fmt.Errorf("decode a remembered decision: %w", err)
	}
	return contact.Decision{
		Contact: contact.Contact{ID: first.ContactID}, Created: first.Created, Removed: first.Removed,
		OptInStarted: first.OptInStarted, Repeated: true,
	}, nil
}
