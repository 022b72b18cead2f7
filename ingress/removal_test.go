package ingress_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/ingress"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

const (
	unsubscribePath = "/webhooks/contacts/unsubscribe"
	deletePath      = "/webhooks/contacts/delete"
)

// remover makes a key that may end contacts, and nothing else.
func (f *fixture) remover(t *testing.T) string {
	t.Helper()
	return f.issue(t, "remover", func(key *v1alpha1.ApiKey) {
		key.Spec.Scopes = []v1alpha1.ApiKeyScope{v1alpha1.ScopeContactsRemove}
		key.Spec.Source = contact.SourceRecipient
	})
}

func TestContactsEndInEveryForm(t *testing.T) {
	f := start(t)
	remover := f.remover(t)
	for name, form := range forms {
		for path, event := range map[string]v1alpha1.EventType{unsubscribePath: contact.EventUnsubscribe, deletePath: contact.EventDelete} {
			t.Run(name+" to "+path, func(t *testing.T) {
				g := NewWithT(t)
				email := strings.ToLower(name + string(event) + "@example.com")
				g.Expect(f.send(t, form(f.with(email))).status).To(Equal(http.StatusOK))
				call := form(map[string]string{"key": remover, "email": " " + strings.ToUpper(email), "pixel": "1"})
				call.path = path
				got := f.send(t, call)
				g.Expect(got.status).To(Equal(http.StatusOK), got.body)
				g.Expect(got.body).To(MatchRegexp(`^{"contact":{"id":"[1-9][0-9]*","list":"newsletter","removed":true}}\n$`))
				g.Expect(f.contact(t, email)).To(BeNil())
				g.Expect(f.events(t, email)).To(Equal([]string{"Create API", string(event) + " Recipient"}))

				got = f.send(t, call)
				g.Expect(got.status).To(Equal(http.StatusOK))
				g.Expect(got.body).To(MatchJSON(`{"contact":{"list":"newsletter","removed":false}}`), "the caller has what it wanted")
				g.Expect(f.send(t, form(f.with(email))).body).To(ContainSubstring(`"created":true`), "the next call makes a new contact")
			})
		}
	}
	NewWithT(t).Expect(f.metrics(t)).To(And(
		ContainSubstring(`postbus_ingress_contacts_total{result="removed"} 6`),
		ContainSubstring(`postbus_ingress_unknown_parameters_total 12`)))
}

func TestReasons(t *testing.T) {
	code := func(number int) *int { return &number }
	f := start(t)
	remover := f.remover(t)
	for name, row := range map[string]struct {
		reason, text string
		want         *contact.Reason
		problem      string
	}{
		"none":                    {},
		"the highest code":        {reason: " 1024 ", want: &contact.Reason{Code: code(1024)}},
		"a name with a text":      {reason: "other", text: "moved\naway", want: &contact.Reason{Name: "other", Text: "moved\naway"}},
		"a text alone":            {text: "moved away", want: &contact.Reason{Name: "other", Text: "moved away"}},
		"an unknown code":         {reason: "3", problem: "illegal parameter value: reason must be one of MailUp's codes or Maileon's names"},
		"a code with a sign":      {reason: "+2", problem: "illegal parameter value: reason must be one of MailUp's codes or Maileon's names"},
		"an unknown name":         {reason: "bored", problem: "illegal parameter value: reason must be one of MailUp's codes or Maileon's names"},
		"a text that is too long": {text: strings.Repeat("ä", 256), problem: "illegal parameter value: reason_text must have at most 255 characters"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			email := strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), "'", "") + "@example.com"
			g.Expect(f.send(t, forms["form"](f.with(email))).status).To(Equal(http.StatusOK))
			call := forms["JSON"](map[string]string{"key": remover, "email": email, "reason": row.reason, "reason_text": row.text})
			call.path = unsubscribePath
			got := f.send(t, call)
			if row.problem != "" {
				expectRefusal(t, got, http.StatusBadRequest, row.problem)
				g.Expect(f.contact(t, email)).NotTo(BeNil(), "nothing is half done")
				return
			}
			g.Expect(got.status).To(Equal(http.StatusOK), got.body)
			events, err := f.store.Read(t.Context(), store.Query{Filter: store.Filter{Types: []v1alpha1.EventType{contact.EventUnsubscribe}}})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(events[len(events)-1].Reason).To(Equal(row.want))
		})
	}
}

