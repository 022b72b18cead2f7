package contact_test

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
)

func TestParsePermission(t *testing.T) {
	for text, want := range map[string]contact.Permission{
		"1":   contact.PermissionNone,
		"2":   contact.PermissionSingleOptIn,
		"3":   contact.PermissionConfirmedOptIn,
		" 4 ": contact.PermissionDoubleOptIn,
		"5":   contact.PermissionDoubleOptInPlus,
		"6":   contact.PermissionOther,
	} {
		t.Run("takes "+text, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(contact.ParsePermission(text)).To(Equal(want))
		})
	}
	for _, text := range []string{"", "0", "7", "-1", "01", "1.0", "none", "１"} {
		t.Run("refuses "+text, func(t *testing.T) {
			g := NewWithT(t)
			_, err := contact.ParsePermission(text)
			g.Expect(err).To(MatchError("illegal parameter value: permission must be 1, 2, 3, 4, 5 or 6"))
		})
	}
}

func TestParseTexts(t *testing.T) {
	for name, row := range map[string]struct {
		parse     func(string) (string, error)
		parameter string
		longest   int
	}{
		"external_id":       {contact.ParseExternalID, "external_id", 255},
		"src":               {contact.ParseSource, "src", 255},
		"subscription_page": {contact.ParseSubscriptionPage, "subscription_page", 2048},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			longest := strings.Repeat("ü", row.longest)
			g.Expect(row.parse(" " + longest + "\n")).To(Equal(longest))
			g.Expect(row.parse("")).To(BeEmpty())
			_, err := row.parse(longest + "x")
			g.Expect(err).To(MatchError(HavePrefix("illegal parameter value: " + row.parameter + " must have at most")))
			_, err = row.parse("a\x00b")
			g.Expect(err).To(MatchError("illegal parameter value: " + row.parameter + " must not contain control characters"))
		})
	}
}
