package ingress_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/ingress"
	"postbus.dev/postbus/internal/contact"
)

// TestSpecRules has the rules in their order. That a confirmed opt-in raises
// the permission is the pages' to test; TestOrderOfChecks has the last rule.
func TestSpecRules(t *testing.T) {
	rows := map[string]specRow{
		"a permission of 4 becomes 5": {
			before: [][]string{{"permission", "4"}}, given: []string{"permission", "5", "sync_mode", "1"},
			want: hasPermission(5), raises: []string{"ChangeProfile API [permission]"}, revision: 2,
		},
		"a permission of 4 is not lowered, what comes with it is stored": {
			before: [][]string{{"permission", "4"}}, given: []string{"permission", "1", "sync_mode", "1", "standard_ZIP", "1"},
			want: func(c *contact.Contact, _ string) {
				c.Permission, c.StandardFields = 4, map[string]string{"ZIP": "1"}
			},
			raises: []string{"ChangeProfile API [ZIP]"}, revision: 2,
		},
		"with doi=true the contact has the permission given": {
			given: []string{"permission", "2", "doi", "true", "doiplus", "true"}, raises: subscribed, started: true,
			want: func(c *contact.Contact, _ string) {
				c.Permission, c.OptIn = 2, &contact.OptIn{Plus: true, RequestedAt: now}
			},
		},
		"with doi=true and no permission it has none": {given: []string{"doi", "true"}, want: hasOptIn(contact.OptIn{}), started: true},
		"without a permission an update keeps what there is": {
			before: [][]string{{"permission", "2"}}, given: []string{"sync_mode", "1"}, want: hasPermission(2),
		},
		"sync_mode=2 on an existing contact: data and permission stay, the mailing is sent": {
			before: [][]string{{"standard_ZIP", "1"}},
			given:  []string{"sync_mode", "2", "standard_ZIP", "2", "permission", "2", "doi", "true"},
			want: func(c *contact.Contact, _ string) {
				c.StandardFields, c.OptIn = map[string]string{"ZIP": "1"}, &contact.OptIn{RequestedAt: now}
			},
			started: true, revision: 2,
		},
		"sync_mode=2 on a confirmed contact: no mailing is sent": {
			before: [][]string{{"permission", "5"}}, given: []string{"sync_mode", "2", "doi", "true"}, want: hasPermission(5),
		},
	}
	for _, before := range []string{"4", "5"} {
		for _, given := range []string{"1", "2", "3", "4", "6"} {
			rows[fmt.Sprintf("a permission of %s is never lowered by a call with %s", before, given)] = specRow{
				before: [][]string{{"permission", before}}, given: []string{"permission", given, "sync_mode", "1"},
				want: hasPermission(contact.Permission(before[0] - '0')),
			}
		}
	}
	start(t).holds(t, rows)
}

// TestSpecResendPolicies has the rule about a second mailing: what was before,
// and which policy sends one then.
func TestSpecResendPolicies(t *testing.T) {
	f := startEverywhere(t)
	asked, confirmed := []string{"doi", "true"}, []string{"permission", "4"}
	for policy, sends := range map[v1alpha1.ResendPolicy]struct{ known, asked, confirmed, confirmedAndAsked bool }{
		v1alpha1.ResendNever:       {known: true},
		v1alpha1.ResendUnconfirmed: {known: true, asked: true},
		"":                         {known: true, asked: true}, // Unconfirmed is the default
		v1alpha1.ResendAlways:      {known: true, asked: true, confirmed: true, confirmedAndAsked: true},
	} {
		list := f.another(t, func(list *v1alpha1.ContactList) { list.Spec.OptIn.ResendPolicy = policy })
		for name, row := range map[string]struct {
			before [][]string
			sends  bool
		}{
			"a contact that was never asked":     {[][]string{{}}, sends.known},
			"a contact that was asked":           {[][]string{asked}, sends.asked},
			"a confirmed contact":                {[][]string{confirmed}, sends.confirmed},
			"a confirmed contact that was asked": {[][]string{append(asked, confirmed...)}, sends.confirmedAndAsked},
		} {
			for form, send := range forms {
				t.Run(fmt.Sprintf("%s, policy %q, %s", name, policy, form), func(t *testing.T) {
					g := NewWithT(t)
					email := strings.ToLower(strings.ReplaceAll(name, " ", "-")+"-"+form) + "@" + list.namespace + ".example.com"
					for _, given := range row.before {
						g.Expect(f.send(t, send(list.with(email, given...))).status).To(Equal(http.StatusOK))
					}
					mails, events := f.mails(t, email), f.events(t, email)
					got := f.send(t, send(list.with(email, asked...)))
					g.Expect(got.body).To(ContainSubstring(`"doi":{"started":%t}`, row.sends))
					if row.sends {
						mails++
					}
					g.Expect(f.mails(t, email)).To(Equal(mails))
					g.Expect(f.events(t, email)).To(Equal(events), "asking is no event")
				})
			}
		}
	}
}