func TestEndingNeedsItsScope(t *testing.T) {
	f := start(t)
	for _, path := range []string{unsubscribePath, deletePath} {
		call := forms["form"](f.with("ada@example.com"))
		call.path = path
		expectRefusal(t, f.send(t, call), http.StatusForbidden, "the api key does not have the scope ContactsRemove")
	}
	expectRefusal(t, f.send(t, forms["form"](map[string]string{"key": f.remover(t), "email": "ada@example.com"})),
		http.StatusForbidden, "the api key does not have the scope ContactsWrite")
}

func TestForget(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	remover := f.remover(t)
	forget := func(value string) answer {
		call := forms["form"](map[string]string{"key": remover, "email": "ada@example.com", "forget": value})
		call.path = deletePath
		return f.send(t, call)
	}
	g.Expect(f.send(t, forms["form"](f.with("ada@example.com"))).status).To(Equal(http.StatusOK))
	expectRefusal(t, forget("yes"), http.StatusBadRequest, "illegal parameter value: forget must be true or false")
	g.Expect(f.contact(t, "ada@example.com")).NotTo(BeNil())

	g.Expect(forget("true").body).To(ContainSubstring(`"removed":true`))
	g.Expect(f.events(t, "ada@example.com")).To(Equal([]string{"Delete Recipient"}), "the past is gone")
	g.Expect(f.store.ScrubForgotten(t.Context())).To(Equal(1), "no subscription is to be told")
	events, err := f.store.Read(t.Context(), store.Query{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(fmt.Sprintf("%+v", events)).NotTo(ContainSubstring("ada@example.com"))
	g.Expect(forget("true").body).To(ContainSubstring(`"removed":false`))
	g.Expect(f.metrics(t)).To(And(
		ContainSubstring(`postbus_ingress_contacts_total{result="removed"} 1`),
		ContainSubstring(`postbus_ingress_contacts_total{result="updated"} 0`)))
}

func TestIdempotencyKey(t *testing.T) {
	g := NewWithT(t)
	clock := now
	f := start(t, func(options *ingress.Options) { options.Now = func() time.Time { return clock } })
	named := func(name string, parameters map[string]string, form string) request {
		call := forms[form](parameters)
		call.header = map[string]string{"Idempotency-Key": name}
		return call
	}
	first := f.send(t, named("a", f.with("ada@example.com", "permission", "2"), "form"))
	g.Expect(first.body).To(ContainSubstring(`"created":true`))
	for _, form := range []string{"form", "JSON", "URL"} {
		again := f.send(t, named(`"a"`, f.with("ada@example.com", "permission", "2"), form))
		g.Expect(again.status).To(Equal(http.StatusOK))
		g.Expect(again.body).To(Equal(first.body), "the same call in another form")
	}
	g.Expect(f.events(t, "ada@example.com")).To(Equal([]string{"Create API", "Subscribe API"}))
	g.Expect(f.metrics(t)).To(ContainSubstring(`postbus_ingress_contacts_total{result="repeated"} 3`))

	expectRefusal(t, f.send(t, named("a", f.with("grace@example.com"), "form")),
		http.StatusUnprocessableEntity, "this Idempotency-Key was used for another call")
	g.Expect(f.contact(t, "grace@example.com")).To(BeNil())

	other := f.with("grace@example.com")
	other["key"] = f.issue(t, "another-form", nil)
	g.Expect(f.send(t, named("a", other, "form")).body).To(ContainSubstring(`"created":true`), "names of another key are others")

	clock = clock.Add(24 * time.Hour)
	g.Expect(f.send(t, named("a", f.with("ada@example.com", "permission", "2"), "form")).body).
		To(ContainSubstring(`"created":false`), "after a day it is a new call")

	for _, name := range []string{"", strings.Repeat("x", 256)} {
		call := named(name, f.with("ada@example.com"), "form")
		expectRefusal(t, f.send(t, call), http.StatusBadRequest, "illegal parameter value: Idempotency-Key must have 1 to 255 characters")
	}
}
