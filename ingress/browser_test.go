package ingress_test

import (
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/link"
	"postbus.dev/postbus/internal/testkit"
)

// behindPrefix puts a proxy before ingress that serves it below a path, and
// returns what pages' paths are to be put behind.
func (f *fixture) behindPrefix(t *testing.T) string {
	t.Helper()
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: f.address})
	server := httptest.NewServer(http.StripPrefix("/below", proxy))
	t.Cleanup(server.Close)
	return server.URL + "/below"
}

func expectHeading(t *testing.T, b *testkit.Browser, heading string) {
	t.Helper()
	NewWithT(t).Eventually(b.Heading).WithTimeout(20 * time.Second).Should(Equal(heading))
}

// expectFits expects the page not to scroll sideways, and its buttons to be
// large enough for a thumb.
func expectFits(t *testing.T, b *testkit.Browser) {
	t.Helper()
	g := NewWithT(t)
	g.Expect(b.Evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")).To(Equal("true"))
	g.Expect(b.Evaluate("[...document.querySelectorAll('button, input:not([type=hidden]), select')].every(e => e.getBoundingClientRect().height >= 44)")).To(Equal("true"))
}

// What recipients do, in a browser, with the keyboard, behind a proxy that
// serves ingress below a path.
func TestPagesInABrowser(t *testing.T) {
	g := NewWithT(t)
	browser := testkit.NewBrowser(t)
	f := start(t)
	f.configure(t, func(spec *v1alpha1.ContactListSpec) {
		spec.Pages.ProfileFields = profileFields
		spec.DisplayName = "Nachrichten aus der Donaudampfschifffahrtsgesellschaftskapitänswohnung"
	})
	ada := f.subscriber(t, "ada@example.com")
	base := f.behindPrefix(t)
	browser.Resize(t, 360, 740)
	browser.Speak(t, "de")

	browser.Open(t, base+f.link(link.Confirm, ada))
	expectHeading(t, browser, "Bitte bestätigen Sie Ihre Anmeldung")
	expectFits(t, browser)
	g.Expect(f.contact(t, "ada@example.com").Permission).To(Equal(contact.PermissionNone), "looking changes nothing")
	browser.Press(t, "Ja, anmelden")
	expectHeading(t, browser, "Danke, Sie sind angemeldet")
	expectFits(t, browser)
	g.Expect(f.contact(t, "ada@example.com").Permission).To(Equal(contact.PermissionDoubleOptIn))

	browser.Press(t, "Erzählen Sie etwas über sich")
	expectHeading(t, browser, "Ihr Profil")
	expectFits(t, browser)
	browser.Fill(t, "[name=standard_FIRSTNAME]", "Augusta")
	browser.Fill(t, "[name=standard_LOCALE]", "Deutsch")
	browser.Press(t, "Speichern")
	expectHeading(t, browser, "Bitte sehen Sie noch einmal nach")
	expectFits(t, browser)
	g.Expect(browser.Evaluate("document.querySelector('[name=standard_FIRSTNAME]').value")).To(Equal("Augusta"))
	browser.Press(t, "Sprache (zum Beispiel de oder de_AT)")
	browser.Fill(t, "[name=standard_LOCALE]", "de_AT")
	browser.Fill(t, "[name='custom_special date']", "2026-11-22")
	browser.Fill(t, "[name=custom_vegan]", "true")
	browser.Press(t, "Speichern")
	expectHeading(t, browser, "Ihr Profil ist gespeichert")
	stored := f.contact(t, "ada@example.com")
	g.Expect(stored.StandardFields).To(Equal(map[string]string{"FIRSTNAME": "Augusta", "CITY": "London", "LOCALE": "de_AT"}))
	g.Expect(stored.CustomFields).To(Equal(map[string]any{"special date": "2026-11-22", "vegan": true}))
	browser.Press(t, "Zurück zu Ihrem Profil")
	expectHeading(t, browser, "Ihr Profil")

	browser.Open(t, base+f.link(link.Unsubscribe, ada))
	expectHeading(t, browser, "Von Nachrichten aus der Donaudampfschifffahrtsgesellschaftskapitänswohnung abmelden?")
	expectFits(t, browser)
	browser.Fill(t, "[name=reason]", "no_demand")
	browser.Press(t, "Abmelden")
	expectHeading(t, browser, "Sie sind abgemeldet")
	expectFits(t, browser)
	g.Expect(f.contact(t, "ada@example.com")).To(BeNil())

	sent := 0
	for _, requested := range browser.Requested() {
		method, asked, _ := strings.Cut(requested, " ")
		g.Expect(asked).To(HavePrefix(base+"/"), "nothing from elsewhere")
		if method == http.MethodPost {
			sent++
		}
	}
	g.Expect(sent).To(Equal(4), "a confirmation, a profile twice and an unsubscription")
}

// Chromium holds redirects of a form against the page's form-action, those of
// the page that they lead to, too.
func TestBrowserFollowsToTheListsOwnPage(t *testing.T) {
	browser := testkit.NewBrowser(t)
	f := start(t)
	welcome := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<h1>Welcome</h1>")
	}))
	t.Cleanup(welcome.Close)
	moved := httptest.NewServer(http.RedirectHandler(welcome.URL+"/welcome", http.StatusMovedPermanently))
	t.Cleanup(moved.Close)
	f.configure(t, func(spec *v1alpha1.ContactListSpec) { spec.OptIn.ConfirmedURL = moved.URL })
	browser.Speak(t, "en")
	browser.Open(t, "http://"+f.address+f.link(link.Confirm, f.subscriber(t, "ada@example.com")))
	browser.Press(t, "Yes, subscribe me")
	expectHeading(t, browser, "Welcome")
}

