package ingress_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
)

// TestSpecParameters has the table of parameters. The rows of key are in
// TestSpecAnswers, those of email in TestSpecAddresses, those of fields in
// TestSpecFields.
func TestSpecParameters(t *testing.T) {
	text := strings.Repeat("ü", 255)
	page := "https://example.com/" + strings.Repeat("a", 2028)
	start(t).holds(t, map[string]specRow{
		"email: required": {
			given: []string{"email", ""}, refused: "illegal parameter value: email is required", parameter: "email",
		},

		"external_id: not set by default": {},
		"external_id: the contact's id elsewhere": {
			given: []string{"external_id", " WHO "}, want: func(c *contact.Contact, who string) { c.ExternalID = who },
		},
		"external_id: at most 255 characters": {
			given: []string{"external_id", text + "x"}, parameter: "external_id",
			refused: "illegal parameter value: external_id must have at most 255 characters",
		},
		"external_id: another one in an update": {
			before: [][]string{{"external_id", "old-WHO"}}, given: []string{"external_id", "WHO", "sync_mode", "1"},
			want:   func(c *contact.Contact, who string) { c.ExternalID = who },
			raises: []string{"ChangeProfile API [external_id]"}, revision: 2,
		},
		"external_id: empty clears it": {
			before: [][]string{{"external_id", "WHO"}}, given: []string{"external_id", "", "sync_mode", "1"},
			raises: []string{"ChangeProfile API [external_id]"}, revision: 2,
		},

		"custom_<Field>: a name with a space": {
			given: []string{"custom_special date", "2020-12-12"}, want: hasCustom("special date", "2020-12-12"),
		},
		"custom_<Field>: exact upper and lower case": {
			given: []string{"custom_Nickname", "x"}, parameter: "custom_Nickname",
			refused: "unknown custom field: Nickname is not declared by the list",
		},

		"permission: 1 by default":           {want: hasPermission(contact.PermissionNone)},
		"permission: 1, none":                {given: []string{"permission", "1"}, want: hasPermission(contact.PermissionNone)},
		"permission: 2, single opt-in":       {given: []string{"permission", "2"}, want: hasPermission(contact.PermissionSingleOptIn), raises: subscribed},
		"permission: 3, confirmed opt-in":    {given: []string{"permission", "3"}, want: hasPermission(contact.PermissionConfirmedOptIn), raises: subscribed},
		"permission: 4, double opt-in":       {given: []string{"permission", "4"}, want: hasPermission(contact.PermissionDoubleOptIn), raises: subscribed},
		"permission: 5, double opt-in plus":  {given: []string{"permission", "5"}, want: hasPermission(contact.PermissionDoubleOptInPlus), raises: subscribed},
		"permission: 6, other":               {given: []string{"permission", "6"}, want: hasPermission(contact.PermissionOther), raises: subscribed},
		"permission: 0 is none of them":      refusedPermission("0"),
		"permission: 7 is none of them":      refusedPermission("7"),
		"permission: 04 is none of them":     refusedPermission("04"),
		"permission: a word is none of them": refusedPermission("none"),
		"permission: nothing is no value":    refusedPermission(""),

		"sync_mode: 2 by default": {
			before: [][]string{{"standard_ZIP", "1"}}, given: []string{"standard_ZIP", "2", "permission", "2", "external_id", "WHO", "src", "fair"},
			want: hasStandard("ZIP", "1"),
		},
		"sync_mode: 1 updates": {
			before: [][]string{{"standard_ZIP", "1"}}, given: []string{"standard_ZIP", "2", "sync_mode", "1"},
			want: hasStandard("ZIP", "2"), raises: []string{"ChangeProfile API [ZIP]"}, revision: 2,
		},
		"sync_mode: 1 creates": {given: []string{"sync_mode", "1"}},
		"sync_mode: 2 ignores": {
			before: [][]string{{"standard_ZIP", "1"}}, given: []string{"standard_ZIP", "2", "sync_mode", "2"}, want: hasStandard("ZIP", "1"),
		},
		"sync_mode: 2 creates": {given: []string{"sync_mode", "2", "standard_ZIP", "1"}, want: hasStandard("ZIP", "1")},
		"sync_mode: 3 is neither": {
			given: []string{"sync_mode", "3"}, parameter: "sync_mode",
			refused: "illegal parameter value: sync_mode must be 1 (update) or 2 (ignore)",
		},

		"src: where the contact comes from": {
			given: []string{"src", "fair"}, want: func(c *contact.Contact, _ string) { c.Source = "fair" },
		},
		"src: at most 255 characters": {
			given: []string{"src", text + "x"}, parameter: "src", refused: "illegal parameter value: src must have at most 255 characters",
		},
		"subscription_page: the page that made the call": {
			given: []string{"subscription_page", page}, want: func(c *contact.Contact, _ string) { c.SubscriptionPage = page },
		},
		"subscription_page: at most 2048 characters": {
			given: []string{"subscription_page", page + "a"}, parameter: "subscription_page",
			refused: "illegal parameter value: subscription_page must have at most 2048 characters",
		},

		"doi: false by default":      {},
		"doi: false starts nothing":  {given: []string{"doi", "false"}},
		"doi: true starts an opt-in": {given: []string{"doi", "true"}, want: hasOptIn(contact.OptIn{}), started: true},
		"doi: yes is neither":        {given: []string{"doi", "yes"}, parameter: "doi", refused: "illegal parameter value: doi must be true or false"},
		"doi: TRUE is neither":       {given: []string{"doi", "TRUE"}, parameter: "doi", refused: "illegal parameter value: doi must be true or false"},
		"doi: src is stored with the opt-in": {
			given: []string{"doi", "true", "src", "fair"}, started: true,
			want: func(c *contact.Contact, _ string) { c.OptIn, c.Source = &contact.OptIn{RequestedAt: now}, "fair" },
		},

		"doiplus: false by default": {given: []string{"doi", "true", "doiplus", "false"}, want: hasOptIn(contact.OptIn{}), started: true},
		"doiplus: true asks for more": {
			given: []string{"doi", "true", "doiplus", "true"}, want: hasOptIn(contact.OptIn{Plus: true}), started: true,
		},
		"doiplus: ignored without doi, whatever it holds":   {given: []string{"doiplus", "perhaps"}},
		"doiplus: ignored with doi=false":                   {given: []string{"doi", "false", "doiplus", "true"}},
		"doiplus: 1 is neither true nor false":              {given: []string{"doi", "true", "doiplus", "1"}, parameter: "doiplus", refused: "illegal parameter value: doiplus must be true or false"},
		"doimailing: the key of a mailing":                  {given: []string{"doi", "true", "doimailing", " fair "}, want: hasOptIn(contact.OptIn{Mailing: "fair"}), started: true},
		"doimailing: the list's default without it":         {given: []string{"doi", "true"}, want: hasOptIn(contact.OptIn{}), started: true},
		"doimailing: ignored without doi, whatever it is":   {given: []string{"doimailing", "gone"}},
		"doimailing: a key that no mailing has is refused":  refusedMailing("gone"),
		"doimailing: a mailing's key has a case":            refusedMailing("FAIR"),
		"doimailing: an empty key names no mailing":         refusedMailing(""),
		"other parameters: ignored":                         {given: []string{"utm_source", "newsletter", "Email", "eve@example.com"}},
		"other parameters: ignored when they look like one": {given: []string{"permissions", "4", "standardFIRSTNAME", "x"}},
	})
}

