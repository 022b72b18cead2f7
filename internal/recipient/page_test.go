package recipient_test

import (
	"errors"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/net/html"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/recipient"
)

var languages = []v1alpha1.Language{v1alpha1.LanguageEnglish, v1alpha1.LanguageGerman}

var kinds = []recipient.PageKind{
	recipient.PageConfirm, recipient.PageConfirmed, recipient.PageUsed, recipient.PageConfirmExpired, recipient.PageExpired,
	recipient.PageInvalid, recipient.PageGone, recipient.PageUnsubscribe, recipient.PageUnsubscribed, recipient.PageLeft, recipient.PageProfile,
	recipient.PageReactivate, recipient.PageReactivateAsked, recipient.PageReactivateOutdated, recipient.PageReactivateExpired,
	recipient.PageSaved, recipient.PageLater, recipient.PageInsecure, recipient.PageError,
}

// declared has a custom field of each type.
var declared = []v1alpha1.CustomField{
	{Name: "nickname", Type: v1alpha1.CustomFieldString},
	{Name: "children", Type: v1alpha1.CustomFieldInteger},
	{Name: "height", Type: v1alpha1.CustomFieldFloat},
	{Name: "vegan", Type: v1alpha1.CustomFieldBoolean},
	{Name: "special date", Type: v1alpha1.CustomFieldDate},
}

// standard are the names of all standard fields.
var standard = []string{
	"ADDRESS", "BIRTHDAY", "CITY", "COUNTRY", "FIRSTNAME", "FULLNAME", "GENDER", "HNR", "LASTNAME", "LOCALE", "NAMEDAY",
	"ORGANIZATION", "REGION", "SALUTATION", "STATE", "TITLE", "ZIP",
}

const hostile = `<script>alert("x")</script>`

// page is a page with everything that a kind can show, each text hostile.
func page(t *testing.T, kind recipient.PageKind, language v1alpha1.Language) recipient.Page {
	t.Helper()
	p := recipient.Page{Kind: kind, Language: language, List: "News" + hostile, ProfileURL: "../profile/token", Email: hostile + "@example.com", Shown: hostile}
	p.Callback = &recipient.Callback{Namespace: hostile, Name: hostile, Answer: hostile}
	names := standard
	for _, field := range declared {
		names = append(names, field.Name)
	}
	for n, name := range names {
		field, ok := recipient.NewField(name, declared, language)
		NewWithT(t).Expect(ok).To(BeTrue(), name)
		field.Value = hostile
		if n%2 == 0 {
			field.Refuse(hostile + "\n" + hostile)
		}
		p.Fields = append(p.Fields, field)
	}
	return p
}

func TestPagesAreAccessible(t *testing.T) {
	for _, language := range languages {
		for _, kind := range kinds {
			t.Run(string(kind)+" in "+string(language), func(t *testing.T) {
				g := NewWithT(t)
				text, err := new(recipient.Pages).Render(page(t, kind, language))
				g.Expect(err).NotTo(HaveOccurred())
				expectAccessible(t, text, string(language))
				g.Expect(text).NotTo(ContainSubstring("<script>"))
				_, err = new(recipient.Pages).Render(recipient.Page{Kind: kind, Language: language})
				g.Expect(err).NotTo(HaveOccurred(), "a page of no list")
			})
		}
	}
}

// expectAccessible expects what can be told of a page without looking at it.
func expectAccessible(t *testing.T, text, language string) {
	t.Helper()
	g := NewWithT(t)
	counts, ids, labelled := map[string]int{}, map[string]bool{}, map[string]bool{}
	var inputs []*html.Node
	root, err := html.Parse(strings.NewReader(text))
	g.Expect(err).NotTo(HaveOccurred())
	for node := range root.Descendants() {
		if node.Type != html.ElementNode {
			continue
		}
		counts[node.Data]++
		if id := attribute(node, "id"); id != "" {
			g.Expect(ids).NotTo(HaveKey(id))
			ids[id] = true
		}
		switch node.Data {
		case "html":
			g.Expect(attribute(node, "lang")).To(Equal(language))
		case "label":
			labelled[attribute(node, "for")] = true
		case "input", "select", "textarea":
			if attribute(node, "type") != "hidden" {
				inputs = append(inputs, node)
			}
		case "link":
			g.Expect(attribute(node, "href")).To(Equal("data:,"), "no icon is asked for, and nothing else")
		case "script", "img", "iframe":
			t.Errorf("a page has a %s", node.Data)
		}
	}
	g.Expect(counts).To(And(HaveKeyWithValue("main", 1), HaveKeyWithValue("h1", 1), HaveKeyWithValue("title", 1)))
	g.Expect(text).To(ContainSubstring(`<meta name="viewport" content="width=device-width, initial-scale=1">`))
	for _, input := range inputs {
		g.Expect(labelled).To(HaveKey(attribute(input, "id")))
		if attribute(input, "aria-invalid") != "" {
			g.Expect(ids).To(HaveKey(attribute(input, "aria-describedby")))
		}
	}
	if strings.Contains(text, `aria-invalid="true"`) {
		g.Expect(text).To(ContainSubstring(`role="alert"`))
	}
}

