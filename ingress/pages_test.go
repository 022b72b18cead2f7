package ingress_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/ingress"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/link"
	"postbus.dev/postbus/internal/store"
)

// subscriber stores a contact that has been sent an opt-in mail, and returns it.
func (f *fixture) subscriber(t *testing.T, email string) contact.Contact {
	t.Helper()
	address, err := contact.ParseAddress(email)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	save := contact.Save{
		Address: address, Time: now.Add(-time.Hour), EventSource: contact.SourceAPI, OptIn: &contact.OptIn{},
		StandardFields: map[string]string{"FIRSTNAME": "Ada", "CITY": "London"},
	}
	decision, err := f.store.Change(t.Context(), store.Change{List: f.list(), Address: address.Key, Apply: save.Decide})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return decision.Contact
}

// link returns the path of a link to a contact's page.
func (f *fixture) link(purpose link.Purpose, found contact.Contact, change ...func(*link.Link)) string {
	l := link.Link{Purpose: purpose, List: f.list(), Contact: found.ID, Expires: now.Add(time.Hour)}
	if purpose == link.Confirm {
		l.RequestedAt = found.OptIn.RequestedAt
	}
	for _, apply := range change {
		apply(&l)
	}
	return purpose.Path() + f.keys.Token(l)
}

// open fetches a page, as somebody whose browser asks for this language.
func (f *fixture) open(t *testing.T, path, language string) answer {
	t.Helper()
	return f.send(t, request{method: http.MethodGet, path: path, header: map[string]string{"Accept-Language": language}})
}

// press posts a page's form, as a browser does.
func (f *fixture) press(t *testing.T, path string, form url.Values) answer {
	t.Helper()
	return f.send(t, request{
		path: path, body: form.Encode(), contentType: "application/x-www-form-urlencoded",
		header: map[string]string{"Accept-Language": "en", "Origin": "null"},
	})
}

// state is what a request may not have changed.
func (f *fixture) state(t *testing.T) any {
	t.Helper()
	page, _, err := f.store.ListContacts(t.Context(), f.list(), "", 100)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	head, err := f.store.Head(t.Context())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return []any{page, head}
}

// configure changes the list and waits until ingress sees it.
func (f *fixture) configure(t *testing.T, change func(*v1alpha1.ContactListSpec)) {
	t.Helper()
	g := NewWithT(t)
	list := &v1alpha1.ContactList{}
	name := client.ObjectKey{Namespace: f.namespace, Name: "newsletter"}
	g.Expect(plane.Client.Get(t.Context(), name, list)).To(Succeed())
	change(&list.Spec)
	g.Expect(plane.Client.Update(t.Context(), list)).To(Succeed())
	g.Eventually(func() (string, error) {
		seen := &v1alpha1.ContactList{}
		err := f.objects.Get(t.Context(), name, seen)
		return seen.ResourceVersion, err
	}).WithTimeout(10 * time.Second).Should(Equal(list.ResourceVersion))
}

// The titles of pages by kind, in English and German.
var titles = map[string][2]string{
	"confirm":         {"Please confirm your subscription", "Bitte bestätigen Sie Ihre Anmeldung"},
	"confirmed":       {"Thank you, you are subscribed", "Danke, Sie sind angemeldet"},
	"used":            {"You have confirmed already", "Sie haben schon bestätigt"},
	"expired":         {"This link has expired", "Dieser Link ist abgelaufen"},
	"invalid":         {"This link does not work", "Dieser Link funktioniert nicht"},
	"gone":            {"This subscription has ended", "Diese Anmeldung ist beendet"},
	"unsubscribe":     {"Unsubscribe from newsletter?", "Von newsletter abmelden?"},
	"unsubscribed":    {"You are unsubscribed", "Sie sind abgemeldet"},
	"left":            {"This subscription has ended", "Diese Anmeldung ist beendet"},
	"profile":         {"Your profile", "Ihr Profil"},
	"profile refused": {"Please look at this again", "Bitte sehen Sie noch einmal nach"},
	"saved":           {"Your profile is saved", "Ihr Profil ist gespeichert"},
	"later":           {"Please try again in a moment", "Bitte versuchen Sie es gleich noch einmal"},
	"insecure":        {"This page needs a secure connection", "Diese Seite braucht eine sichere Verbindung"},
	"error":           {"That did not work", "Das hat nicht geklappt"},

	"reactivate":          {"Reactivate the callback crm?", "Callback crm wieder aktivieren?"},
	"reactivate asked":    {"The callback is being reactivated", "Der Callback wird wieder aktiviert"},
	"reactivate outdated": {"This link has done its work", "Dieser Link hat ausgedient"},
}

