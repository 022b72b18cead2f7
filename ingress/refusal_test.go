package ingress_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/ingress"
)

// refusal is the body of an error.
type refusal struct {
	Error struct{ Message, Code, Parameter string }
}

func expectRefusal(t *testing.T, got answer, status int, message string) refusal {
	t.Helper()
	g := NewWithT(t)
	g.Expect(got.status).To(Equal(status), got.body)
	var body refusal
	g.Expect(json.Unmarshal([]byte(got.body), &body)).To(Succeed())
	g.Expect(body.Error.Message).To(Equal(message))
	g.Expect(body.Error.Code).NotTo(BeEmpty())
	g.Expect(got.header.Get("Content-Type")).To(Equal("application/json"))
	g.Expect(got.header.Get("Cache-Control")).To(Equal("no-store"))
	g.Expect(got.header.Get("X-Content-Type-Options")).To(Equal("nosniff"))
	for name := range got.header {
		g.Expect(name).NotTo(HavePrefix("Access-Control-"))
	}
	return body
}

func TestRefusedRequests(t *testing.T) {
	f := start(t)
	good := encode(f.with("max@example.com"))
	goodJSON := toJSON(f.with("max@example.com"))
	const (
		mediaType = "the content type must be application/json or application/x-www-form-urlencoded, in UTF-8 and not compressed"
		browser   = "calls from a browser are not allowed: the api key would be readable there"
		noObject  = "malformed request: the body must be one JSON object"
		noUTF8    = "malformed request: src must be valid UTF-8"
		noPercent = "malformed request: src is not percent-encoded correctly"
	)
	for name, row := range map[string]struct {
		request request
		status  int
		message string
	}{
		"a preflight":             {request{method: "OPTIONS", header: map[string]string{"Origin": "https://example.com"}}, 403, browser},
		"another path":            {request{path: "/webhooks/contacts", query: good}, 404, "no such resource"},
		"a path with a slash":     {request{path: contactPath + "/", query: good}, 404, "no such resource"},
		"a path to be cleaned":    {request{path: "/" + contactPath, query: good}, 404, "no such resource"},
		"a type that none is":     {request{body: good, contentType: ";;"}, 415, mediaType},
		"another charset":         {request{body: good, contentType: formType + "; charset=iso-8859-1"}, 415, mediaType},
		"a compressed body":       {request{body: good, contentType: formType, header: map[string]string{"Content-Encoding": "gzip"}}, 415, mediaType},
		"text that no JSON is":    {request{query: good, contentType: jsonType, body: good}, 400, noObject},
		"JSON that breaks off":    {request{contentType: jsonType, body: strings.TrimSuffix(goodJSON, "}")}, 400, noObject},
		"JSON with a spare comma": {request{contentType: jsonType, body: strings.TrimSuffix(goodJSON, "}") + ",}"}, 400, noObject},
		"a JSON array":            {request{query: good, contentType: jsonType, body: `[` + goodJSON + `]`}, 400, noObject},
		"only spaces as JSON":     {request{query: good, contentType: jsonType, body: ` `}, 400, noObject},
		"an array": {
			request{contentType: jsonType, body: `{"tags":[["key"],{"key":1}],` + goodJSON[1:]},
			400,
			"illegal parameter value: tags must be a string, a number, true or false",
		},
		"an object": {
			request{query: good, contentType: jsonType, body: `{"standard_ZIP":{"a":1}}`},
			400,
			"illegal parameter value: standard_ZIP must be a string, a number, true or false",
		},
		"a JSON key given twice, once escaped": {
			request{contentType: jsonType, body: `{"src":"a","\u0073rc":"a",` + goodJSON[1:]},
			400,
			"too many values: src is given more than once",
		},
		"a field in two spellings": {
			request{contentType: jsonType, body: `{"custom_special date":"","custom_special+date":"",` + goodJSON[1:]},
			400,
			"too many values: custom_special date is given more than once",
		},
		"a broken escape in the URL":       {request{query: good + "&src=%zz"}, 400, noPercent},
		"a broken escape in a form's name": {request{contentType: formType, body: good + "&%=a"}, 400, "malformed request: the name of a parameter is not percent-encoded correctly"},
		"a name that is no UTF-8":          {request{query: good + "&%ff=a"}, 400, "malformed request: the names of parameters must be valid UTF-8"},
		"a form that is no UTF-8":          {request{contentType: formType, body: good + "&src=\xff"}, 400, noUTF8},
	} {
		t.Run(name, func(t *testing.T) {
			expectRefusal(t, f.send(t, row.request), row.status, row.message)
		})
	}
	NewWithT(t).Expect(f.contact(t, "max@example.com")).To(BeNil())
}

