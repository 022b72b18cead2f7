package ingress_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/ingress"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// reader makes a key that may read contacts, and nothing else.
func (f *fixture) reader(t *testing.T) string {
	t.Helper()
	return f.issue(t, "reader", func(key *v1alpha1.ApiKey) {
		key.Spec.Scopes = []v1alpha1.ApiKeyScope{v1alpha1.ScopeContactsRead}
	})
}

func (f *fixture) read(t *testing.T, path, key string) answer {
	t.Helper()
	return f.send(t, request{method: http.MethodGet, path: path, header: map[string]string{"Authorization": "Bearer " + key}})
}

func TestReadContact(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	reader := f.reader(t)
	g.Expect(f.send(t, forms["form"](f.with("Ada+news@Example.com", "permission", "2", "standard_FIRSTNAME", "Ada",
		"custom_children", "2", "external_id", "c-1", "src", "fair"))).status).To(Equal(http.StatusOK))
	for _, email := range []string{"Ada+news@Example.com", "ada%2Bnews%40example.com", "ADA+NEWS@EXAMPLE.COM"} {
		got := f.read(t, "/v1/lists/newsletter/contacts/"+email, reader)
		g.Expect(got.status).To(Equal(http.StatusOK), got.body)
		g.Expect(got.header.Get("Cache-Control")).To(Equal("no-store"))
		g.Expect(got.body).To(MatchJSON(`{"id":"1","email":"Ada+news@example.com","externalId":"c-1","permission":2,
			"standardFields":{"FIRSTNAME":"Ada"},"customFields":{"children":2},"customSource":"fair","revision":1,
			"createdAt":"2026-11-22T10:00:00Z","updatedAt":"2026-11-22T10:00:00Z"}`))
	}
	expectRefusal(t, f.read(t, "/v1/lists/newsletter/contacts/grace@example.com", reader), http.StatusNotFound, "no such contact")
	expectRefusal(t, f.read(t, "/v1/lists/newsletter/contacts/grace", reader), http.StatusBadRequest, "illegal parameter value: email must have exactly one @")
	g.Expect(f.logs.String()).To(And(
		Not(ContainSubstring("example.com")), Not(ContainSubstring(reader)),
		ContainSubstring("/v1/lists/{list}/contacts/{email}")), "no address and no key in the log")
}

func TestReadingIsRefused(t *testing.T) {
	f := start(t)
	reader := f.reader(t)
	const path = "/v1/lists/newsletter/contacts/ada@example.com"
	with := func(name, value string) request {
		return request{method: http.MethodGet, path: path, header: map[string]string{name: value}}
	}
	for name, row := range map[string]struct {
		request request
		status  int
		message string
	}{
		"no key":             {request{method: http.MethodGet, path: path}, http.StatusUnauthorized, "the api key must come as Authorization: Bearer"},
		"a key in the URL":   {request{method: http.MethodGet, path: path, query: "key=" + reader}, http.StatusUnauthorized, "the api key must come as Authorization: Bearer"},
		"another scheme":     {with("Authorization", "Basic "+reader), http.StatusUnauthorized, "the api key must come as Authorization: Bearer"},
		"an unknown key":     {with("Authorization", "Bearer nonsense"), http.StatusUnauthorized, "no such api key"},
		"a key that writes":  {with("Authorization", "Bearer "+f.key), http.StatusForbidden, "the api key does not have the scope ContactsRead"},
		"a POST":             {request{path: path}, http.StatusMethodNotAllowed, "the method must be GET"},
		"from a browser":     {with("Origin", "https://example.com"), http.StatusForbidden, "calls from a browser are not allowed: the api key would be readable there"},
		"another list":       {request{method: http.MethodGet, path: "/v1/lists/shop/contacts", header: map[string]string{"Authorization": "bearer " + reader}}, http.StatusForbidden, "the api key belongs to another list"},
		"no such thing":      {request{method: http.MethodGet, path: "/v1/lists/newsletter"}, http.StatusNotFound, "no such resource"},
		"too deep a path":    {request{method: http.MethodGet, path: path + "/fields"}, http.StatusNotFound, "no such resource"},
		"an address of none": {request{method: http.MethodGet, path: "/v1/lists/newsletter/contacts/"}, http.StatusNotFound, "no such resource"},
	} {
		t.Run(name, func(t *testing.T) { expectRefusal(t, f.send(t, row.request), row.status, row.message) })
	}
}

func TestExport(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	reader := f.reader(t)
	got := f.read(t, "/v1/lists/newsletter/contacts", reader)
	g.Expect(got.status).To(Equal(http.StatusOK))
	g.Expect(got.body).To(BeEmpty())

	const count = 1203 // a few pages
	for n := range count {
		save := contact.Save{Time: now, EventSource: contact.SourceConsole}
		save.Address.Display = fmt.Sprintf("ada.%04d@example.com", n)
		_, err := f.store.Change(t.Context(), store.Change{List: f.list(), Address: save.Address.Display, Apply: save.Decide})
		g.Expect(err).NotTo(HaveOccurred())
	}
	got = f.read(t, "/v1/lists/newsletter/contacts", reader)
	g.Expect(got.header.Get("Content-Type")).To(Equal("application/x-ndjson"))
	lines := strings.Split(strings.TrimSpace(got.body), "\n")
	g.Expect(lines).To(HaveLen(count))
	for n, line := range lines {
		var read contact.View
		g.Expect(json.Unmarshal([]byte(line), &read)).To(Succeed())
		g.Expect(read.Email).To(Equal(fmt.Sprintf("ada.%04d@example.com", n)))
	}
}

// faulty is a store that breaks after the first page.
type faulty struct{ store.ContactReader }

func (f faulty) ListContacts(ctx context.Context, list contact.ListKey, after string, limit int) ([]contact.Contact, string, error) {
	if after != "" {
		return nil, "", errors.New("disk gone")
	}
	page, _, err := f.ContactReader.ListContacts(ctx, list, after, limit)
	return page, "there is more", err
}

// Nobody may take a part of a list for the whole.
func TestExportThatBreaksIsSeen(t *testing.T) {
	g := NewWithT(t)
	f := start(t, func(options *ingress.Options) { options.Reader = faulty{options.Reader} })
	g.Expect(f.send(t, forms["form"](f.with("ada@example.com"))).status).To(Equal(http.StatusOK))
	sent, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+f.address+"/v1/lists/newsletter/contacts", http.NoBody)
	g.Expect(err).NotTo(HaveOccurred())
	sent.Header.Set("Authorization", "Bearer "+f.reader(t))
	response, err := http.DefaultTransport.RoundTrip(sent)
	if err == nil { // the answer had begun
		_, err = io.ReadAll(response.Body)
		response.Body.Close()
	}
	g.Expect(err).To(HaveOccurred())
	g.Expect(f.logs.String()).To(ContainSubstring("disk gone"))
}
