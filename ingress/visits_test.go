package ingress_test

import (
	"bytes"
	"html"
	"mime/multipart"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/link"
	"postbus.dev/postbus/internal/store"
)

func TestConfirm(t *testing.T) {
	f := start(t)
	for name, row := range map[string]struct {
		change     func(*link.Link)
		permission contact.Permission
	}{
		"an opt-in":            {func(*link.Link) {}, contact.PermissionDoubleOptIn},
		"an opt-in with plus":  {func(l *link.Link) { l.Plus = true }, contact.PermissionDoubleOptInPlus},
		"at the last moment":   {func(l *link.Link) { l.Expires = now.Add(time.Second) }, contact.PermissionDoubleOptIn},
		"a second mail before": {func(l *link.Link) { l.RequestedAt = l.RequestedAt.Add(-time.Hour) }, contact.PermissionDoubleOptIn},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			email := strings.ReplaceAll(name, " ", ".") + "@example.com"
			ada := f.subscriber(t, email)
			path := f.link(link.Confirm, ada, row.change)
			expectPage(t, f.open(t, path, "en"), http.StatusOK, "confirm")
			expectPage(t, f.press(t, path, nil), http.StatusOK, "confirmed")
			g.Expect(f.contact(t, email).Permission).To(Equal(row.permission))
			g.Expect(f.events(t, email)).To(Equal([]string{"Create API", "Subscribe Recipient"}))
			after := f.state(t)
			expectPage(t, f.press(t, path, nil), http.StatusGone, "used")
			expectPage(t, f.open(t, f.link(link.Confirm, ada), "de"), http.StatusGone, "used")
			g.Expect(f.state(t)).To(Equal(after))
		})
	}
	NewWithT(t).Expect(f.metrics(t)).To(ContainSubstring(`postbus_ingress_contacts_total{result="updated"} 4`))
}

// The page that thanks has a link to the profile, which works for an hour and
// behind whatever a proxy puts before the path.
func TestConfirmedPageLeadsToTheProfile(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	path := f.link(link.Confirm, f.subscriber(t, "ada@example.com"))
	found := regexp.MustCompile(`<a href="([^"]+)"`).FindStringSubmatch(f.press(t, path, nil).body)
	g.Expect(found).To(HaveLen(2))
	page, err := url.Parse("https://lists.example.com/below" + path)
	g.Expect(err).NotTo(HaveOccurred())
	profile, err := page.Parse(html.UnescapeString(found[1]))
	g.Expect(err).NotTo(HaveOccurred())
	below, is := strings.CutPrefix(profile.Path, "/below")
	g.Expect(is).To(BeTrue(), profile.Path)
	expectPage(t, f.open(t, below, "en"), http.StatusOK, "profile")
	_, err = f.keys.Open(strings.TrimPrefix(below, link.Profile.Path()), link.Profile, now.Add(time.Hour))
	g.Expect(err).To(MatchError(link.ErrExpired))
}

func TestConfirmGoesToTheListsOwnPage(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	f.configure(t, func(spec *v1alpha1.ContactListSpec) { spec.OptIn.ConfirmedURL = "https://example.com/welcome?a=1&b=2" })
	path := f.link(link.Confirm, f.subscriber(t, "ada@example.com"))
	g.Expect(f.open(t, path, "en").header.Get("Content-Security-Policy")).To(ContainSubstring("form-action 'self' https:;"))
	got := f.press(t, path, nil)
	g.Expect(got.status).To(Equal(http.StatusSeeOther))
	g.Expect(got.header.Get("Location")).To(Equal("https://example.com/welcome?a=1&b=2"))
	g.Expect(got.header.Get("Referrer-Policy")).To(Equal("no-referrer"))
	g.Expect(f.press(t, path, nil).status).To(Equal(http.StatusGone))
}

func TestConfirmFiftyTimesAtOnce(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	path := f.link(link.Confirm, f.subscriber(t, "ada@example.com"))
	statuses := atOnce(func() int { return f.press(t, path, nil).status })
	g.Expect(statuses).To(Equal(map[int]int{http.StatusOK: 1, http.StatusGone: 49}))
	g.Expect(f.events(t, "ada@example.com")).To(Equal([]string{"Create API", "Subscribe Recipient"}))
}