// expectPage expects an answer to be a page of this kind, in English or German.
func expectPage(t *testing.T, got answer, status int, kind string) {
	t.Helper()
	g := NewWithT(t)
	g.Expect(got.status).To(Equal(status), got.body)
	language, title := got.header.Get("Content-Language"), titles[kind][0]
	if language == "de" {
		title = titles[kind][1]
	}
	g.Expect(got.body).To(And(ContainSubstring("<h1>"+title+"</h1>"), ContainSubstring(`<html lang="`+language+`">`)))
	for name, value := range map[string]string{
		"Content-Type":            "text/html; charset=utf-8",
		"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src https: data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
		"Cache-Control":           "no-store",
		"Referrer-Policy":         "no-referrer",
		"X-Robots-Tag":            "noindex",
		"X-Content-Type-Options":  "nosniff",
		"Vary":                    "Accept-Language",
	} {
		g.Expect(got.header.Get(name)).To(Equal(value), name)
	}
}

// Every page that a link can lead to, without its button being pressed and
// with: the same page, and nothing is changed by looking.
func TestPages(t *testing.T) {
	f := start(t)
	ada, grace := f.subscriber(t, "ada@example.com"), f.subscriber(t, "grace@example.com")
	confirmed := f.link(link.Confirm, grace)
	expectPage(t, f.press(t, confirmed, nil), http.StatusOK, "confirmed")
	left := f.subscriber(t, "left@example.com")
	expectPage(t, f.press(t, f.link(link.Unsubscribe, left), nil), http.StatusOK, "unsubscribed")
	forgotten := f.subscriber(t, "forgotten@example.com")
	forget := contact.Removal{Event: contact.EventDelete, EventSource: contact.SourceConsole, Time: now, Forget: true}
	_, err := f.store.Change(t.Context(), store.Change{List: f.list(), Address: "forgotten@example.com", Apply: forget.Decide})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())

	expired := func(l *link.Link) { l.Expires = now }
	otherList := func(l *link.Link) { l.List.Name = "other" }
	type row struct {
		path string
		// get and post are the kinds of page before and after the button; the
		// post of a page with a button is another test's.
		get, post string
		status    int
	}
	rows := map[string]row{
		"confirm":                                       {f.link(link.Confirm, ada), "confirm", "", 200},
		"unsubscribe":                                   {f.link(link.Unsubscribe, ada), "unsubscribe", "", 200},
		"profile":                                       {f.link(link.Profile, ada), "profile", "", 200},
		"confirm, used":                                 {confirmed, "used", "used", 410},
		"unsubscribe, gone":                             {f.link(link.Unsubscribe, left), "left", "left", 200},
		"unsubscribe, forgotten":                        {f.link(link.Unsubscribe, forgotten), "left", "left", 200},
		"no token":                                      {link.Confirm.Path(), "invalid", "invalid", 404},
		"nonsense":                                      {link.Profile.Path() + "hello", "invalid", "invalid", 404},
		"a token of 10,000 characters":                  {link.Profile.Path() + strings.Repeat("A", 10000), "invalid", "invalid", 404},
		"a token with a path behind it":                 {f.link(link.Profile, ada) + "/x", "invalid", "invalid", 404},
		"another list's contact":                        {f.link(link.Profile, ada, otherList), "gone", "gone", 410},
		"another list's contact, to confirm":            {f.link(link.Confirm, ada, otherList), "gone", "gone", 410},
		"another list's contact, to unsubscribe":        {f.link(link.Unsubscribe, ada, otherList), "gone", "gone", 410},
		"another list's contact, expired":               {f.link(link.Unsubscribe, ada, otherList, expired), "expired", "expired", 410},
		"another store's link":                          {link.Profile.Path() + link.NewRing(link.Key{Secret: "another key"}).Token(link.Link{Purpose: link.Profile, List: f.list(), Contact: ada.ID, Expires: now.Add(time.Hour)}), "invalid", "invalid", 404},
		"a used link whose time has come":               {f.link(link.Confirm, grace, expired), "expired", "expired", 410},
		"a link with the number of nobody, to profiles": {f.link(link.Profile, contact.Contact{ID: 1 << 40}), "gone", "gone", 410},
	}
	for _, purpose := range []link.Purpose{link.Confirm, link.Unsubscribe, link.Profile} {
		name := strings.Trim(purpose.Path(), "/")
		rows[name+", expired"] = row{f.link(purpose, ada, expired), "expired", "expired", 410}
		if purpose != link.Unsubscribe {
			rows[name+", gone"] = row{f.link(purpose, left), "gone", "gone", 410}
			rows[name+", forgotten"] = row{f.link(purpose, forgotten), "gone", "gone", 410}
		}
		for _, other := range []link.Purpose{link.Confirm, link.Unsubscribe, link.Profile} {
			if other != purpose {
				token := strings.TrimPrefix(f.link(other, ada), other.Path())
				rows[name+" with a token to "+strings.Trim(other.Path(), "/")] = row{purpose.Path() + token, "invalid", "invalid", 404}
			}
		}
	}
	before := f.state(t)
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			for _, language := range []string{"en-GB,en;q=0.9", "de-AT, en;q=0.5"} {
				got := f.open(t, row.path, language)
				g.Expect(got.header.Get("Content-Language")).To(Equal(language[:2]))
				expectPage(t, got, row.status, row.get)
			}
			head := f.send(t, request{method: http.MethodHead, path: row.path})
			g.Expect(head.status).To(Equal(row.status))
			g.Expect(head.body).To(BeEmpty())
			if row.post != "" {
				expectPage(t, f.press(t, row.path, url.Values{"standard_FIRSTNAME": {"Eve"}}), row.status, row.post)
			}
			g.Expect(f.state(t)).To(Equal(before))
		})
	}
	NewWithT(t).Expect(f.logs.String()).To(And(ContainSubstring("/confirm/{token}"), ContainSubstring("/unsubscribe/{token}"),
		ContainSubstring("/profile/{token}")))
	for _, row := range rows {
		if token := row.path[strings.LastIndex(row.path, "/")+1:]; len(token) > 5 {
			NewWithT(t).Expect(f.logs.String()).NotTo(ContainSubstring(token))
			NewWithT(t).Expect(f.metrics(t)).NotTo(ContainSubstring(token))
		}
	}
}

