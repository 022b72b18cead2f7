package ingress_test

import (
	"net/http"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/ingress"
	"postbus.dev/postbus/internal/apikey"
)

// TestSpecAnswers has the table of answers, in every form. The row of 200 is in
// every other table.
func TestSpecAnswers(t *testing.T) {
	f := start(t)
	issue := func(name string, change func(*v1alpha1.ApiKey)) map[string]string {
		return map[string]string{"key": f.issue(t, name, change), "email": "max@example.com"}
	}
	unknown := f.with("max@example.com")
	unknown["key"] = apikey.Generate()
	for name, row := range map[string]struct {
		given                    map[string]string
		status                   int
		message, code, parameter string
	}{
		"no key":       {map[string]string{"email": "max@example.com"}, 401, noKey, "KeyMissing", "key"},
		"an empty key": {map[string]string{"email": "max@example.com", "key": ""}, 401, noKey, "KeyMissing", "key"},
		"key unknown":  {unknown, 401, unknownKey, "KeyUnknown", "key"},
		"key expired": {
			issue("expired", func(key *v1alpha1.ApiKey) { key.Spec.ExpiresAt = at(0) }), 401, unknownKey, "KeyUnknown", "key",
		},
		"key suspended": {
			issue("suspended", func(key *v1alpha1.ApiKey) { key.Spec.Suspend = new(true) }), 401, unknownKey, "KeyUnknown", "key",
		},
		"key's list is gone": {
			issue("listless", func(key *v1alpha1.ApiKey) { key.Spec.ListRef.Name = "gone" }), 403,
			"the scope ContactsWrite has no list: the contact list of the api key does not exist", "ListMissing", "",
		},
		"key lacks the scope": {
			issue("scopeless", func(key *v1alpha1.ApiKey) { key.Spec.Scopes = []v1alpha1.ApiKeyScope{v1alpha1.ScopeContactsRead} }), 403,
			"the api key does not have the scope ContactsWrite", "ScopeMissing", "",
		},
		"bad address": {
			f.with("max.mustermannQxqueue.com"), 400, "illegal parameter value: email must have exactly one @", "IllegalValue", "email",
		},
		"unknown standard field": {
			f.with("max@example.com", "standard_SHOE", "42"), 400,
			"unknown standard field: SHOE is not a standard field", "UnknownField", "standard_SHOE",
		},
		"unknown custom field": {
			f.with("max@example.com", "custom_shoe", "42"), 400,
			"unknown custom field: shoe is not declared by the list", "UnknownField", "custom_shoe",
		},
		"ill-typed standard field": {
			f.with("max@example.com", "standard_GENDER", "x"), 400,
			"illegal standard field value: GENDER must be m, f or d", "IllegalValue", "standard_GENDER",
		},
		"ill-typed custom field": {
			f.with("max@example.com", "custom_vegan", "maybe"), 400,
			"illegal custom field value: vegan must be true or false", "IllegalValue", "custom_vegan",
		},
		"bad value": {
			f.with("max@example.com", "sync_mode", "0"), 400,
			"illegal parameter value: sync_mode must be 1 (update) or 2 (ignore)", "IllegalValue", "sync_mode",
		},
	} {
		for form, send := range forms {
			t.Run(name+", "+form, func(t *testing.T) {
				g := NewWithT(t)
				got := f.send(t, send(row.given))
				body := expectRefusal(t, got, row.status, row.message)
				g.Expect(body.Error.Code).To(Equal(row.code))
				g.Expect(body.Error.Parameter).To(Equal(row.parameter))
				g.Expect(got.header.Get("Retry-After")).To(BeEmpty(), "the same call would not help")
			})
		}
	}
	NewWithT(t).Expect(f.contact(t, "max@example.com")).To(BeNil())
}

func TestSpecAnswerToAKeyOverItsRate(t *testing.T) {
	for form, send := range forms {
		t.Run(form, func(t *testing.T) {
			g := NewWithT(t)
			f := start(t)
			key := f.issue(t, "slow", func(key *v1alpha1.ApiKey) { key.Spec.RateLimit.RequestsPerSecond = 1 })
			call := send(map[string]string{"key": key, "email": "max@example.com"})
			g.Expect(f.send(t, call).status).To(Equal(http.StatusOK)) // and the clock stands still
			got := f.send(t, call)
			body := expectRefusal(t, got, http.StatusTooManyRequests, "the api key is over its rate of 1 requests a second")
			g.Expect(body.Error.Code).To(Equal("RateLimited"))
			g.Expect(got.header.Get("Retry-After")).To(Equal("1"))
		})
	}
}

func TestSpecAnswerWhenTheStoreIsDown(t *testing.T) {
	f := start(t)
	f.closeStore(t)
	for form, send := range forms {
		t.Run(form, func(t *testing.T) {
			g := NewWithT(t)
			got := f.send(t, send(f.with("max@example.com")))
			body := expectRefusal(t, got, http.StatusServiceUnavailable, "contacts can't be stored at the moment, nothing was stored")
			g.Expect(body.Error.Code).To(Equal("Unavailable"))
			g.Expect(got.header.Get("Retry-After")).To(Equal("5"))
		})
	}
}

func TestSpecAnswerToAnythingElse(t *testing.T) {
	f := start(t, func(options *ingress.Options) { options.Contacts = nil })
	for form, send := range forms {
		t.Run(form, func(t *testing.T) {
			g := NewWithT(t)
			before := strings.Count(f.logs.String(), "request panicked")
			got := f.send(t, send(f.with("max@example.com")))
			g.Expect(got.status).To(Equal(http.StatusInternalServerError))
			g.Expect(got.body).To(MatchJSON(`{"error":{"message":"internal server error","code":"Internal"}}`))
			g.Expect(strings.Count(f.logs.String(), "request panicked")).To(Equal(before + 1))
			g.Expect(f.logs.String()).NotTo(Or(ContainSubstring("max@example.com"), ContainSubstring(f.key)))
		})
	}
}
