package ingress_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/ingress"
	"postbus.dev/postbus/internal/contact"
)

// The content types that are read.
const (
	jsonType = "application/json"
	formType = "application/x-www-form-urlencoded"
)

// forms send the same parameters in each way that the vendor names.
var forms = map[string]func(parameters map[string]string) request{
	"URL":  func(p map[string]string) request { return request{query: encode(p)} },
	"JSON": func(p map[string]string) request { return request{contentType: jsonType, body: toJSON(p)} },
	"form": func(p map[string]string) request { return request{contentType: formType, body: encode(p)} },
}

func encode(parameters map[string]string) string {
	values := url.Values{}
	for name, value := range parameters {
		values.Set(name, value)
	}
	return values.Encode()
}

func toJSON(parameters map[string]string) string {
	data, err := json.Marshal(parameters)
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(data)
}

// with returns the key, an address and more parameters.
func (f *fixture) with(email string, more ...string) map[string]string {
	parameters := map[string]string{"key": f.key, "email": email}
	for i := 0; i < len(more); i += 2 {
		parameters[more[i]] = more[i+1]
	}
	return parameters
}

func TestEveryParameterInEveryForm(t *testing.T) {
	f := start(t)
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			email := "Max+" + name + "@Example.com"
			got := f.send(t, form(f.with(email,
				"external_id", "id-"+name, "permission", "6", "sync_mode", "1", "src", "fair",
				"subscription_page", "https://example.com/form?a=b", "doi", "true", "doiplus", "true", "doimailing", " fair ",
				"standard_FIRSTNAME", "Max & Moritz", "standard_BIRTHDAY", "1980-02-29", "standard_GENDER", "d",
				"standard_LOCALE", "de_DE", "custom_special date", "12.12.2020", "custom_nickname", "Mäxchen; 100 %",
				"custom_100%+", "x", "custom_children", "3", "custom_height", "1.85", "custom_vegan", "true",
				"utm_source", "ignored")))
			key := strings.ToLower(email)
			stored := f.contact(t, key)
			g.Expect(got.status).To(Equal(http.StatusOK), got.body)
			g.Expect(got.body).To(MatchJSON(fmt.Sprintf(
				`{"contact":{"id":"%d","list":"newsletter","created":true},"doi":{"started":true}}`, stored.ID)))
			g.Expect(stored).To(Equal(&contact.Contact{
				ID: stored.ID, Email: "Max+" + name + "@example.com", ExternalID: "id-" + name, Permission: contact.PermissionOther,
				StandardFields: map[string]string{
					"FIRSTNAME": "Max & Moritz", "BIRTHDAY": "1980-02-29", "GENDER": "d", "LOCALE": "de_DE",
				},
				CustomFields: map[string]any{
					"special date": "2020-12-12", "nickname": "Mäxchen; 100 %", "100%+": "x",
					"children": 3.0, "height": 1.85, "vegan": true,
				},
				Source: "fair", SubscriptionPage: "https://example.com/form?a=b",
				OptIn:    &contact.OptIn{Mailing: "fair", Plus: true, RequestedAt: now},
				Revision: 1, CreatedAt: now, UpdatedAt: now,
			}))
			g.Expect(f.events(t, stored.Email)).To(Equal([]string{"Create API", "Subscribe API"}))
		})
	}
}

