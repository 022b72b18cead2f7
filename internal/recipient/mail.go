package recipient

import (
	"embed"
	"fmt"
	htmltemplate "html/template"
	"regexp"
	"strings"
	texttemplate "text/template"
	"time"
	"unicode/utf8"

	"postbus.dev/postbus/api/v1alpha1"
)

// The data keys of a ConfigMap with a mail's templates.
const (
	// MailText is the text/template of the mail; it is required.
	MailText = "mail.txt"
	// MailHTML is the html/template of the mail, beside the text.
	MailHTML = "mail.html"
)

// MailData is what the templates of an opt-in mail can say. Its names are what
// people write into their templates, so they never change.
type MailData struct {
	// List is how people call the list.
	List string
	// Email is the address that the mail goes to, as it was given.
	Email string
	// Name is the contact's FIRSTNAME where that can be a name, and empty where it can't:
	// see isName. Render sets it.
	Name string
	// Fields are the contact's standard fields, by name; one that is not set is
	// empty.
	Fields map[string]string
	// Custom are the contact's custom fields as text, by name; one that is not
	// set is empty.
	Custom map[string]string
	// Source is where the contact comes from: the parameter src.
	Source string
	// Language is the recipient's, en or de.
	Language string
	// ConfirmURL is the link that confirms.
	ConfirmURL string
	// UnsubscribeURL is the link that refuses, now and later.
	UnsubscribeURL string
	// ExpiresAt is when ConfirmURL ends, in UTC.
	ExpiresAt time.Time
}

// Mail is what an opt-in mail says. It is safe for concurrent use.
type Mail struct {
	text *texttemplate.Template
	html *htmltemplate.Template // nil for a mail of text alone
	// ours tells that the list has no templates.
	ours bool
}

// missingKey makes a field that is not set empty instead of "<no value>".
const missingKey = "missingkey=zero"

// ParseMail returns the mail of a ConfigMap's data; data keys other than
// MailText and MailHTML mean nothing. It also makes mails of samples, because
// much that is wrong with a template shows only then. Errors are *TemplateError.
func ParseMail(files map[string]string) (*Mail, error) {
	content, found := files[MailText]
	if !found {
		return nil, &TemplateError{File: MailText, Problem: "is needed"}
	}
	if err := checkSize(MailText, content); err != nil {
		return nil, err
	}
	text, err := texttemplate.New(MailText).Funcs(functions).Option(missingKey).Parse(content)
	if err != nil {
		return nil, templateError(MailText, err)
	}
	if err := checkTree(MailText, text.Tree); err != nil {
		return nil, err
	}
	mail := &Mail{text: text}
	if content, found := files[MailHTML]; found {
		if err := checkSize(MailHTML, content); err != nil {
			return nil, err
		}
		mail.html, err = htmltemplate.New(MailHTML).Funcs(functions).Option(missingKey).Parse(content)
		if err != nil {
			return nil, templateError(MailHTML, err)
		}
		if err := checkTree(MailHTML, mail.html.Tree); err != nil {
			return nil, err
		}
	}
	if err := mail.try(); err != nil {
		return nil, err
	}
	return mail, nil
}

// try makes mails of samples: in each language, to somebody who is known and to
// somebody of whom the address is all that is known.
func (m *Mail) try() error {
	for _, language := range languages {
		for _, sample := range []MailData{sampleMail(), {Email: sampleMail().Email}} {
			sample.Language = string(language)
			sample.ConfirmURL = "https://lists.example.com/confirm/SAMPLE"
			text, html, err := m.Render(sample)
			if err != nil {
				return err
			}
			if !strings.Contains(text, sample.ConfirmURL) {
				return &TemplateError{File: MailText, Problem: "does not show {{.ConfirmURL}}"}
			}
			if m.html != nil && !strings.Contains(html, sample.ConfirmURL) {
				return &TemplateError{File: MailHTML, Problem: "does not show {{.ConfirmURL}}"}
			}
		}
	}
	return nil
}

// sampleMail returns what a mail can say to somebody who is known.
func sampleMail() MailData {
	return MailData{
		List:           "Example News",
		Email:          "ada@example.com",
		Fields:         map[string]string{"FIRSTNAME": "Ada", "LASTNAME": "Lovelace", "LOCALE": "en_GB"},
		Custom:         map[string]string{"loyalty points": "7"},
		Source:         "shop",
		UnsubscribeURL: "https://lists.example.com/unsubscribe/SAMPLE",
		ExpiresAt:      time.Date(2026, 1, 31, 18, 30, 0, 0, time.UTC),
	}
}

// Render makes the mail. html is empty for a mail of text alone. Errors are
// *TemplateError.
func (m *Mail) Render(data MailData) (text, html string, err error) {
	if first := data.Fields["FIRSTNAME"]; isName(first) {
		data.Name = Unlinked(first)
	}
	if m.ours {
		data.List, data.Email = Unlinked(data.List), Unlinked(data.Email)
	}
	if text, err = execute(MailText, m.text.Execute, data); err != nil {
		return "", "", err
	}
	if m.html == nil {
		return text, "", nil
	}
	html, err = execute(MailHTML, m.html.Execute, data)
	return text, html, err
}

// longestName is how many characters somebody is greeted by at most.
const longestName = 40

// noName is in links and addresses, also in those without a scheme, and in texts of
// several lines.
var noName = regexp.MustCompile(`[/\\@:<>\x{3002}\x{FF0E}\x{FF61}\p{Cc}\p{Zl}\p{Zp}]|[\pL\pN]\.[\pL\pN]`)

// isName tells whether somebody may be greeted by a text. Whoever fills in a form can
// have the mail sent to a stranger, and must not have it say what they want.
func isName(text string) bool {
	return utf8.RuneCountInString(text) <= longestName && !noName.MatchString(text)
}

//go:embed texts/mail.*
var mailTexts embed.FS

// builtInMails are the mails of lists without templates, by language.
var builtInMails = parseBuiltInMails()

func parseBuiltInMails() map[v1alpha1.Language]*Mail {
	mails := make(map[v1alpha1.Language]*Mail, len(languages))
	for _, language := range languages {
		files := map[string]string{}
		for _, kind := range []string{"txt", "html"} {
			content, err := mailTexts.ReadFile(fmt.Sprintf("texts/mail.%s.%s", language, kind))
			if err != nil {
				panic(err) // the file is not in the program
			}
			files["mail."+kind] = string(content)
		}
		mail, err := ParseMail(files)
		if err != nil {
			panic(err) // it is a fault of the file that is in the program
		}
		mail.ours = true
		mails[language] = mail
	}
	return mails
}

// BuiltInMail returns the mail of a list without templates of its own: English
// for a language that has none.
func BuiltInMail(language v1alpha1.Language) *Mail {
	if mail, known := builtInMails[language]; known {
		return mail
	}
	return builtInMails[v1alpha1.LanguageEnglish]
}

// Subject returns the subject of a mailing that names none.
func Subject(language v1alpha1.Language, list string) string {
	if language == v1alpha1.LanguageGerman {
		return "Bitte bestätigen Sie Ihre Anmeldung: " + Unlinked(list)
	}
	return "Please confirm your subscription: " + Unlinked(list)
}
