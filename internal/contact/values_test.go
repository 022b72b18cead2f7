package contact_test

import (
	"fmt"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
)

// fill returns n custom fields of this many bytes each, named f000 and so on.
func fill(n, bytes int) map[string]any {
	fields := map[string]any{}
	for i := range n {
		fields[fmt.Sprintf("f%03d", i)] = strings.Repeat("x", bytes)
	}
	return fields
}

func TestValuesOfAContactAreLimited(t *testing.T) {
	const limit = contact.MaxValueBytes
	fullContact := contact.Contact{ID: 1, Email: "ada@example.com", Permission: contact.PermissionNone, Revision: 1, CustomFields: fill(64, 1024)}
	tooLarge := contact.Contact{ID: 1, Email: "ada@example.com", Permission: contact.PermissionNone, Revision: 1, CustomFields: fill(65, 1024)}
	for name, row := range map[string]struct {
		current *contact.Contact
		save    func(*contact.Save)
		refused string // the parameter
	}{
		"exactly the limit": {save: func(s *contact.Save) { s.CustomFields = fill(64, 1024) }},
		"names don't count": {save: func(s *contact.Save) { s.CustomFields = map[string]any{strings.Repeat("n", limit): "x"} }},
		"a byte more in a custom field": {save: func(s *contact.Save) {
			s.CustomFields = fill(64, 1024)
			s.CustomFields["f064"] = "x"
		}, refused: "custom_f064"},
		"a byte more in a standard field": {
			save: func(s *contact.Save) {
				s.CustomFields, s.StandardFields = fill(64, 1024), map[string]string{"CITY": "x"}
			},
			refused: "custom_f063", // standard fields come first
		},
		"characters count their bytes": {
			save:    func(s *contact.Save) { s.CustomFields = map[string]any{"a": strings.Repeat("ü", limit/2), "b": "x"} },
			refused: "custom_b",
		},
		"numbers and booleans count eight bytes": {
			save: func(s *contact.Save) {
				s.CustomFields = map[string]any{"a": strings.Repeat("x", limit-15), "b": 1.0, "c": true}
			},
			refused: "custom_c",
		},
		"what is stored counts": {
			current: &fullContact, save: func(s *contact.Save) { s.Update, s.StandardFields = true, map[string]string{"CITY": "x"} },
			refused: "standard_CITY",
		},
		"what is cleared does not": {
			current: &fullContact,
			save: func(s *contact.Save) {
				s.Update, s.StandardFields, s.CustomFields = true, map[string]string{"CITY": "x"}, map[string]any{"f000": nil}
			},
		},
		"a call that updates nothing is not refused": {
			current: &fullContact, save: func(s *contact.Save) { s.StandardFields = map[string]string{"CITY": "x"} },
		},
		"a larger contact can be made smaller": {
			current: &tooLarge, save: func(s *contact.Save) { s.Update, s.CustomFields = true, map[string]any{"f000": "y"} },
		},
		"a larger contact does not grow": {
			current: &tooLarge, save: func(s *contact.Save) {
				s.Update, s.CustomFields = true, map[string]any{"f000": strings.Repeat("x", 1025)}
			},
			refused: "custom_f000",
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			decision := aSave(row.save).Decide(row.current)
			if row.refused == "" {
				g.Expect(decision.Refused).NotTo(HaveOccurred())
				return
			}
			var refusal *contact.InputError
			g.Expect(decision).To(Equal(contact.Decision{Refused: decision.Refused}), "nothing is decided")
			g.Expect(decision.Refused).To(BeAssignableToTypeOf(refusal))
			g.Expect(decision.Refused).To(HaveField("Parameter", row.refused))
			g.Expect(decision.Refused).To(MatchError(HaveSuffix(
				"makes the values of the contact's fields larger than 65536 bytes (64 KiB of UTF-8), the limit of all together")))
		})
	}
}