// photographer writes pictures of pages into a folder.
type photographer struct {
	*testkit.Browser
	folder string
}

// shotFolder returns where pictures are written.
func shotFolder(t *testing.T) string { return cmp.Or(os.Getenv("POSTBUS_SHOTS"), t.TempDir()) }

// series photographs what a visit ends with, in each language and width, in
// light colours and in dark ones.
func (p photographer) series(t *testing.T, name string, visit func(language string)) {
	for _, language := range []string{"en", "de"} {
		for _, width := range []int64{1280, 360} {
			for _, scheme := range []string{"light", "dark"} {
				p.Speak(t, language)
				p.Resize(t, width, 740)
				p.Darken(t, scheme == "dark")
				visit(language)
				expectFits(t, p.Browser)
				p.Photograph(t, filepath.Join(p.folder, fmt.Sprintf("%s-%s-%d-%s.png", name, language, width, scheme)))
			}
		}
	}
}

// Every page fits into every width. People look at the pictures, in the folder
// that POSTBUS_SHOTS names.
func TestPhotographPages(t *testing.T) {
	p := photographer{folder: shotFolder(t), Browser: testkit.NewBrowser(t)}
	f := start(t)
	f.withProfile(t)
	f.configure(t, func(spec *v1alpha1.ContactListSpec) { spec.DisplayName = "Example News" })
	ada := f.subscriber(t, "ada@example.com")
	for name, purpose := range map[string]link.Purpose{"confirm": link.Confirm, "unsubscribe": link.Unsubscribe, "profile": link.Profile} {
		p.series(t, name, func(string) { p.Open(t, "http://"+f.address+f.link(purpose, ada)) })
	}
	p.series(t, "profile-wrong", func(language string) {
		p.Open(t, "http://"+f.address+f.link(link.Profile, ada))
		p.Fill(t, "[name=standard_LOCALE]", "Esperanto")
		p.Fill(t, "[name=custom_children]", "many")
		p.Press(t, map[string]string{"en": "Save", "de": "Speichern"}[language])
		expectHeading(t, p.Browser, map[string]string{"en": titles["profile refused"][0], "de": titles["profile refused"][1]}[language])
	})
	visitors := 0
	var confirmed string
	p.series(t, "confirmed", func(language string) {
		visitors++
		confirmed = f.link(link.Confirm, f.subscriber(t, fmt.Sprintf("visitor.%d@example.com", visitors)))
		p.Open(t, "http://"+f.address+confirmed)
		p.Press(t, map[string]string{"en": "Yes, subscribe me", "de": "Ja, anmelden"}[language])
		expectHeading(t, p.Browser, map[string]string{"en": titles["confirmed"][0], "de": titles["confirmed"][1]}[language])
	})
	p.series(t, "used", func(string) { p.Open(t, "http://"+f.address+confirmed) })
}
