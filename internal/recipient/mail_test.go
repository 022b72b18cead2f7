package recipient

import (
	"errors"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
)

func TestBuiltInMailSaysWhatItMust(t *testing.T) {
	for name, row := range map[string]struct {
		language v1alpha1.Language
		hello    string
		until    string
	}{
		"in English":                      {v1alpha1.LanguageEnglish, "Hello Ada,", "31 January 2026, 18:30 UTC"},
		"in German":                       {v1alpha1.LanguageGerman, "Guten Tag Ada,", "31.01.2026, 18:30 UTC"},
		"in English for another language": {"fr", "Hello Ada,", "31 January 2026, 18:30 UTC"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			data := sampleMail()
			data.ConfirmURL = "https://lists.example.com/confirm/abc-_1"
			text, html, err := BuiltInMail(row.language).Render(data)
			g.Expect(err).NotTo(HaveOccurred())
			for _, body := range []string{text, html} {
				g.Expect(body).To(ContainSubstring(row.hello))
				g.Expect(body).To(ContainSubstring(row.until))
				g.Expect(body).To(ContainSubstring(data.List))
				g.Expect(body).To(ContainSubstring(Unlinked(data.Email)))
				g.Expect(strings.Count(body, data.ConfirmURL)).To(Equal(1))
				g.Expect(strings.Count(body, data.UnsubscribeURL)).To(Equal(1))
			}
			g.Expect(html).To(ContainSubstring(`<html lang="`))
		})
	}
}

func TestMailToSomebodyUnknown(t *testing.T) {
	g := NewWithT(t)
	text, html, err := BuiltInMail(v1alpha1.LanguageEnglish).Render(MailData{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(text).To(HavePrefix("Hello,\n"))
	g.Expect(html).To(ContainSubstring("<p>Hello,</p>"))
}

func TestMailEscapesWhatStrangersWrote(t *testing.T) {
	g := NewWithT(t)
	mail, err := ParseMail(map[string]string{MailText: "{{.ConfirmURL}}", MailHTML: "{{.Fields.FIRSTNAME}} {{.ConfirmURL}}"})
	g.Expect(err).NotTo(HaveOccurred())
	data := sampleMail()
	data.Fields["FIRSTNAME"] = `<script>alert(1)</script>`
	_, html, err := mail.Render(data)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(html).To(HavePrefix("&lt;script&gt;"))
}

// Whoever fills in a form can have the mail sent to somebody else: it greets by names,
// and says nothing else that a stranger wrote.
func TestBuiltInMailGreetsByNamesAlone(t *testing.T) {
	for name, greeted := range map[string]bool{
		"Ada": true, "Anna-Lena O'Neill": true, "Dr. Max J. Müller": true, "Мария": true, "نور": true,
		strings.Repeat("ä", 40): true, strings.Repeat("ä", 41): false,
		"you won: https://evil.example/x": false, "see evil.example": false, "mail eve@example": false,
		"Ada,\n\nyour account is locked": false, "Ada\rMax": false, "evil/path": false, "<b>Ada</b>": false, `\\server`: false,
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			data := sampleMail()
			data.Fields["FIRSTNAME"] = name
			text, html, err := BuiltInMail(v1alpha1.LanguageEnglish).Render(data)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(strings.HasPrefix(text, "Hello,\n")).To(Equal(!greeted), text)
			g.Expect(strings.Contains(html, "<p>Hello,</p>")).To(Equal(!greeted), html)
		})
	}
}

func TestMailOfTemplates(t *testing.T) {
	g := NewWithT(t)
	mail, err := ParseMail(map[string]string{
		MailText: `{{.Fields.FIRSTNAME}}{{.Fields.TITLE}} {{index .Custom "loyalty points"}}{{index .Custom "none"}} ` +
			`{{.Source}} {{.Language}} {{.ExpiresAt.Year}} {{.ConfirmURL}}{{range $name, $value := .Custom}} {{$name}}={{$value}}{{end}}`,
		"readme.md": "{{not a template",
	})
	g.Expect(err).NotTo(HaveOccurred())
	data := sampleMail()
	data.Language, data.ConfirmURL = "de", "https://x/confirm/y"
	text, html, err := mail.Render(data)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(text).To(Equal("Ada 7 shop de 2026 https://x/confirm/y loyalty points=7"))
	g.Expect(html).To(BeEmpty())
}

