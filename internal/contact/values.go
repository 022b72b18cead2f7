package contact

import (
	"fmt"
	"maps"
	"slices"
)

// MaxValueBytes is the limit of the values of a contact's fields together: 64 KiB. A text
// counts its bytes in UTF-8, a number and a boolean count 8 bytes each, and names don't
// count. Events, payloads and everything that holds contacts in memory are as large as
// their contacts, so this limit bounds them all.
const MaxValueBytes = 64 << 10

// plainValueBytes is what a number or a boolean counts.
const plainValueBytes = 8

// ValueBytes returns the size of the values of the contact's fields, as MaxValueBytes counts
// it.
func (c *Contact) ValueBytes() (bytes int) {
	for _, text := range c.StandardFields {
		bytes += len(text)
	}
	for _, value := range c.CustomFields {
		bytes += valueBytes(value)
	}
	return bytes
}

func valueBytes(value any) int {
	if text, ok := value.(string); ok {
		return len(text)
	}
	return plainValueBytes
}

// checkValues returns the refusal of a call that makes the contact's values larger than
// MaxValueBytes, and nil for any other. A contact that is larger already can still be made
// smaller, or be changed in another way. The error is an *InputError that names the field
// that exceeds the limit: of those given, in the order of their names, standard ones first.
func (s Save) checkValues(current, after *Contact) error {
	total := after.ValueBytes()
	if total <= MaxValueBytes || current != nil && total <= current.ValueBytes() {
		return nil
	}
	rule := fmt.Sprintf("makes the values of the contact's fields larger than %d bytes (64 KiB of UTF-8), the limit of all together", MaxValueBytes)
	standard, custom := slices.Sorted(maps.Keys(s.StandardFields)), slices.Sorted(maps.Keys(s.CustomFields))
	for _, name := range standard { // what the call does not give comes first
		total -= len(s.StandardFields[name])
	}
	for _, name := range custom {
		if value := s.CustomFields[name]; value != nil {
			total -= valueBytes(value)
		}
	}
	for _, name := range standard {
		if total += len(s.StandardFields[name]); total > MaxValueBytes {
			return standardFieldError(IllegalStandardField, name, rule)
		}
	}
	for _, name := range custom {
		if value := s.CustomFields[name]; value != nil {
			total += valueBytes(value)
		}
		if total > MaxValueBytes {
			return customFieldError(IllegalCustomField, name, rule)
		}
	}
	return nil
}