// atOnce has 50 callers do something at once, and counts the statuses.
func atOnce(call func() int) map[int]int {
	var running sync.WaitGroup
	var mutex sync.Mutex
	statuses := map[int]int{}
	begin := make(chan struct{})
	for range 50 {
		running.Go(func() {
			<-begin
			status := call()
			mutex.Lock()
			defer mutex.Unlock()
			statuses[status]++
		})
	}
	close(begin)
	running.Wait()
	return statuses
}

// One address that 50 callers post at once is one contact, and gets one mail.
func TestOptInFiftyTimesAtOnce(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	f.configure(t, func(spec *v1alpha1.ContactListSpec) { spec.OptIn.ResendInterval = nil })
	statuses := atOnce(func() int {
		return f.send(t, forms["form"](f.with("ada@example.com", "doi", "true", "sync_mode", "1"))).status
	})
	g.Expect(statuses).To(Equal(map[int]int{http.StatusOK: 50}))
	g.Expect(f.events(t, "ada@example.com")).To(Equal([]string{"Create API"}))
	g.Expect(f.store.Count(t.Context(), f.list())).To(Equal(contact.Counts{Contacts: 1}))
	mails := store.Query{Filter: store.Filter{Types: []v1alpha1.EventType{contact.EventOptInMail}}}
	g.Expect(f.store.CountEvents(t.Context(), mails)).To(Equal(int64(1)))
}

func TestUnsubscribe(t *testing.T) {
	multipartForm := func(name, value string) request {
		var body bytes.Buffer
		form := multipart.NewWriter(&body)
		NewWithT(t).Expect(form.WriteField(name, value)).To(Succeed())
		NewWithT(t).Expect(form.Close()).To(Succeed())
		return request{body: body.String(), contentType: form.FormDataContentType()}
	}
	form := func(pairs ...string) request {
		values := url.Values{}
		for n := 0; n < len(pairs); n += 2 {
			values.Set(pairs[n], pairs[n+1])
		}
		return request{body: values.Encode(), contentType: "application/x-www-form-urlencoded"}
	}
	code := func(number int) *contact.Reason { return &contact.Reason{Code: &number} }
	f := start(t)
	for name, row := range map[string]struct {
		request request
		reason  *contact.Reason
	}{
		"the button":                 {form("reason", "", "reason_text", ""), code(2)},
		"an empty body":              {request{}, code(2)},
		"one click (RFC 8058)":       {form("List-Unsubscribe", "One-Click"), code(32)},
		"one click, as multipart":    {multipartForm("List-Unsubscribe", "One-Click"), code(32)},
		"a reason":                   {form("reason", "no_demand", "reason_text", ""), &contact.Reason{Name: "no_demand"}},
		"a reason with a text":       {form("reason", "other", "reason_text", " a <b>\r\nc "), &contact.Reason{Name: "other", Text: "a <b>\nc"}},
		"a text alone":               {form("reason_text", "bye"), &contact.Reason{Name: "other", Text: "bye"}},
		"a text that is too long":    {form("reason_text", strings.Repeat("ä", 300)), &contact.Reason{Name: "other", Text: strings.Repeat("ä", 255)}},
		"a reason that is none":      {form("reason", "whatever"), code(2)},
		"a reason of operators":      {form("reason", "1024"), code(2)},
		"a text that can't be kept":  {form("reason", "other", "reason_text", "a\x00b"), code(2)},
		"the URL has no say in that": {request{query: "reason=other"}, code(2)},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			head, err := f.store.Head(t.Context())
			g.Expect(err).NotTo(HaveOccurred())
			row.request.path = f.link(link.Unsubscribe, f.subscriber(t, "ada@example.com"))
			expectPage(t, f.open(t, row.request.path, "de"), http.StatusOK, "unsubscribe")
			expectPage(t, f.send(t, row.request), http.StatusOK, "unsubscribed")
			g.Expect(f.contact(t, "ada@example.com")).To(BeNil())
			left, err := f.store.Read(t.Context(), store.Query{After: head})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(left).To(HaveLen(2))
			g.Expect(left[1].Type).To(Equal(contact.EventUnsubscribe))
			g.Expect(left[1].Source).To(Equal(contact.SourceRecipient))
			g.Expect(left[1].Reason).To(Equal(row.reason))
			after := f.state(t)
			expectPage(t, f.send(t, row.request), http.StatusOK, "left")
			g.Expect(f.state(t)).To(Equal(after))
		})
	}
}

