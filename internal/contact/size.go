package contact

import "unsafe"

// What Measure adds for things whose size Go does not show: a map with its first eight
// entries, each further entry, and the rounding and headers of each text that is allocated
// on its own.
const (
	mapBytes   = 320
	entryBytes = 48
	textBytes  = 24
)

// Measure returns an estimate of the memory that the event takes, with everything that it
// refers to, in bytes. It is within a factor of two of what the heap has, and depends on the
// event alone, so that everyone who counts events comes to the same sum.
func (e *Event) Measure() int {
	size := int(unsafe.Sizeof(*e)) + texts(e.ID, e.List.Namespace, e.List.Name, e.Address, e.Trace) + e.Contact.measure()
	for _, name := range e.Changed {
		size += texts(name)
	}
	if e.Reason != nil {
		size += int(unsafe.Sizeof(*e.Reason)) + texts(e.Reason.Name, e.Reason.Text)
	}
	if e.Operation != nil {
		size += int(unsafe.Sizeof(*e.Operation)) + texts(e.Operation.Kind, e.Operation.Name, e.Operation.Recipient)
	}
	return size
}

// measure returns the memory of what the contact refers to.
func (c *Contact) measure() int {
	size := texts(c.Email, c.ExternalID, c.Source, c.SubscriptionPage)
	if len(c.StandardFields) > 0 {
		size += mapBytes
	}
	for name, text := range c.StandardFields {
		size += entryBytes + texts(name, text)
	}
	if len(c.CustomFields) > 0 {
		size += mapBytes
	}
	for name, value := range c.CustomFields {
		size += entryBytes + texts(name) + textBytes
		if text, ok := value.(string); ok {
			size += texts(text)
		}
	}
	if c.OptIn != nil {
		size += int(unsafe.Sizeof(*c.OptIn)) + texts(c.OptIn.Mailing)
	}
	return size
}

// texts returns the memory of texts without their headers, which are in what has them.
func texts(all ...string) (size int) {
	for _, text := range all {
		if text != "" {
			size += textBytes + len(text)
		}
	}
	return size
}
