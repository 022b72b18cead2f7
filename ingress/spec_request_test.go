package ingress_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/ingress"
)

// bodyForms are the forms that have a body.
var bodyForms = map[string]func(map[string]string) request{"JSON": forms["JSON"], "form": forms["form"]}

// TestSpecRequestPlaces has how parameters may come.
func TestSpecRequestPlaces(t *testing.T) {
	f := start(t)
	for form, send := range forms {
		t.Run("a call creates, and updates, one contact of the key's list, "+form, func(t *testing.T) {
			g := NewWithT(t)
			email := strings.ToLower(form) + "@example.com"
			g.Expect(f.send(t, send(f.with(email))).body).To(ContainSubstring(`"list":"newsletter","created":true`))
			g.Expect(f.send(t, send(f.with(email, "sync_mode", "1", "standard_ZIP", "1"))).body).To(ContainSubstring(`"created":false`))
			g.Expect(f.contact(t, email).StandardFields).To(Equal(map[string]string{"ZIP": "1"}))
		})
		t.Run("a repeat within 24 hours answers as the first did, "+form, func(t *testing.T) {
			g := NewWithT(t)
			call := send(f.with("repeat-"+form+"@example.com", "doi", "true", "permission", "2"))
			call.header = map[string]string{"Idempotency-Key": form}
			first := f.send(t, call)
			g.Expect(first.body).To(And(ContainSubstring(`"created":true`), ContainSubstring(`"started":true`)))
			g.Expect(f.send(t, call).body).To(Equal(first.body))
			g.Expect(f.events(t, "repeat-"+form+"@example.com")).To(Equal(subscribed))
			g.Expect(f.mails(t, "repeat-"+form+"@example.com")).To(Equal(1))
		})
	}
	for form, send := range bodyForms {
		t.Run("the body's value overrides the URL's, for every parameter, "+form, func(t *testing.T) {
			g := NewWithT(t)
			email := "override-" + strings.ToLower(form) + "@example.com"
			good := f.with(email, "external_id", form, "permission", "2", "sync_mode", "1", "src", "body", "subscription_page", "body",
				"doi", "false", "doiplus", "false", "doimailing", "fair", "standard_ZIP", "1", "custom_special date", "2020-12-12")
			wrong := url.Values{}
			for name := range good {
				wrong.Set(name, "wrong")
			}
			call := send(good)
			call.query = wrong.Encode() + "&standard_CITY=Kassel"
			g.Expect(f.send(t, call).status).To(Equal(http.StatusOK))
			stored := f.contact(t, email)
			g.Expect(stored.StandardFields).To(Equal(map[string]string{"CITY": "Kassel", "ZIP": "1"}), "what the body does not have counts")
			g.Expect(stored.CustomFields).To(Equal(map[string]any{"special date": "2020-12-12"}))
			g.Expect(stored.Source + stored.SubscriptionPage).To(Equal("bodybody"))
		})
		t.Run("a wrong value in the body overrides a good one in the URL, "+form, func(t *testing.T) {
			call := send(map[string]string{"permission": "7"})
			call.query = encode(f.with("wrong@example.com", "permission", "2"))
			expectRefusal(t, f.send(t, call), http.StatusBadRequest, "illegal parameter value: permission must be 1, 2, 3, 4, 5 or 6")
		})
	}
}

// TestSpecRequestIsRefused has what a request must not be.
func TestSpecRequestIsRefused(t *testing.T) {
	f := start(t)
	const (
		method    = "the method must be POST"
		mediaType = "the content type must be application/json or application/x-www-form-urlencoded, in UTF-8 and not compressed"
		large     = "the body must have at most 1 MiB"
		noUTF8    = "malformed request: src must be valid UTF-8"
		browser   = "calls from a browser are not allowed: the api key would be readable there"
	)
	origin := func(value string) func(*request) {
		return func(r *request) { r.header = map[string]string{"Origin": value} }
	}
	for name, row := range map[string]refusedRequest{
		"POST only: GET":     {forms, func(r *request) { r.method = "GET" }, 405, method},
		"POST only: PUT":     {forms, func(r *request) { r.method = "PUT" }, 405, method},
		"POST only: PATCH":   {forms, func(r *request) { r.method = "PATCH" }, 405, method},
		"POST only: DELETE":  {forms, func(r *request) { r.method = "DELETE" }, 405, method},
		"POST only: OPTIONS": {forms, func(r *request) { r.method = "OPTIONS" }, 405, method},

		"other content types: text":        {bodyForms, func(r *request) { r.contentType = "text/plain" }, 415, mediaType},
		"other content types: XML":         {bodyForms, func(r *request) { r.contentType = "application/xml" }, 415, mediaType},
		"other content types: multipart":   {bodyForms, func(r *request) { r.contentType = "multipart/form-data; boundary=x" }, 415, mediaType},
		"other content types: none":        {bodyForms, func(r *request) { r.contentType = "" }, 415, mediaType},
		"body over 1 MiB":                  {bodyForms, func(r *request) { r.body += strings.Repeat(" ", 1<<20) }, 413, large},
		"body over 1 MiB, chunked":         {bodyForms, func(r *request) { r.body += strings.Repeat(" ", 1<<20); r.chunked = true }, 413, large},
		"JSON must be one object: a text":  jsonRow(`"email"`, "malformed request: the body must be one JSON object"),
		"JSON must be one object: a list":  jsonRow(`[]`, "malformed request: the body must be one JSON object"),
		"JSON must be one object: two":     jsonRow(`{}{}`, "malformed request: the body must be one JSON object"),
		"JSON must be one object: nothing": jsonRow(`null`, "malformed request: the body must be one JSON object"),
		"JSON values: null":                jsonRow(`{"src":null}`, "illegal parameter value: src must be a string, a number, true or false"),
		"JSON values: an array":            jsonRow(`{"src":["a"]}`, "illegal parameter value: src must be a string, a number, true or false"),
		"JSON values: an object":           jsonRow(`{"src":{"a":"b"}}`, "illegal parameter value: src must be a string, a number, true or false"),
		"valid UTF-8 in JSON":              jsonRow("{\"src\":\"\xff\"}", "malformed request: the body must be valid UTF-8"),
		"valid UTF-8 in the URL":           {forms, func(r *request) { r.query += "&src=%ff" }, 400, noUTF8},
		"valid UTF-8 in a form":            formRow("src=%ff", noUTF8),

		"no browser: an Origin":           {forms, origin("https://example.com"), 403, browser},
		"no browser: a null Origin":       {forms, origin("null"), 403, browser},
		"no browser: an empty Origin":     {forms, origin(""), 403, browser},
		"no browser: a file as an Origin": {forms, origin("file://"), 403, browser},
	} {
		for form, send := range row.forms {
			t.Run(name+", "+form, func(t *testing.T) {
				sent := send(f.with("max@example.com"))
				if form != "URL" {
					sent.query = encode(f.with("max@example.com"))
				}
				row.spoil(&sent)
				got := f.send(t, sent)
				expectRefusal(t, got, row.status, row.message) // and that no CORS header is sent
				if row.status == http.StatusMethodNotAllowed {
					NewWithT(t).Expect(got.header.Get("Allow")).To(Equal("POST"))
				}
			})
		}
	}
	NewWithT(t).Expect(f.contact(t, "max@example.com")).To(BeNil())
}