func TestParseMailRefuses(t *testing.T) {
	const good = "{{.ConfirmURL}}"
	for name, row := range map[string]struct {
		files map[string]string
		want  TemplateError
	}{
		"no text":                   {map[string]string{MailHTML: good}, TemplateError{File: MailText, Problem: "is needed"}},
		"a text without the link":   {map[string]string{MailText: "Hello"}, TemplateError{File: MailText, Problem: "does not show {{.ConfirmURL}}"}},
		"HTML without the link":     {map[string]string{MailText: good, MailHTML: "<p>Hello"}, TemplateError{File: MailHTML, Problem: "does not show {{.ConfirmURL}}"}},
		"the link for some":         {map[string]string{MailText: "{{if .Source}}{{.ConfirmURL}}{{end}}"}, TemplateError{File: MailText, Problem: "does not show {{.ConfirmURL}}"}},
		"the link in one language":  {map[string]string{MailText: `{{if eq .Language "en"}}{{.ConfirmURL}}{{end}}`}, TemplateError{File: MailText, Problem: "does not show {{.ConfirmURL}}"}},
		"a text that does not end":  {map[string]string{MailText: "\n{{if"}, TemplateError{File: MailText, Line: 2}},
		"HTML that does not end":    {map[string]string{MailText: good, MailHTML: good + "\n\n{{if .List}}"}, TemplateError{File: MailHTML, Line: 3}},
		"an unknown name":           {map[string]string{MailText: good + "\n{{.Lists}}"}, TemplateError{File: MailText, Line: 2}},
		"an unknown name in HTML":   {map[string]string{MailText: good, MailHTML: good + "\n{{.Lists}}"}, TemplateError{File: MailHTML, Line: 2}},
		"HTML that can't be safe":   {map[string]string{MailText: good, MailHTML: "\n<a href='{{if .List}}'{{end}}>" + good}, TemplateError{File: MailHTML, Line: 2}},
		"a template that calls":     {map[string]string{MailText: `{{define "x"}}{{end}}` + good + "\n" + `{{template "x"}}`}, TemplateError{File: MailText, Line: 2}},
		"HTML that calls itself":    {map[string]string{MailText: good, MailHTML: `{{template "mail.html"}}`}, TemplateError{File: MailHTML, Line: 1}},
		"a loop in a loop":          {map[string]string{MailText: "{{range .Fields}}{{range .Custom}}{{end}}{{end}}"}, TemplateError{File: MailText, Line: 1}},
		"nothing but a definition":  {map[string]string{MailText: `{{define "x"}}{{end}}`}, TemplateError{File: MailText, Problem: "does not show {{.ConfirmURL}}"}},
		"an empty HTML":             {map[string]string{MailText: good, MailHTML: ""}, TemplateError{File: MailHTML, Problem: "does not show {{.ConfirmURL}}"}},
		"an empty text":             {map[string]string{MailText: ""}, TemplateError{File: MailText, Problem: "does not show {{.ConfirmURL}}"}},
		"more than a mail can have": {map[string]string{MailText: good + strings.Repeat("x", maxText)}, TemplateError{File: MailText}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := ParseMail(row.files)
			var problem *TemplateError
			g.Expect(errors.As(err, &problem)).To(BeTrue(), "error %v", err)
			g.Expect(problem.File).To(Equal(row.want.File))
			g.Expect(problem.Line).To(Equal(row.want.Line))
			g.Expect(problem.Problem).NotTo(BeEmpty())
			if row.want.Problem != "" {
				g.Expect(problem.Problem).To(Equal(row.want.Problem))
			}
		})
	}
}

func TestSubject(t *testing.T) {
	g := NewWithT(t)
	g.Expect(Subject(v1alpha1.LanguageEnglish, "Example News")).To(Equal("Please confirm your subscription: Example News"))
	g.Expect(Subject(v1alpha1.LanguageGerman, "Neues")).To(Equal("Bitte bestätigen Sie Ihre Anmeldung: Neues"))
}