func TestDataSubmission(t *testing.T) {
	f := start(t)
	for name, row := range map[string]struct {
		request func(email string) request
		want    map[string]string
		custom  map[string]any
	}{
		"the body's value overrides the URL's, JSON": {
			request: func(email string) request {
				return request{
					query:       "key=wrong&email=wrong&standard_CITY=Berlin&standard_ZIP=10115",
					contentType: jsonType, body: toJSON(f.with(email, "standard_ZIP", "20095")),
				}
			},
			want: map[string]string{"CITY": "Berlin", "ZIP": "20095"},
		},
		"the body's value overrides the URL's, form": {
			request: func(email string) request {
				return request{
					query:       "key=wrong&email=wrong&standard_CITY=Berlin&standard_ZIP=10115",
					contentType: formType, body: encode(f.with(email, "standard_ZIP", "20095")),
				}
			},
			want: map[string]string{"CITY": "Berlin", "ZIP": "20095"},
		},
		"key in the URL and data in the body": {
			request: func(email string) request {
				return request{query: "key=" + f.key, contentType: jsonType, body: toJSON(map[string]string{"email": email, "standard_ZIP": "1"})}
			},
			want: map[string]string{"ZIP": "1"},
		},
		"JSON numbers and booleans": {
			request: func(email string) request {
				return request{contentType: jsonType, body: fmt.Sprintf(
					`{"key":%q,"email":%q,"permission":1,"sync_mode":1,"doi":false,"custom_children":-3,"custom_height":1.5e2,"custom_vegan":true,"standard_ZIP":10115}`,
					f.key, email)}
			},
			want:   map[string]string{"ZIP": "10115"},
			custom: map[string]any{"children": -3.0, "height": 150.0, "vegan": true},
		},
		"JSON with a percent-encoded name, as the vendor asks": {
			request: func(email string) request {
				return request{contentType: jsonType, body: toJSON(f.with(email, "custom_special+date", "2020-12-12"))}
			},
			custom: map[string]any{"special date": "2020-12-12"},
		},
		"JSON with %20 in a name": {
			request: func(email string) request {
				return request{contentType: jsonType, body: toJSON(f.with(email, "custom_special%20date", "2020-12-12"))}
			},
			custom: map[string]any{"special date": "2020-12-12"},
		},
		"JSON with a declared name that looks percent-encoded": {
			request: func(email string) request {
				return request{contentType: jsonType, body: toJSON(f.with(email, "custom_100%+", "x"))}
			},
			custom: map[string]any{"100%+": "x"},
		},
		"a percent-encoded name in JSON overrides the URL's": {
			request: func(email string) request {
				return request{
					query: "custom_special+date=2019-01-01", contentType: jsonType,
					body: toJSON(f.with(email, "custom_special%20date", "2020-12-12")),
				}
			},
			custom: map[string]any{"special date": "2020-12-12"},
		},
		"a content type with charset, in capitals": {
			request: func(email string) request {
				return request{contentType: "Application/JSON; Charset=UTF-8", body: toJSON(f.with(email))}
			},
		},
		"a chunked body": {
			request: func(email string) request {
				return request{contentType: jsonType, body: toJSON(f.with(email)), chunked: true}
			},
		},
		"no body but a content type": {
			request: func(email string) request { return request{contentType: jsonType, query: encode(f.with(email))} },
		},
		"no body, chunked, of a type that is not read": {
			request: func(email string) request {
				return request{contentType: "text/plain", query: encode(f.with(email)), chunked: true}
			},
		},
		"empty pairs": {
			request: func(email string) request { return request{query: "&&" + encode(f.with(email)) + "&"} },
		},
		"a body of exactly 1 MiB": {
			request: func(email string) request {
				body := encode(f.with(email)) + "&padding="
				return request{contentType: formType, body: body + strings.Repeat("x", 1<<20-len(body))}
			},
		},
		"spaces around control parameters": {
			request: func(email string) request {
				return request{query: "key=+" + f.key + "+&email=+" + url.QueryEscape(email) + "+&sync_mode=+1&permission=1+&doi=+false+"}
			},
		},
		"doiplus and doimailing without doi are ignored, whatever they hold": {
			request: func(email string) request {
				return request{query: encode(f.with(email, "doi", "false", "doiplus", "perhaps", "doimailing", "gone"))}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			email := strings.NewReplacer(" ", "-", ",", "", "'", "", "%", "").Replace(name)
			email = strings.ToLower(email[:min(len(email), 60)]) + "@example.com"
			got := f.send(t, row.request(email))
			g.Expect(got.status).To(Equal(http.StatusOK), got.body)
			stored := f.contact(t, email)
			g.Expect(stored).NotTo(BeNil())
			g.Expect(stored.StandardFields).To(Equal(row.want))
			g.Expect(stored.CustomFields).To(Equal(row.custom))
			g.Expect(stored.OptIn).To(BeNil())
			g.Expect(got.body).To(ContainSubstring(`"doi":{"started":false}`))
		})
	}
}