// TestSpecResendInterval asks again within the list's interval, and behind it.
func TestSpecResendInterval(t *testing.T) {
	var clock atomic.Pointer[time.Time]
	clock.Store(&now)
	f := startEverywhere(t, func(options *ingress.Options) { options.Now = func() time.Time { return *clock.Load() } })
	for name, interval := range map[string]time.Duration{"by default": 5 * time.Minute, "as the list says": time.Hour} {
		list := f.another(t, func(list *v1alpha1.ContactList) {
			list.Spec.OptIn.ResendPolicy = v1alpha1.ResendAlways
			list.Spec.OptIn.ResendInterval = nil
			if interval != 5*time.Minute {
				list.Spec.OptIn.ResendInterval = &metav1.Duration{Duration: interval}
			}
		})
		for form, send := range forms {
			t.Run(name+", "+form, func(t *testing.T) {
				g := NewWithT(t)
				email := strings.ToLower(form) + "@" + list.namespace + ".example.com"
				for _, call := range []struct {
					after   time.Duration
					started bool
					mails   int
				}{{0, true, 1}, {0, false, 1}, {interval - time.Second, false, 1}, {interval, true, 2}, {2*interval - time.Second, false, 2}} {
					clock.Store(new(now.Add(call.after)))
					got := f.send(t, send(list.with(email, "doi", "true")))
					g.Expect(got.status).To(Equal(http.StatusOK), got.body)
					g.Expect(got.body).To(ContainSubstring(`"doi":{"started":%t}`, call.started), call.after.String())
					g.Expect(f.mails(t, email)).To(Equal(call.mails), call.after.String())
				}
			})
		}
	}
}

// TestSpecAddresses has the rule about addresses: what is sent, and what is
// stored under which address.
func TestSpecAddresses(t *testing.T) {
	f := start(t)
	const space = "illegal parameter value: email must not contain a space; a '+' in a URL or a form is sent as %2B"
	for name, row := range map[string]struct{ sent, shown, compared, refused string }{
		"trimmed":                       {sent: " trim-WHO@example.com\t\n", shown: "trim-WHO@example.com", compared: "trim-who@example.com"},
		"the domain is lower-cased":     {sent: "lower-WHO@EXAMPLE.Com", shown: "lower-WHO@example.com", compared: "lower-who@example.com"},
		"an internationalised domain":   {sent: "idn-WHO@BÜCHER.example", shown: "idn-WHO@bücher.example", compared: "idn-who@xn--bcher-kva.example"},
		"the same domain in ASCII":      {sent: "ascii-WHO@xn--bcher-kva.example", shown: "ascii-WHO@bücher.example", compared: "ascii-who@xn--bcher-kva.example"},
		"a + is kept":                   {sent: "max+news-WHO@example.com", shown: "max+news-WHO@example.com", compared: "max+news-who@example.com"},
		"the local part's spelling":     {sent: "Max.Mustermann-WHO@example.com", shown: "Max.Mustermann-WHO@example.com", compared: "max.mustermann-who@example.com"},
		"a space inside":                {sent: "max news@example.com", refused: space},
		"a space before the domain":     {sent: "max@ example.com", refused: space},
		"no @, as in the vendor's text": {sent: "max.mustermannQxqueue.com", refused: "illegal parameter value: email must have exactly one @"},
		"two @":                         {sent: "max@example.com@example.com", refused: "illegal parameter value: email must have exactly one @"},
		"nothing":                       {sent: " ", refused: "illegal parameter value: email is required"},
		"no domain":                     {sent: "max@localhost", refused: "illegal parameter value: email must have a domain such as example.com behind the @"},
	} {
		for form, send := range forms {
			t.Run(name+", "+form, func(t *testing.T) {
				g := NewWithT(t)
				got := f.send(t, send(f.with(strings.ReplaceAll(row.sent, "WHO", form))))
				if row.refused != "" {
					body := expectRefusal(t, got, http.StatusBadRequest, row.refused)
					g.Expect(body.Error.Parameter).To(Equal("email"))
					return
				}
				g.Expect(got.status).To(Equal(http.StatusOK), got.body)
				compared := strings.ReplaceAll(row.compared, "who", strings.ToLower(form))
				stored := f.contact(t, compared)
				g.Expect(stored).NotTo(BeNil())
				g.Expect(stored.Email).To(Equal(strings.ReplaceAll(row.shown, "WHO", form)))
				for _, again := range []string{strings.ToUpper(stored.Email), strings.ToLower(stored.Email)} {
					got = f.send(t, send(f.with(again)))
					g.Expect(got.body).To(ContainSubstring(`{"id":"%d","list":"newsletter","created":false}`, stored.ID), "one address is one contact")
				}
				g.Expect(f.contact(t, compared)).To(Equal(stored), "the first spelling stays")
			})
		}
	}
}