// Whoever has signed up again is another contact, whom the links in older mails don't
// touch: their pages must not say that somebody is on the list no more.
func TestOldLinksOfSomebodyWhoIsBack(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	old := f.subscriber(t, "ada@example.com")
	expectPage(t, f.press(t, f.link(link.Unsubscribe, old), nil), http.StatusOK, "unsubscribed")
	again := f.subscriber(t, "ada@example.com")
	for purpose, row := range map[link.Purpose]struct {
		status int
		kind   string
	}{
		link.Unsubscribe: {http.StatusOK, "left"}, link.Confirm: {http.StatusGone, "gone"}, link.Profile: {http.StatusGone, "gone"},
	} {
		path := f.link(purpose, old)
		for _, got := range []answer{f.open(t, path, "en"), f.open(t, path, "de"), f.press(t, path, nil)} {
			expectPage(t, got, row.status, row.kind)
			g.Expect(got.body).To(Or(ContainSubstring("signed up again since"), ContainSubstring("seitdem wieder angemeldet")))
			g.Expect(got.body).NotTo(Or(ContainSubstring("You are unsubscribed"), ContainSubstring("not on"), ContainSubstring("nicht mehr auf")))
		}
	}
	g.Expect(f.contact(t, "ada@example.com")).To(HaveValue(Equal(again)))
}

// profileFields are on the profile page of the tests: one of each kind.
var profileFields = []string{
	"FIRSTNAME", "ADDRESS", "BIRTHDAY", "GENDER", "LOCALE", "special date", "nickname", "children", "height", "vegan",
}

func (f *fixture) withProfile(t *testing.T) {
	t.Helper()
	f.configure(t, func(spec *v1alpha1.ContactListSpec) { spec.Pages.ProfileFields = profileFields })
}

// saveFields stores fields of a contact, as a call does.
func (f *fixture) saveFields(t *testing.T, found contact.Contact, standard map[string]string, custom map[string]any) {
	t.Helper()
	save := contact.Save{Update: true, StandardFields: standard, CustomFields: custom, Time: now, EventSource: contact.SourceAPI}
	_, err := f.store.Change(t.Context(), store.Change{List: f.list(), ContactID: found.ID, Apply: save.Decide})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
}

func TestProfileIsFilled(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	f.withProfile(t)
	ada := f.subscriber(t, "ada@example.com")
	f.saveFields(t, ada, map[string]string{"BIRTHDAY": "1815-12-10 09:30:00", "GENDER": "f", "ADDRESS": "12 St. James's\nSquare"},
		map[string]any{"special date": "2020-12-12", "nickname": `"><script>`, "children": 3.0, "height": 1.65, "vegan": false})
	body := f.open(t, f.link(link.Profile, ada), "en").body
	for _, part := range []string{
		`name="standard_FIRSTNAME" type="text" value="Ada"`,
		`name="standard_BIRTHDAY" type="date" value="1815-12-10"`,
		`<option value="f" selected>Female</option>`,
		"rows=\"3\" dir=\"auto\" autocomplete=\"street-address\">\n12 St. James&#39;s\nSquare</textarea>",
		`name="custom_special date" type="date" value="2020-12-12"`,
		`name="custom_nickname" type="text" value="&#34;&gt;&lt;script&gt;"`,
		`name="custom_children" type="text" value="3" dir="auto" inputmode="numeric"`,
		`name="custom_height" type="text" value="1.65" dir="auto" inputmode="decimal"`,
		`<option value="false" selected>No</option>`,
		"ada@example.com",
	} {
		g.Expect(body).To(ContainSubstring(part))
	}
	g.Expect(body).NotTo(ContainSubstring("London"), "CITY is no field of the page")

	f.configure(t, func(spec *v1alpha1.ContactListSpec) { spec.Pages.ProfileFields = nil })
	body = f.open(t, f.link(link.Profile, ada), "de").body
	g.Expect(body).To(And(ContainSubstring("Vorname"), ContainSubstring("Nachname"), Not(ContainSubstring("Geburtsdatum"))))
}