// Each character of a token that is another makes the link invalid.
func TestTamperedLinks(t *testing.T) {
	f := start(t)
	ada := f.subscriber(t, "ada@example.com")
	path := f.link(link.Confirm, ada)
	before := f.state(t)
	for n := len(link.Confirm.Path()); n < len(path); n++ {
		other := byte('A')
		if path[n] == other {
			other = 'B'
		}
		got := f.press(t, path[:n]+string(other)+path[n+1:], nil)
		expectPage(t, got, http.StatusNotFound, "invalid")
	}
	expectPage(t, f.press(t, path[:len(path)-1], nil), http.StatusNotFound, "invalid")
	NewWithT(t).Expect(f.state(t)).To(Equal(before))
}

func TestPagesThatAreRefused(t *testing.T) {
	f := start(t)
	ada := f.subscriber(t, "ada@example.com")
	before := f.state(t)
	form := "application/x-www-form-urlencoded"
	for name, row := range map[string]struct {
		request request
		status  int
		header  types.GomegaMatcher
	}{
		"another method":    {request{method: http.MethodDelete}, http.StatusMethodNotAllowed, HaveKeyWithValue("Allow", []string{"GET, HEAD, POST"})},
		"JSON":              {request{body: `{}`, contentType: "application/json"}, http.StatusUnsupportedMediaType, nil},
		"a compressed body": {request{body: "a=b", contentType: form, header: map[string]string{"Content-Encoding": "gzip"}}, http.StatusUnsupportedMediaType, nil},
		"a body of 65 KiB":  {request{body: "reason_text=" + strings.Repeat("x", 65<<10), contentType: form}, http.StatusRequestEntityTooLarge, nil},
		"a body of 65 KiB, in chunks": {request{
			body: "reason_text=" + strings.Repeat("x", 65<<10), contentType: form, chunked: true,
		}, http.StatusRequestEntityTooLarge, nil},
		"a value given twice":     {request{body: "reason=other&reason=other", contentType: form}, http.StatusBadRequest, nil},
		"a form in bad UTF-8":     {request{body: "reason=%ff", contentType: form}, http.StatusBadRequest, nil},
		"no boundary":             {request{body: "reason=other", contentType: "multipart/form-data"}, http.StatusBadRequest, nil},
		"a form that breaks off":  {request{body: "--x\r\nContent-Disposition: form-data; name=reason\r\n\r\nother", contentType: "multipart/form-data; boundary=x"}, http.StatusBadRequest, nil},
		"a form with a file":      {request{body: "--x\r\nContent-Disposition: form-data; name=a; filename=b\r\n\r\nother\r\n--x--", contentType: "multipart/form-data; boundary=x"}, http.StatusBadRequest, nil},
		"a part in bad UTF-8":     {request{body: "--x\r\nContent-Disposition: form-data; name=a\r\n\r\n\xff\r\n--x--", contentType: "multipart/form-data; boundary=x"}, http.StatusBadRequest, nil},
		"more than 1000 elements": {request{body: manyPairs(1001), contentType: form}, http.StatusBadRequest, nil},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			for _, purpose := range []link.Purpose{link.Unsubscribe, link.Confirm, link.Profile} {
				row.request.path = f.link(purpose, ada)
				got := f.send(t, row.request)
				expectPage(t, got, row.status, "error")
				if row.header != nil {
					g.Expect(got.header).To(row.header)
				}
			}
			g.Expect(f.state(t)).To(Equal(before))
		})
	}
}