func attribute(node *html.Node, name string) string {
	for _, attribute := range node.Attr {
		if attribute.Key == name {
			return attribute.Val
		}
	}
	return ""
}

func TestFieldsFitTheirRules(t *testing.T) {
	g := NewWithT(t)
	for _, language := range languages {
		for _, name := range standard {
			field, ok := recipient.NewField(name, declared, language)
			g.Expect(ok).To(BeTrue())
			for _, option := range field.Options {
				_, err := contact.CheckStandardField(name, option.Value)
				g.Expect(err).NotTo(HaveOccurred())
			}
		}
		for _, custom := range declared {
			field, _ := recipient.NewField(custom.Name, declared, language)
			for _, option := range field.Options {
				_, err := contact.CheckCustomField(declared, custom.Name, option.Value)
				g.Expect(err).NotTo(HaveOccurred())
			}
			field.Refuse(strings.Repeat("ä", 1000))
			g.Expect(field.Error).NotTo(BeEmpty())
			g.Expect([]rune(field.Value)).To(HaveLen(300))
		}
		_, ok := recipient.NewField("SHOE", declared, language)
		g.Expect(ok).To(BeFalse())
		for _, reason := range (recipient.Page{Language: language}).Reasons() {
			_, err := contact.ParseReason(reason.Value, "")
			g.Expect(err).NotTo(HaveOccurred(), reason.Value)
		}
	}
}

func TestPagesOfAList(t *testing.T) {
	g := NewWithT(t)
	styled, err := recipient.ParsePages(map[string]string{"style.css": ":root { --accent: #c00; }\na > b {}"})
	g.Expect(err).NotTo(HaveOccurred())
	text, err := styled.Render(page(t, recipient.PageConfirm, "en"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(text).To(And(ContainSubstring("--accent: #c00; }\na > b {}"), ContainSubstring("--accent: #0b57d0")))

	own, err := recipient.ParsePages(map[string]string{
		"page.html": "<html lang={{.Language}}><title>{{.Title}}</title>{{if eq .Language \"de\"}}Hallo{{end}}<body class='{{.List}}'>{{.Content}}",
		"other.txt": "{{",
	})
	g.Expect(err).NotTo(HaveOccurred())
	text, err = own.Render(page(t, recipient.PageConfirm, "de"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(text).To(And(HavePrefix("<html lang=de><title>Bitte bestätigen Sie Ihre Anmeldung</title>Hallo<body class='News&lt;script"),
		ContainSubstring("<h1>Bitte bestätigen Sie Ihre Anmeldung</h1>")))

	_, err = recipient.ParsePages(nil)
	g.Expect(err).NotTo(HaveOccurred())
}

func TestBadPages(t *testing.T) {
	for name, row := range map[string]struct {
		file, text string
		line       int
		problem    string
	}{
		"a template that is not closed":   {"page.html", "<p>\n{{.Content", 2, "unclosed action"},
		"a function that is none":         {"page.html", "\n\n{{foo}}{{.Content}}", 3, `function "foo" not defined`},
		"a field that is none":            {"page.html", "<b>\n{{.Contact}}", 2, "can't evaluate field Contact"},
		"no content":                      {"page.html", "<h1>{{.Title}}</h1>", 0, "{{.Content}}"},
		"content in one language":         {"page.html", `{{if eq .Language "en"}}{{.Content}}{{end}}`, 0, "{{.Content}}"},
		"content twice":                   {"page.html", `{{.Content}}{{.Content}}`, 0, "{{.Content}}"},
		"content in an attribute":         {"page.html", `<p title="{{.Content}}">`, 0, "{{.Content}}"},
		"content in a script":             {"page.html", `<script>let x = {{.Content}}</script>`, 0, "{{.Content}}"},
		"content in a comment":            {"page.html", `<!-- {{.Content}} -->`, 0, "{{.Content}}"},
		"HTML that can't be escaped":      {"page.html", "<p>\n<a href='{{if .List}}x' {{end}}>{{.Content}}", 2, "branches end in different contexts"},
		"a template that calls itself":    {"page.html", "{{define \"x\"}}{{template \"x\"}}{{end}}\n{{template \"x\"}}{{.Content}}", 2, "must not call another"},
		"a loop over a number":            {"page.html", "{{range 1000000000}}x{{end}}{{.Content}}", 1, "a loop must be over a field"},
		"nothing":                         {"page.html", "", 0, "{{.Content}}"},
		"nothing but a definition":        {"page.html", `{{define "x"}}x{{end}}`, 0, "{{.Content}}"},
		"a style that ends too early":     {"style.css", "p {} </STYLE><script>", 0, "</style"},
		"more than a page may be made of": {"page.html", strings.Repeat("x", 300<<10) + "{{.Content}}", 0, "more than 256 KiB"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := recipient.ParsePages(map[string]string{row.file: row.text})
			var problem *recipient.TemplateError
			g.Expect(errors.As(err, &problem)).To(BeTrue(), "%v", err)
			g.Expect(problem.File).To(Equal(row.file))
			g.Expect(problem.Line).To(Equal(row.line), problem.Error())
			g.Expect(problem.Problem).To(ContainSubstring(row.problem))
		})
	}
}
