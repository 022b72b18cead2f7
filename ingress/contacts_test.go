package ingress_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

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

// The values of a contact are limited together: by what is stored, and by what a call adds.
func TestValuesOfAContactAreLimited(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	importer := f.importer(t)
	ada := f.subscriber(t, "ada@example.com")
	f.saveFields(t, ada, nil, map[string]any{"stored": strings.Repeat("x", contact.MaxValueBytes-ada.ValueBytes())})
	before, events := f.contact(t, "ada@example.com"), f.events(t, "ada@example.com")
	const refusal = "illegal custom field value: nickname makes the values of the contact's fields larger than 65536 bytes " +
		"(64 KiB of UTF-8), the limit of all together"
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			got := f.send(t, form(f.with("ada@example.com", "sync_mode", "1", "custom_nickname", "Countess")))
			body := expectRefusal(t, got, http.StatusBadRequest, refusal)
			g.Expect(body.Error).To(And(HaveField("Code", "IllegalValue"), HaveField("Parameter", "custom_nickname")))
		})
	}
	lines, last := f.importFile(t, request{
		query: "sync_mode=1&key=" + importer, contentType: ndjsonType, chunked: true,
		body: `{"email":"ada@example.com","custom_nickname":"Countess"}` + "\n" + `{"email":"eva@example.com","custom_nickname":"Countess"}`,
	})
	g.Expect(outcomes(lines)).To(Equal([]string{"1 IllegalValue: " + refusal, "2 created"}))
	g.Expect(last.Failed).To(Equal(int64(1)))
	g.Expect(f.contact(t, "ada@example.com")).To(Equal(before), "nothing is stored")
	g.Expect(f.events(t, "ada@example.com")).To(Equal(events), "nothing is raised")
}