func refusedPermission(value string) specRow {
	return specRow{
		given: []string{"permission", value}, parameter: "permission",
		refused: "illegal parameter value: permission must be 1, 2, 3, 4, 5 or 6",
	}
}

func refusedMailing(key string) specRow {
	return specRow{
		given: []string{"doi", "true", "doimailing", key}, parameter: "doimailing",
		refused: "illegal parameter value: doimailing must be the key of an opt-in mailing of the list",
	}
}

// TestSpecMailings has the row of doimailing for lists that declare others.
func TestSpecMailings(t *testing.T) {
	f := startEverywhere(t)
	for name, row := range map[string]struct {
		mailings []v1alpha1.OptInMailing
		rows     map[string]specRow
	}{
		"a list without mailings": {nil, map[string]specRow{
			"the built-in one":      {given: []string{"doi", "true"}, want: hasOptIn(contact.OptIn{}), started: true},
			"there is none to name": refusedMailing("fair"),
		}},
		"one mailing that is alone": {[]v1alpha1.OptInMailing{{Key: "fair"}}, map[string]specRow{
			"is the default":        {given: []string{"doi", "true"}, want: hasOptIn(contact.OptIn{}), started: true},
			"may be named":          {given: []string{"doi", "true", "doimailing", "fair"}, want: hasOptIn(contact.OptIn{Mailing: "fair"}), started: true},
			"an empty name is none": refusedMailing(""),
		}},
		"several without a default": {[]v1alpha1.OptInMailing{{Key: "fair"}, {Key: "shop"}}, map[string]specRow{
			"must be named": {
				given: []string{"doi", "true"}, parameter: "doimailing",
				refused: "illegal parameter value: doimailing is required: no mailing of the list is the default",
			},
			"are named":               {given: []string{"doi", "true", "doimailing", "shop"}, want: hasOptIn(contact.OptIn{Mailing: "shop"}), started: true},
			"are not without the doi": {},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f.another(t, func(list *v1alpha1.ContactList) { list.Spec.OptIn.Mailings = row.mailings }).holds(t, row.rows)
		})
	}
}

func TestSpecExternalIDIsUnique(t *testing.T) {
	f := startEverywhere(t)
	other := f.another(t, func(*v1alpha1.ContactList) {})
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			first, second := "a"+strings.ToLower(name)+"@example.com", "b"+strings.ToLower(name)+"@example.com"
			g.Expect(f.send(t, form(f.with(first, "external_id", name))).status).To(Equal(http.StatusOK))
			body := expectRefusal(t, f.send(t, form(f.with(second, "external_id", name))), http.StatusConflict,
				"illegal parameter value: external_id belongs to another contact of the list")
			g.Expect(body.Error.Code).To(Equal("ExternalIDTaken"))
			g.Expect(body.Error.Parameter).To(Equal("external_id"))
			g.Expect(f.contact(t, second)).To(BeNil())
			g.Expect(f.send(t, form(f.with(first, "external_id", name, "sync_mode", "1"))).status).To(Equal(http.StatusOK), "its own")
			g.Expect(f.send(t, form(other.with(second, "external_id", name))).status).To(Equal(http.StatusOK), "unique in its list only")
		})
	}
}

func TestSpecUnknownParametersAreCounted(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	sent := 0
	for _, form := range forms {
		g.Expect(f.send(t, form(f.with("max@example.com", "utm_source", "x", "gclid", "y", "standard_ZIP", "1"))).status).To(Equal(http.StatusOK))
		sent += 2
		g.Expect(f.metrics(t)).To(ContainSubstring("postbus_ingress_unknown_parameters_total " + strconv.Itoa(sent) + "\n"))
	}
}