func TestProfileIsSaved(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	f.withProfile(t)
	ada := f.subscriber(t, "ada@example.com")
	f.saveFields(t, ada, map[string]string{"BIRTHDAY": "1815-12-10 09:30:00", "ADDRESS": "12 St. James's\nSquare"},
		map[string]any{"nickname": "Enchantress", "vegan": true})
	before := f.contact(t, "ada@example.com")
	path := f.link(link.Profile, ada)

	// As it was shown: a browser sends every field, lines with CR LF.
	shown := url.Values{
		"standard_FIRSTNAME": {"Ada"}, "standard_BIRTHDAY": {"1815-12-10"}, "standard_ADDRESS": {"12 St. James's\r\nSquare"},
		"standard_GENDER": {""}, "standard_LOCALE": {""}, "custom_special date": {""}, "custom_nickname": {"Enchantress"},
		"custom_children": {""}, "custom_height": {""}, "custom_vegan": {"true"},
	}
	expectPage(t, f.press(t, path, shown), http.StatusOK, "saved")
	g.Expect(f.contact(t, "ada@example.com")).To(Equal(before))

	expectPage(t, f.press(t, path, url.Values{
		"standard_FIRSTNAME": {"Augusta"}, "standard_GENDER": {"f"}, "custom_nickname": {""}, "custom_height": {"1.65"},
		"custom_special date": {"2026-11-22"}, "custom_children": {"3"}, "custom_vegan": {"false"},
		"standard_CITY": {"Paris"}, "email": {"eve@example.com"}, "permission": {"5"}, "external_id": {"1"}, "custom_other": {"x"},
	}), http.StatusOK, "saved")
	after := f.contact(t, "ada@example.com")
	g.Expect(after.StandardFields).To(Equal(map[string]string{
		"FIRSTNAME": "Augusta", "GENDER": "f", "CITY": "London",
		"BIRTHDAY": "1815-12-10 09:30:00", "ADDRESS": "12 St. James's\nSquare",
	}))
	g.Expect(after.CustomFields).To(Equal(map[string]any{"special date": "2026-11-22", "children": 3.0, "height": 1.65, "vegan": false}))
	g.Expect([]any{after.Email, after.Permission, after.ExternalID}).To(Equal([]any{before.Email, before.Permission, ""}))
	events := f.events(t, "ada@example.com")
	g.Expect(events[len(events)-1]).To(Equal("ChangeProfile Recipient [FIRSTNAME GENDER children height nickname special date vegan]"))
	g.Expect(f.open(t, path, "en").body).To(ContainSubstring(`value="Augusta"`))
}