func manyPairs(count int) string {
	pairs := url.Values{}
	for n := range count {
		pairs.Set(strings.Repeat("x", n%30)+string(rune('a'+n%26))+strings.Repeat("y", n/30), "1")
	}
	return pairs.Encode()
}

func TestPagesWithoutHTTPS(t *testing.T) {
	f := start(t, func(options *ingress.Options) { options.AllowPlainHTTP = false })
	ada := f.subscriber(t, "ada@example.com")
	before := f.state(t)
	path := f.link(link.Unsubscribe, ada)
	expectPage(t, f.open(t, path, "de"), http.StatusForbidden, "insecure")
	expectPage(t, f.press(t, path, nil), http.StatusForbidden, "insecure")
	NewWithT(t).Expect(f.state(t)).To(Equal(before))
}

func TestPagesWithoutTheKey(t *testing.T) {
	f := start(t, func(options *ingress.Options) { options.LinkKeys = nil })
	ada := f.subscriber(t, "ada@example.com")
	l := link.Link{Purpose: link.Profile, List: f.list(), Contact: ada.ID, Expires: now.Add(time.Hour)}
	expectPage(t, f.open(t, link.Profile.Path()+link.NewRing(link.Key{}).Token(l), "en"), http.StatusNotFound, "invalid")
}

func TestPagesWhileTheStoreIsDown(t *testing.T) {
	f := start(t)
	ada := f.subscriber(t, "ada@example.com")
	f.closeStore(t)
	for _, purpose := range []link.Purpose{link.Confirm, link.Unsubscribe, link.Profile} {
		for _, got := range []answer{f.open(t, f.link(purpose, ada), "de"), f.press(t, f.link(purpose, ada), nil)} {
			expectPage(t, got, http.StatusServiceUnavailable, "later")
			NewWithT(t).Expect(got.header.Get("Retry-After")).To(Equal("5"))
		}
	}
}

func TestPagesOfAListThatIsGone(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	ada := f.subscriber(t, "ada@example.com")
	list := newsletter(f.namespace)
	g.Expect(plane.Client.Delete(t.Context(), list)).To(Succeed())
	g.Eventually(func() error {
		return f.objects.Get(t.Context(), client.ObjectKeyFromObject(list), &v1alpha1.ContactList{})
	}).WithTimeout(10 * time.Second).ShouldNot(Succeed())
	before := f.state(t)
	for _, purpose := range []link.Purpose{link.Confirm, link.Unsubscribe, link.Profile} {
		expectPage(t, f.open(t, f.link(purpose, ada), "de"), http.StatusGone, "gone")
		expectPage(t, f.press(t, f.link(purpose, ada), nil), http.StatusGone, "gone")
	}
	g.Expect(f.state(t)).To(Equal(before))
}
