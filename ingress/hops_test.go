package ingress_test

import (
	"net/http"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// A callback that points to ingress makes a circle. Each round carries one more
// hop, and the third is refused.
func TestCirclesEnd(t *testing.T) {
	f := start(t)
	importer := f.importer(t)
	const loop = "the call goes in a circle: a callback leads to it that it leads to"
	ways := map[string]func(email string, header map[string]string) request{
		"a call": func(email string, header map[string]string) request {
			return request{body: encode(f.with(email, "permission", "2")), contentType: formType, header: header}
		},
		"an import": func(email string, header map[string]string) request {
			return request{
				path: "/webhooks/contacts/import", query: "events=true&permission=2&key=" + importer, contentType: ndjsonType,
				body: `{"email":"` + email + `"}`, header: header,
			}
		},
	}
	for name, row := range map[string]struct {
		header map[string]string
		email  string
		hops   int
		status int
		says   string
	}{
		"a form":                    {nil, "form", 0, 200, ""},
		"the first callback":        {map[string]string{"Postbus-Hops": "1"}, "first", 1, 200, ""},
		"the second":                {map[string]string{"Postbus-Hops": "2"}, "second", 2, 200, ""},
		"the third":                 {map[string]string{"Postbus-Hops": "3"}, "third", 0, http.StatusLoopDetected, loop},
		"one that went on for ever": {map[string]string{"Postbus-Hops": "2147483647"}, "more", 0, http.StatusLoopDetected, loop},
		"a count that is none":      {map[string]string{"Postbus-Hops": "-1"}, "none", 0, 400, "malformed request: Postbus-Hops must be one number"},
	} {
		for way, requestOf := range ways {
			t.Run(name+", "+way, func(t *testing.T) {
				g := NewWithT(t)
				email := row.email + "." + way[len(way)-4:] + "@example.com"
				got := f.send(t, requestOf(email, row.header))
				if row.status != http.StatusOK {
					expectRefusal(t, got, row.status, row.says)
					return
				}
				g.Expect(got.status).To(Equal(http.StatusOK), got.body)
				var raised []contact.Event
				events, err := f.store.Read(t.Context(), store.Query{})
				g.Expect(err).NotTo(HaveOccurred())
				for _, event := range events {
					if event.Contact.Email == email {
						raised = append(raised, event)
					}
				}
				g.Expect(raised).To(And(Not(BeEmpty()), HaveEach(HaveField("Hops", row.hops))))
			})
		}
	}
}