// A form that somebody has left open does not take back what was changed since,
// by a call or in another window.
func TestProfileIsSavedOverNewerValues(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	f.withProfile(t)
	ada := f.subscriber(t, "ada@example.com")
	f.saveFields(t, ada, map[string]string{"BIRTHDAY": "1815-12-10 09:30:00", "ADDRESS": "12 St. James's\nSquare"}, map[string]any{"nickname": "Ada"})
	path := f.link(link.Profile, ada)
	opened := formOf(t, f.open(t, path, "en").body)
	f.saveFields(t, ada, map[string]string{"BIRTHDAY": "1815-12-10 10:00:00", "ADDRESS": "Worthy Manor", "FIRSTNAME": "Augusta"},
		map[string]any{"nickname": "Enchantress"})

	opened.Set("standard_ADDRESS", "12 St. James's\r\nSquare") // as browsers send lines
	opened.Set("custom_height", "tall")
	wrong := f.press(t, path, opened)
	expectPage(t, wrong, http.StatusUnprocessableEntity, "profile refused")
	again := formOf(t, wrong.body)
	g.Expect(again.Get("standard_FIRSTNAME")).To(Equal("Ada"), "the form as it was filled")
	again.Set("custom_height", "1.65")
	again.Set("custom_nickname", "Countess")
	expectPage(t, f.press(t, path, again), http.StatusOK, "saved")
	after := f.contact(t, "ada@example.com")
	g.Expect(after.StandardFields).To(Equal(map[string]string{
		"FIRSTNAME": "Augusta", "CITY": "London", "BIRTHDAY": "1815-12-10 10:00:00", "ADDRESS": "Worthy Manor",
	}))
	g.Expect(after.CustomFields).To(Equal(map[string]any{"nickname": "Countess", "height": 1.65}))
	events := f.events(t, "ada@example.com")
	g.Expect(events[len(events)-1]).To(Equal("ChangeProfile Recipient [height nickname]"))

	again.Set("shown", strings.Repeat("x ", 5000))
	again.Set("custom_height", "tall")
	got := f.press(t, path, again)
	expectPage(t, got, http.StatusUnprocessableEntity, "profile refused")
	g.Expect(got.body).NotTo(ContainSubstring("x x x"), "what is much too long was not shown by us")
}

// What a browser can't show of a value it sends back empty, or in other lines.
func TestProfileKeepsWhatItsFormCannotShow(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	f.withProfile(t)
	ada := f.subscriber(t, "ada@example.com")
	f.saveFields(t, ada, map[string]string{"ADDRESS": "12 St. James's\rSquare", "BIRTHDAY": "0000-12-10"},
		map[string]any{"nickname": "Enchantress", "special date": "2020-12-12", "vegan": true})
	f.configure(t, func(spec *v1alpha1.ContactListSpec) {
		for i := range spec.CustomFields {
			field := &spec.CustomFields[i]
			switch field.Name {
			case "nickname":
				field.Type = v1alpha1.CustomFieldDate
			case "special date":
				field.Type = v1alpha1.CustomFieldBoolean
			case "vegan":
				field.Type = v1alpha1.CustomFieldInteger
			}
		}
	})
	before := f.contact(t, "ada@example.com")
	path := f.link(link.Profile, ada)
	body := f.open(t, path, "en").body
	g.Expect(body).To(And(ContainSubstring(`name="custom_nickname" type="date" value=""`), ContainSubstring(`name="standard_BIRTHDAY" type="date" value=""`)))
	g.Expect(strings.Count(body, " selected>")).To(Equal(2), "one answer of each question")
	untouched := formOf(t, body)
	untouched.Set("standard_ADDRESS", "12 St. James's\r\nSquare")
	untouched.Set("standard_GENDER", "")
	untouched.Set("custom_special date", "")
	expectPage(t, f.press(t, path, untouched), http.StatusOK, "saved")
	g.Expect(f.contact(t, "ada@example.com")).To(Equal(before))
}

// A form can make a contact larger than it may be, although each value is good.
func TestProfileThatIsTooLarge(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	f.withProfile(t)
	ada := f.subscriber(t, "ada@example.com")
	f.saveFields(t, ada, nil, map[string]any{"stored": strings.Repeat("x", contact.MaxValueBytes-ada.ValueBytes())})
	before := f.contact(t, "ada@example.com")
	path := f.link(link.Profile, ada)
	form := formOf(t, f.open(t, path, "en").body)
	form.Set("custom_nickname", "Enchantress")
	got := f.press(t, path, form)
	expectPage(t, got, http.StatusUnprocessableEntity, "profile refused")
	g.Expect(got.body).To(ContainSubstring("this is too much text for all fields together"))
	g.Expect(formOf(t, got.body).Get("custom_nickname")).To(Equal("Enchantress"), "the form as it was filled")
	g.Expect(f.contact(t, "ada@example.com")).To(Equal(before))
}

