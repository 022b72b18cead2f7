package ingress_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// The tests in spec_*_test.go hold ingress against what it promises to callers,
// table by table and row by row: request, parameters, rules, fields, answers
// and the other ways in. Each row is sent in all three data forms.

// specRow is a row of a table: what is sent, and what must come of it. WHO in a
// value stands for what no other row has.
type specRow struct {
	// before are calls for the same address that came before, {{}} for one
	// without parameters.
	before [][]string
	// given are names and values beside key and email.
	given []string
	// refused is the message of a 400, empty for a 200.
	refused string
	// parameter is what a refusal is about.
	parameter string
	// want turns a contact that has nothing but its address into the stored one.
	want func(c *contact.Contact, who string)
	// raises are the events of the call; without it a new contact raises Create,
	// another nothing.
	raises []string
	// started tells that the call starts a double opt-in.
	started bool
	// revision is the stored contact's, 1 where it is 0.
	revision int64
}

var subscribed = []string{"Create API", "Subscribe API"}

// holds sends every row in every form.
func (f *fixture) holds(t *testing.T, rows map[string]specRow) {
	t.Helper()
	number := 0
	for name, row := range rows {
		for form, send := range forms {
			number++
			who := fmt.Sprintf("who%d-%s", number, f.namespace)
			t.Run(name+", "+form, func(t *testing.T) { f.holdsRow(t, row, who, send) })
		}
	}
}

func (f *fixture) holdsRow(t *testing.T, row specRow, who string, form func(map[string]string) request) {
	t.Helper()
	g := NewWithT(t)
	email := who + "@example.com"
	call := func(given []string) answer {
		parameters := f.with(email, given...)
		for name, value := range parameters {
			parameters[name] = strings.ReplaceAll(value, "WHO", who)
		}
		return f.send(t, form(parameters))
	}
	for _, given := range row.before {
		g.Expect(call(given).status).To(Equal(http.StatusOK))
	}
	stored, events, mails := f.contact(t, email), f.events(t, email), f.mails(t, email)
	got := call(row.given)
	if row.refused != "" {
		body := expectRefusal(t, got, http.StatusBadRequest, row.refused)
		g.Expect(body.Error.Parameter).To(Equal(row.parameter))
		g.Expect(f.contact(t, email)).To(Equal(stored), "nothing is stored")
		g.Expect(f.events(t, email)).To(Equal(events), "nothing is raised")
		g.Expect(f.mails(t, email)).To(Equal(mails), "nothing is sent")
		return
	}
	g.Expect(got.status).To(Equal(http.StatusOK), got.body)
	stored = f.contact(t, email)
	g.Expect(got.body).To(MatchJSON(fmt.Sprintf(`{"contact":{"id":"%d","list":"newsletter","created":%t},"doi":{"started":%t}}`,
		stored.ID, len(row.before) == 0, row.started)))
	g.Expect(*stored).To(Equal(row.stored(stored.ID, who)))
	g.Expect(f.events(t, email)).To(Equal(append(events, row.raised()...)))
	if row.started {
		mails++
	}
	g.Expect(f.mails(t, email)).To(Equal(mails))
}

// stored is the contact that the row wants.
func (r specRow) stored(id int64, who string) contact.Contact {
	want := contact.Contact{
		ID: id, Email: who + "@example.com", Permission: contact.PermissionNone,
		Revision: max(r.revision, 1), CreatedAt: now, UpdatedAt: now,
	}
	if r.want != nil {
		r.want(&want, who)
	}
	return want
}

func (r specRow) raised() []string {
	if r.raises == nil && len(r.before) == 0 {
		return []string{"Create API"}
	}
	return r.raises
}

// mails returns how many opt-in mails an address will have got.
func (f *fixture) mails(t *testing.T, email string) (count int) {
	t.Helper()
	query := store.Query{Filter: store.Filter{Types: []v1alpha1.EventType{contact.EventOptInMail}}}
	events, err := f.store.Read(t.Context(), query)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	for _, event := range events {
		if event.Contact.Email == email {
			count++
		}
	}
	return count
}

// another returns the same ingress, for a list and a key of a namespace of
// their own.
func (f *fixture) another(t *testing.T, change func(*v1alpha1.ContactList)) *fixture {
	t.Helper()
	other := &fixture{namespace: plane.Namespace(t), address: f.address, objects: f.objects, store: f.store, logs: f.logs, registry: f.registry}
	list := newsletter(other.namespace)
	change(list)
	f.declare(t, list)
	other.key = other.issue(t, "website-form", nil)
	return other
}

// The wanted contacts of rows.

func hasPermission(permission contact.Permission) func(*contact.Contact, string) {
	return func(c *contact.Contact, _ string) { c.Permission = permission }
}

func hasStandard(name, value string) func(*contact.Contact, string) {
	return func(c *contact.Contact, _ string) { c.StandardFields = map[string]string{name: value} }
}

func hasCustom(name string, value any) func(*contact.Contact, string) {
	return func(c *contact.Contact, _ string) { c.CustomFields = map[string]any{name: value} }
}

func hasOptIn(optIn contact.OptIn) func(*contact.Contact, string) {
	optIn.RequestedAt = now
	return func(c *contact.Contact, _ string) { c.OptIn = &optIn }
}
