package recipient_test

import (
	"errors"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/recipient"
)

// Templates are of people who share a cluster: none may take time or memory
// beyond what its length says.
func TestTemplatesThatTakeTooMuchAreRefused(t *testing.T) {
	const loop, value, format = "a loop must be over a field, .Fields or .Custom", "more than 16 KiB are made", "a format must be short"
	for name, row := range map[string]struct{ text, problem string }{
		"a loop over a number":                {"{{range 5}}{{end}}", loop},
		"a loop over a large number":          {"{{range .ExpiresAt.UnixNano}}{{end}}", loop},
		"a loop over a number of with":        {"{{with .ExpiresAt}}{{range .UnixNano}}{{end}}{{end}}", loop},
		"a loop over a number in a variable":  {"{{$n := .ExpiresAt.UnixNano}}{{range $n}}{{end}}", loop},
		"a loop in a loop":                    {"{{range .Fields}}{{range $.Custom}}{{end}}{{end}}", loop},
		"a loop in the else of nothing":       {"{{if .Source}}{{else}}{{range len .Email}}{{end}}{{end}}", loop},
		"a template that calls one":           {`{{define "a"}}{{end}}{{template "a"}}`, "a template must not call another one"},
		"a block":                             {`{{block "a" .}}{{end}}`, "a template must not call another one"},
		"a variable that doubles":             {`{{$x := "ab"}}` + strings.Repeat(`{{$x = print $x $x}}`, 50), value},
		"a variable that doubles by printf":   {`{{$x := "ab"}}` + strings.Repeat(`{{$x = printf "%s%s" $x $x}}`, 50), value},
		"a variable that doubles by println":  {`{{$x := "ab"}}` + strings.Repeat(`{{$x = println $x $x}}`, 50), value},
		"a variable that doubles by urlquery": {`{{$x := "ab"}}` + strings.Repeat(`{{$x = urlquery $x $x}}`, 50), value},
		"a variable that doubles by html":     {`{{$x := "ab"}}` + strings.Repeat(`{{$x = html $x $x}}`, 50), value},
		"backslashes that double":             {`{{$x := "\\"}}` + strings.Repeat(`{{$x = js $x}}`, 50), value},
		"with that doubles":                   {`{{with "ab"}}` + strings.Repeat("{{with print . .}}", 50) + strings.Repeat("{{end}}", 51), value},
		"a large width":                       {`{{printf "%1000000d" 1}}`, format},
		"a width from an argument":            {`{{printf "%*d" 1000000 1}}`, format},
		"an argument that is used again":      {`{{printf "%[1]s%[1]s" .Email}}`, format},
		"more than a mail can be":             {strings.Repeat(`{{printf "%99d" 1}}`, 5000), "more than 256 KiB are made"},
		"a template that is too long":         {"{{/*" + strings.Repeat("x", 256<<10) + "*/}}", "has more than 256 KiB"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			good := "{{.ConfirmURL}}"
			_, err := recipient.ParseMail(map[string]string{recipient.MailText: good + row.text})
			g.Expect(err).To(MatchError(And(HavePrefix(recipient.MailText), ContainSubstring(row.problem))))
			_, err = recipient.ParseMail(map[string]string{recipient.MailText: good, recipient.MailHTML: good + row.text})
			g.Expect(err).To(MatchError(And(HavePrefix(recipient.MailHTML), ContainSubstring(row.problem))))
			if !strings.Contains(row.text, "{{range .") && !strings.Contains(row.text, ".E") && !strings.Contains(row.text, ".S") {
				_, err = recipient.ParsePages(map[string]string{recipient.PageLayout: "{{.Content}}" + row.text})
				g.Expect(err).To(MatchError(And(HavePrefix(recipient.PageLayout), ContainSubstring(row.problem))))
			}
		})
	}
}

func TestTemplatesMayUseFunctionsAndLoops(t *testing.T) {
	g := NewWithT(t)
	const text = `{{range $name, $value := .Fields}}{{$name}}={{$value}} {{end}}{{range .Custom}}{{.}}{{else}}none{{end}} ` +
		`{{printf "%-8s|%05.2f" .List 1.5}} {{print 1 2}} {{println .Language}}` +
		`https://example.com/?email={{urlquery .Email}} {{.ConfirmURL}}`
	mail, err := recipient.ParseMail(map[string]string{
		recipient.MailText: text, recipient.MailHTML: `<p>{{.List | html}} {{print .Email}} <a href="{{.ConfirmURL}}">{{.Source}}</a></p>`,
	})
	g.Expect(err).NotTo(HaveOccurred())
	made, html, err := mail.Render(recipient.MailData{
		List: "News & more", Email: "ada+news@example.com", Fields: map[string]string{"CITY": "Köln", "ZIP": "50667"},
		Source: "a b", Language: "de", ConfirmURL: "https://lists.example.com/confirm/x",
	})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(made).To(Equal("CITY=Köln ZIP=50667 none News & more|01.50 1 2 de\n" +
		"https://example.com/?email=ada%2Bnews%40example.com https://lists.example.com/confirm/x"))
	g.Expect(html).To(Equal(`<p>News &amp; more ada&#43;news@example.com <a href="https://lists.example.com/confirm/x">a b</a></p>`))
}

// FuzzParse parses what people write into ConfigMaps, for mails and for pages.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"{{.ConfirmURL}}", "{{.Content}}", "", "{{", "{{/* */}}", `{{define "mail.txt"}}{{end}}`, `{{define "page.html"}}{{.Content}}{{end}}`,
		`{{range $n, $v := .Fields}}{{break}}{{else}}{{continue}}{{end}}{{.ConfirmURL}}`, `{{with $x := .ExpiresAt}}{{$x.Unix}}{{end}}`,
		`<a href="{{.ConfirmURL}}" onclick="{{.Email}}" style="{{.List}}">`, "<script>`${ {{.Content}} }`</script>", `<!--{{.Content}}-->`,
		`{{printf "%s %99d" .List 1}}{{index .Custom "a b"}}{{slice .Email 1 2}}{{call .Email}}{{.Fields.A.B}}`, "{{if}}{{else if .}}{{end}}\xff\x00",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		g := NewWithT(t)
		for name, parse := range map[string]func() error{
			"mail": func() error {
				_, err := recipient.ParseMail(map[string]string{recipient.MailText: text, recipient.MailHTML: text})
				return err
			},
			"pages": func() error {
				_, err := recipient.ParsePages(map[string]string{recipient.PageLayout: text, recipient.PageStyle: text})
				return err
			},
		} {
			var wrong *recipient.TemplateError
			if err := parse(); err != nil && !errors.As(err, &wrong) {
				g.Expect(err).NotTo(HaveOccurred(), "%s: not a TemplateError", name)
			}
		}
	})
}