func TestRepeatedCalls(t *testing.T) {
	f := start(t)
	for name, row := range map[string]struct {
		first, second []string
		created       bool
		started       bool
		permission    contact.Permission
		events        []string
	}{
		"the same again": {
			first: []string{"standard_ZIP", "1"}, second: []string{"standard_ZIP", "1", "sync_mode", "1"},
			permission: 1, events: []string{"Create API"},
		},
		"sync_mode 2 is the default and ignores": {
			first: []string{"standard_ZIP", "1"}, second: []string{"standard_ZIP", "2", "permission", "4"},
			permission: 1, events: []string{"Create API"},
		},
		"sync_mode 1 updates": {
			first: nil, second: []string{"sync_mode", "1", "standard_ZIP", "2", "custom_vegan", "false", "external_id", "42"},
			permission: 1, events: []string{"Create API", "ChangeProfile API [ZIP external_id vegan]"},
		},
		"sync_mode 1 without permission keeps it": {
			first: []string{"permission", "2"}, second: []string{"sync_mode", "1"},
			permission: 2, events: []string{"Create API", "Subscribe API"},
		},
		"none becomes confirmed": {
			first: nil, second: []string{"sync_mode", "1", "permission", "3"},
			permission: 3, events: []string{"Create API", "Subscribe API"},
		},
		"double opt-in stays": {
			first: []string{"permission", "4"}, second: []string{"sync_mode", "1", "permission", "1"},
			permission: 4, events: []string{"Create API", "Subscribe API"},
		},
		"doi again, unconfirmed": {
			first: []string{"doi", "true"}, second: []string{"doi", "true"},
			permission: 1, started: true, events: []string{"Create API"},
		},
		"doi again, confirmed": {
			first: []string{"permission", "5", "doi", "true"}, second: []string{"doi", "true"},
			permission: 5, started: false, events: []string{"Create API", "Subscribe API"},
		},
	} {
		for form, send := range forms {
			t.Run(name+", "+form, func(t *testing.T) {
				g := NewWithT(t)
				email := strings.NewReplacer(" ", "-", ",", "").Replace(strings.ToLower(name+"-"+form)) + "@example.com"
				for i, parameters := range [][]string{row.first, row.second} {
					given := f.with(email, parameters...)
					if id, set := given["external_id"]; set {
						given["external_id"] = id + form
					}
					got := f.send(t, send(given))
					g.Expect(got.status).To(Equal(http.StatusOK), got.body)
					if i == 1 {
						stored := f.contact(t, email)
						g.Expect(got.body).To(MatchJSON(fmt.Sprintf(
							`{"contact":{"id":"%d","list":"newsletter","created":false},"doi":{"started":%t}}`, stored.ID, row.started)))
						g.Expect(stored.Permission).To(Equal(row.permission))
					}
				}
				g.Expect(f.events(t, email)).To(Equal(row.events))
			})
		}
	}
}

func TestResendPolicyAndSourceComeFromTheObjects(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	list := newsletter(f.namespace)
	list.Name = "always"
	list.Spec.OptIn.ResendPolicy = v1alpha1.ResendAlways
	g.Expect(plane.Client.Create(t.Context(), list)).To(Succeed())
	key := f.issue(t, "console", func(object *v1alpha1.ApiKey) {
		object.Spec.ListRef.Name = "always"
		object.Spec.Source = contact.SourceConsole
	})
	g.Eventually(func() int {
		return f.send(t, request{query: "key=" + key + "&email=max@example.com&permission=4"}).status
	}).Should(Equal(http.StatusOK))
	got := f.send(t, request{query: "key=" + key + "&email=max@example.com&doi=true"})
	g.Expect(got.body).To(ContainSubstring(`"list":"always","created":false},"doi":{"started":true}`))
	g.Expect(f.events(t, "max@example.com")).To(Equal([]string{"Create Console", "Subscribe Console"}))
}

func TestExternalIDIsUniqueInItsList(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	g.Expect(f.send(t, request{query: encode(f.with("a@example.com", "external_id", "42"))}).status).To(Equal(http.StatusOK))
	got := f.send(t, request{query: encode(f.with("b@example.com", "external_id", "42"))})
	g.Expect(got.status).To(Equal(http.StatusConflict))
	g.Expect(got.body).To(MatchJSON(`{"error":{"code":"ExternalIDTaken","parameter":"external_id",
		"message":"illegal parameter value: external_id belongs to another contact of the list"}}`))
	g.Expect(f.contact(t, "b@example.com")).To(BeNil())
}

func TestStoreThatIsDown(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	f.closeStore(t)
	got := f.send(t, request{query: encode(f.with("a@example.com"))})
	g.Expect(got.status).To(Equal(http.StatusServiceUnavailable))
	g.Expect(got.header.Get("Retry-After")).To(Equal("5"))
	g.Expect(got.body).To(ContainSubstring(`"code":"Unavailable"`))
}

func TestUnexpectedErrorShowsNothing(t *testing.T) {
	g := NewWithT(t)
	f := start(t, func(options *ingress.Options) { options.Contacts = nil })
	got := f.send(t, request{query: encode(f.with("a@example.com"))})
	g.Expect(got.status).To(Equal(http.StatusInternalServerError))
	g.Expect(got.body).To(MatchJSON(`{"error":{"message":"internal server error","code":"Internal"}}`))
	g.Expect(strings.Count(f.logs.String(), "request panicked")).To(Equal(1))
	g.Expect(f.logs.String()).NotTo(ContainSubstring("a@example.com"))
}
