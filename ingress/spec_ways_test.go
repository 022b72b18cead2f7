package ingress_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// TestSpecWaysIn has the ways in that a program with a key has: what each
// raises, from which source, over the life of a contact. Pages and the command
// line are tested where they are.
func TestSpecWaysIn(t *testing.T) {
	f := start(t)
	for source, shown := range map[v1alpha1.EventSource]string{
		"":                      "API", // by default
		contact.SourceAPI:       "API",
		contact.SourceConsole:   "Console",
		contact.SourceRecipient: "Recipient",
	} {
		key := f.issue(t, "key-"+strings.ToLower(string(source))+"x", func(key *v1alpha1.ApiKey) {
			key.Spec.Source = source
			key.Spec.Scopes = []v1alpha1.ApiKeyScope{v1alpha1.ScopeContactsWrite, v1alpha1.ScopeContactsRemove}
		})
		for form, send := range forms {
			t.Run(fmt.Sprintf("source %q, %s", source, form), func(t *testing.T) {
				g := NewWithT(t)
				email := strings.ToLower("x" + string(source) + "-" + form + "@example.com")
				raises := func(path string, given []string, events ...string) {
					t.Helper()
					before := f.events(t, email)
					parameters := f.with(email, given...)
					parameters["key"] = key
					call := send(parameters)
					call.path = path
					got := f.send(t, call)
					g.Expect(got.status).To(Equal(http.StatusOK), got.body)
					for i := range events {
						events[i] = strings.Replace(events[i], " SOURCE", " "+shown, 1)
					}
					g.Expect(f.events(t, email)).To(Equal(append(before, events...)))
				}
				raises(contactPath, nil, "Create SOURCE")
				raises(contactPath, []string{"sync_mode", "1"})
				raises(contactPath, []string{"sync_mode", "1", "standard_ZIP", "1"}, "ChangeProfile SOURCE [ZIP]")
				raises(contactPath, []string{"sync_mode", "1", "permission", "2"}, "Subscribe SOURCE")
				raises(contactPath, []string{"sync_mode", "1", "permission", "3"}, "ChangeProfile SOURCE [permission]")
				raises(contactPath, []string{"sync_mode", "1", "standard_ZIP", "1", "permission", "3"})
				raises(unsubscribePath, nil, "Unsubscribe SOURCE")
				raises(unsubscribePath, nil)
				raises(contactPath, []string{"permission", "6"}, "Create SOURCE", "Subscribe SOURCE")
				raises(deletePath, nil, "Delete SOURCE")
				raises(deletePath, nil)
				raises(contactPath, nil, "Create SOURCE")
				raises(contactPath, []string{"sync_mode", "1", "permission", "2", "standard_ZIP", "2"}, "Subscribe SOURCE", "ChangeProfile SOURCE [ZIP]")
			})
		}
	}
}

// TestSpecReasons has every reason of an unsubscribe.
func TestSpecReasons(t *testing.T) {
	f := start(t)
	remover := f.remover(t)
	codes := []int{0, 2, 4, 8, 80, 81, 82, 83, 16, 32, 64, 128, 256, 512, 1024}
	names := []string{"too_many_messages", "no_demand", "change_of_channel", "change_of_interest", "technical_reasons", "other"}
	rows := map[string]contact.Reason{}
	for _, code := range codes {
		rows[strconv.Itoa(code)] = contact.Reason{Code: &code}
	}
	for _, name := range names {
		rows[name] = contact.Reason{Name: name, Text: "why: ä & b"}
	}
	for reason, want := range rows {
		for form, send := range forms {
			t.Run(reason+", "+form, func(t *testing.T) {
				g := NewWithT(t)
				email := strings.ToLower(reason + form + "@example.com")
				g.Expect(f.send(t, send(f.with(email))).status).To(Equal(http.StatusOK))
				call := send(map[string]string{"key": remover, "email": email, "reason": reason, "reason_text": want.Text})
				call.path = unsubscribePath
				got := f.send(t, call)
				g.Expect(got.status).To(Equal(http.StatusOK), got.body)
				query := store.Query{Filter: store.Filter{Types: []v1alpha1.EventType{contact.EventUnsubscribe}}}
				events, err := f.store.Read(t.Context(), query)
				g.Expect(err).NotTo(HaveOccurred())
				last := events[len(events)-1]
				g.Expect(last.Contact.Email).To(Equal(email))
				g.Expect(last.Reason).To(HaveValue(Equal(want)))
			})
		}
	}
}

// An import raises no events, and yet whoever it asks for a double opt-in gets
// a mail.
func TestImportedOptInsAreMailed(t *testing.T) {
	f := start(t)
	key := f.importer(t)
	for name, row := range map[string]struct{ contentType, file string }{
		"NDJSON": {ndjsonType, `{"email":"WHO1@example.com","doi":true,"doiplus":true,"doimailing":"fair"}
{"email":"WHO2@example.com","doi":false}
{"email":"WHO3@example.com","permission":4}
{"email":"WHO3@example.com","doi":true}
{"email":"WHO4@example.com","doi":true,"doimailing":"gone"}
`},
		"CSV": {csvType, `email,doi,doiplus,doimailing,permission
WHO1@example.com,true,true,fair,
WHO2@example.com,false,,,
WHO3@example.com,,,,4
WHO3@example.com,true,,,
WHO4@example.com,true,,gone,
`},
	} {
		for _, events := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, events=%t", name, events), func(t *testing.T) {
				g := NewWithT(t)
				who := fmt.Sprintf("%s.%t.", strings.ToLower(name), events)
				lines, _ := f.importFile(t, request{
					query: fmt.Sprintf("events=%t&key=%s", events, key), contentType: row.contentType,
					body: strings.ReplaceAll(row.file, "WHO", who),
				})
				g.Expect(outcomes(lines)).To(Equal([]string{
					"1 created", "2 created", "3 created", "4 kept",
					"5 IllegalValue: illegal parameter value: doimailing must be the key of an opt-in mailing of the list",
				}))
				g.Expect(f.contact(t, who+"1@example.com").OptIn).To(HaveValue(Equal(contact.OptIn{Mailing: "fair", Plus: true, RequestedAt: now})))
				for number, mails := range map[string]int{"1": 1, "2": 0, "3": 0, "4": 0} {
					g.Expect(f.mails(t, who+number+"@example.com")).To(Equal(mails), number)
				}
				if events {
					g.Expect(f.events(t, who+"1@example.com")).To(Equal([]string{"Create API"}))
				} else {
					g.Expect(f.events(t, who+"1@example.com")).To(BeEmpty())
				}
			})
		}
	}
}
