package encoding

import (
	"encoding/json"
	"fmt"

	"postbus.dev/postbus/internal/contact"
)

// payload is the part of an event that nobody searches for.
type payload struct {
	Contact   contact.Contact    `json:"contact"`
	Changed   []string           `json:"changed,omitempty"`
	Reason    *contact.Reason    `json:"reason,omitempty"`
	Forget    bool               `json:"forget,omitempty"`
	Operation *contact.Operation `json:"operation,omitempty"`
	Hops      int                `json:"hops,omitempty"`
	Trace     string             `json:"trace,omitempty"`
}

// Tombstone is the payload of an event about somebody who is forgotten.
const Tombstone = `{"contact":{}}`

// Payload returns the text of what has no column of its own.
func Payload(event *contact.Event) (string, error) {
	encoded, err := json.Marshal(payload{
		Contact: event.Contact, Changed: event.Changed, Reason: event.Reason, Forget: event.Forget,
		Operation: event.Operation, Hops: event.Hops, Trace: event.Trace,
	})
	if err != nil {
		return "", fmt.Errorf("encode an event: %w", err)
	}
	return string(encoded), nil
}

// DecodePayload gives an event, whose columns were read, the rest, and its size.
func DecodePayload(encoded []byte, event *contact.Event) error {
	var rest payload
	if err := json.Unmarshal(encoded, &rest); err != nil {
		return fmt.Errorf("decode event %d: %w", event.Position, err)
	}
	event.Contact, event.Changed, event.Reason = rest.Contact, rest.Changed, rest.Reason
	event.Forget, event.Operation, event.Hops, event.Trace = rest.Forget, rest.Operation, rest.Hops, rest.Trace
	event.Size = event.Measure()
	return nil
}