// Of a form in Latin-1 the caller is told which field it was.
func TestTextThatCannotBeReadIsNamed(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	for _, body := range []string{"&standard_LASTNAME=M%fcller", "&standard_LASTNAME=100%"} {
		got := f.send(t, request{contentType: formType, body: encode(f.with("max@example.com")) + body})
		g.Expect(got.status).To(Equal(http.StatusBadRequest))
		g.Expect(got.body).To(ContainSubstring(`"code":"Malformed","parameter":"standard_LASTNAME"`))
	}
	lines, _ := f.importFile(t, request{
		query: "key=" + f.importer(t), contentType: csvType, body: "email,standard_LASTNAME\nmax@example.com,M\xfcller\n",
	})
	g.Expect(outcomes(lines)).To(Equal([]string{"1 Malformed: malformed request: standard_LASTNAME must be valid UTF-8"}))
	g.Expect(lines[0].Error.Parameter).To(Equal("standard_LASTNAME"))
	g.Expect(f.contact(t, "max@example.com")).To(BeNil())
}

// TestOrderOfChecks breaks everything and mends it step by step.
func TestOrderOfChecks(t *testing.T) {
	f := start(t)
	g := NewWithT(t)
	bad := request{method: "PUT", contentType: "text/plain", body: "a=%zz", header: map[string]string{"Origin": "https://example.com"}}

	g.Expect(f.send(t, bad).status).To(Equal(http.StatusForbidden), "transport comes first")
	bad.header = nil
	g.Expect(f.send(t, bad).status).To(Equal(http.StatusMethodNotAllowed), "then the method")
	bad.method = ""
	g.Expect(f.send(t, bad).status).To(Equal(http.StatusUnsupportedMediaType), "then the content type")
	bad.contentType = formType
	bad.body += strings.Repeat("x", 1<<20)
	g.Expect(f.send(t, bad).status).To(Equal(http.StatusRequestEntityTooLarge), "then the size")
	bad.body = "a=%zz"
	g.Expect(f.send(t, bad).status).To(Equal(http.StatusUnauthorized), "then the key")
	bad.body = "key=" + f.key + "&a=%zz&email=nobody&standard_GENDER=x"
	expectRefusal(t, f.send(t, bad), http.StatusBadRequest, "malformed request: a is not percent-encoded correctly")
	bad.body = "key=" + f.key + "&email=nobody&standard_GENDER=x"
	expectRefusal(t, f.send(t, bad), http.StatusBadRequest, "illegal parameter value: email must have exactly one @")
	bad.body = "key=" + f.key + "&email=max@example.com&standard_GENDER=x"
	expectRefusal(t, f.send(t, bad), http.StatusBadRequest, "illegal standard field value: GENDER must be m, f or d")
}

func TestMethodNotAllowedNamesTheAllowed(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	g.Expect(f.send(t, request{method: "DELETE"}).header.Get("Allow")).To(Equal("POST"))
	got := f.send(t, request{path: "/healthz"})
	g.Expect(got.status).To(Equal(http.StatusMethodNotAllowed))
	g.Expect(got.header.Get("Allow")).To(Equal("GET, HEAD"))
}

func TestPlainHTTPIsRefused(t *testing.T) {
	g := NewWithT(t)
	f := start(t, func(options *ingress.Options) { options.AllowPlainHTTP = false })
	expectRefusal(t, f.send(t, request{query: encode(f.with("max@example.com"))}), http.StatusForbidden, "only HTTPS is allowed")
	g.Expect(f.send(t, request{
		query: encode(f.with("max@example.com")), header: map[string]string{"X-Forwarded-Proto": "https"},
	}).status).To(Equal(http.StatusForbidden), "a header that anybody can send proves nothing")
	g.Expect(f.contact(t, "max@example.com")).To(BeNil())
	g.Expect(f.send(t, request{method: "GET", path: "/healthz"}).status).To(Equal(http.StatusOK))
	g.Expect(f.send(t, request{method: "GET", path: "/readyz"}).status).To(Equal(http.StatusOK))
}
