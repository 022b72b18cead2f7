package ingress_test

import (
	"net/http"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
)

// The three example calls of Maileon's page, with the spaces that stand in
// them as a client sends them: as %20 or as a plus.
func TestVendorsExamples(t *testing.T) {
	const address = "max.mustermann@xqueue.com"
	for name, row := range map[string]struct {
		query string
		want  func(*contact.Contact)
		doi   string
	}{
		"permission none, no opt-in mail": {
			query: "key=KEY&email=max.mustermann@xqueue.com&sync_mode=1",
			want:  func(*contact.Contact) {}, doi: "false",
		},
		"the default opt-in mailing": {
			query: "key=KEY&email=max.mustermann@xqueue.com &sync_mode=1&doi=true",
			want:  func(c *contact.Contact) { c.OptIn = &contact.OptIn{RequestedAt: now} }, doi: "true",
		},
		"fields, a mailing by its key, double opt-in plus": {
			query: "key=KEY&email=max.mustermann@xqueue.com &sync_mode=1&doi=true&doiplus=true&doimailing= dh6hdjk9" +
				"&standard_FIRSTNAME=Max&standard_LASTNAME=Mustermann&custom_special+date=12.12.2020",
			want: func(c *contact.Contact) {
				c.OptIn = &contact.OptIn{Mailing: "dh6hdjk9", Plus: true, RequestedAt: now}
				c.StandardFields = map[string]string{"FIRSTNAME": "Max", "LASTNAME": "Mustermann"}
				c.CustomFields = map[string]any{"special date": "2020-12-12"}
			},
			doi: "true",
		},
	} {
		for _, space := range []string{"%20", "+"} {
			t.Run(name+" with "+space, func(t *testing.T) {
				g := NewWithT(t)
				f := start(t)
				query := strings.NewReplacer("KEY", f.key, " ", space).Replace(row.query)
				got := f.send(t, request{query: query})
				g.Expect(got.status).To(Equal(http.StatusOK), got.body)
				g.Expect(got.body).To(MatchJSON(`{"contact":{"id":"1","list":"newsletter","created":true},"doi":{"started":` + row.doi + `}}`))
				want := contact.Contact{
					ID: 1, Email: address, Permission: contact.PermissionNone, Revision: 1, CreatedAt: now, UpdatedAt: now,
				}
				row.want(&want)
				g.Expect(f.contact(t, address)).To(HaveValue(Equal(want)))
				g.Expect(f.events(t, address)).To(Equal([]string{"Create API"}))
			})
		}
	}
}