// refusedRequest is how a good call is spoilt, in these forms, and what is said.
type refusedRequest struct {
	forms   map[string]func(map[string]string) request
	spoil   func(r *request)
	status  int
	message string
}

func jsonRow(body, message string) refusedRequest { return bodyRow("JSON", body, message) }

func formRow(body, message string) refusedRequest { return bodyRow("form", body, message) }

// bodyRow spoils the body of one form; key and address are in the URL.
func bodyRow(form, body, message string) refusedRequest {
	return refusedRequest{
		map[string]func(map[string]string) request{form: forms[form]}, func(r *request) { r.body = body }, http.StatusBadRequest, message,
	}
}

// TestSpecTooManyValues gives each parameter twice in one place.
func TestSpecTooManyValues(t *testing.T) {
	f := start(t)
	for _, name := range []string{
		"key", "email", "external_id", "standard_FIRSTNAME", "custom_nickname", "permission", "sync_mode", "src", "subscription_page",
		"doi", "doiplus", "doimailing", "utm_source",
	} {
		status, message, parameter := http.StatusBadRequest, "too many values: "+name+" is given more than once", name
		if name == "key" {
			status, message = http.StatusUnauthorized, noKey
		}
		given := f.with("max@example.com")
		value := given[name]
		delete(given, name)
		pair := url.QueryEscape(name) + "=" + url.QueryEscape(value)
		member := fmt.Sprintf("%q:%q", name, value)
		for place, sent := range map[string]request{
			"twice in the URL":  {query: encode(given) + "&" + pair + "&" + pair},
			"twice in the JSON": {query: encode(given), contentType: jsonType, body: "{" + member + "," + member + "}"},
			"twice in the form": {query: encode(given), contentType: formType, body: pair + "&" + pair},
			"twice in the URL, once in the body": {
				query: encode(given) + "&" + pair + "&" + pair, contentType: jsonType, body: "{" + member + "}",
			},
		} {
			t.Run(name+" "+place, func(t *testing.T) {
				body := expectRefusal(t, f.send(t, sent), status, message)
				NewWithT(t).Expect(body.Error.Parameter).To(Equal(parameter))
			})
		}
	}
	NewWithT(t).Expect(f.contact(t, "max@example.com")).To(BeNil())
}

// TestSpecHTTPSOnly has the rows about transport; TestCertificateIsReloaded and
// TestTrustedProxies have the details.
func TestSpecHTTPSOnly(t *testing.T) {
	plain := start(t, func(options *ingress.Options) { options.AllowPlainHTTP = false })
	proxied := start(t, func(options *ingress.Options) {
		options.AllowPlainHTTP = false
		options.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	local := start(t)
	for form, send := range forms {
		t.Run("a plain request is refused, "+form, func(t *testing.T) {
			expectRefusal(t, plain.send(t, send(plain.with("max@example.com"))), http.StatusForbidden, "only HTTPS is allowed")
			NewWithT(t).Expect(plain.contact(t, "max@example.com")).To(BeNil())
		})
		t.Run("a header that no trusted proxy sends proves nothing, "+form, func(t *testing.T) {
			call := send(plain.with("max@example.com"))
			call.header = map[string]string{"X-Forwarded-Proto": "https"}
			expectRefusal(t, plain.send(t, call), http.StatusForbidden, "only HTTPS is allowed")
		})
		t.Run("a trusted proxy says that it was HTTPS, "+form, func(t *testing.T) {
			call := send(proxied.with("max@example.com"))
			expectRefusal(t, proxied.send(t, call), http.StatusForbidden, "only HTTPS is allowed")
			call.header = map[string]string{"X-Forwarded-Proto": "https"}
			NewWithT(t).Expect(proxied.send(t, call).status).To(Equal(http.StatusOK))
		})
		t.Run("a flag opens plain HTTP, "+form, func(t *testing.T) {
			NewWithT(t).Expect(local.send(t, send(local.with("max@example.com"))).status).To(Equal(http.StatusOK))
		})
	}
}