// formOf returns what a browser sends of the inputs and texts of a page's form
// when nobody touches them.
func formOf(t *testing.T, page string) url.Values {
	t.Helper()
	sent := url.Values{}
	for _, element := range regexp.MustCompile(`<(?:input|textarea)[^>]* name="([^"]+)"[^>]*>(?:\n([^<]*)</textarea>)?`).FindAllStringSubmatch(page, -1) {
		value := element[2]
		if shown := regexp.MustCompile(` value="([^"]*)"`).FindStringSubmatch(element[0]); shown != nil {
			value = shown[1]
		}
		sent.Set(html.UnescapeString(element[1]), html.UnescapeString(value))
	}
	NewWithT(t).Expect(sent).NotTo(BeEmpty())
	return sent
}

func TestProfileThatIsWrong(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	f.withProfile(t)
	ada := f.subscriber(t, "ada@example.com")
	before := f.state(t)
	wrong := url.Values{
		"standard_FIRSTNAME": {"Augusta"}, "standard_ADDRESS": {strings.Repeat("x", 256)}, "standard_BIRTHDAY": {"1815-13-10"},
		"standard_GENDER": {"x"}, "standard_LOCALE": {"<script>"}, "custom_special date": {"soon"}, "custom_nickname": {"a\x00"},
		"custom_children": {"many"}, "custom_height": {"1,65"}, "custom_vegan": {"perhaps"},
	}
	for _, language := range []string{"en", "de"} {
		got := f.send(t, request{
			path: f.link(link.Profile, ada), body: wrong.Encode(), contentType: "application/x-www-form-urlencoded",
			header: map[string]string{"Accept-Language": language},
		})
		expectPage(t, got, http.StatusUnprocessableEntity, "profile refused")
		g.Expect(strings.Count(got.body, `aria-invalid="true"`)).To(Equal(9))
		g.Expect(got.body).To(And(ContainSubstring(`value="Augusta"`), ContainSubstring(`value="many"`),
			ContainSubstring(`value="&lt;script&gt;"`), ContainSubstring(`role="alert"`), ContainSubstring(`aria-describedby="error-1"`)))
	}
	g.Expect(f.state(t)).To(Equal(before))
}

func TestListsOwnPages(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	path := f.link(link.Confirm, f.subscriber(t, "ada@example.com"))
	f.configure(t, func(spec *v1alpha1.ContactListSpec) {
		spec.DisplayName = `News <script>alert("x")</script>`
		spec.Language = v1alpha1.LanguageGerman
	})
	got := f.open(t, path, "fr")
	expectPage(t, got, http.StatusOK, "confirm")
	g.Expect(got.header.Get("Content-Language")).To(Equal("de"), "the list's language")
	g.Expect(got.body).To(And(ContainSubstring("News &lt;script&gt;"), Not(ContainSubstring("<script>"))))

	own := store.Files{"page.html": `<html lang="{{.Language}}"><title>{{.Title}}</title><style>{{.Style}}</style><body class="own">{{.Content}}`, "style.css": "h1 { color: red }"}
	g.Expect(f.store.SaveTexts(t.Context(), f.list(), store.ListTexts{Pages: own})).To(Succeed())
	got = f.open(t, path, "en")
	expectPage(t, got, http.StatusOK, "confirm")
	g.Expect(got.body).To(And(ContainSubstring(`<body class="own">`), ContainSubstring("h1 { color: red }")))
	g.Expect(f.open(t, link.Confirm.Path()+"nonsense", "en").body).NotTo(ContainSubstring(`class="own"`))

	broken := store.Files{"page.html": "{{.Content"}
	g.Expect(f.store.SaveTexts(t.Context(), f.list(), store.ListTexts{Pages: broken})).To(Succeed())
	got = f.open(t, path, "en")
	expectPage(t, got, http.StatusOK, "confirm")
	g.Expect(got.body).NotTo(ContainSubstring(`class="own"`))
	g.Expect(f.logs.String()).To(ContainSubstring("page.html, line 1: unclosed action"))
}
