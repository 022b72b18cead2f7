package recipient

import (
	"embed"
	"html"
	"html/template"
	"io"
	"strings"
	"time"

	"postbus.dev/postbus/api/v1alpha1"
)

// PageKind is what a page is about. Its contents are ours, in each language.
type PageKind string

// The pages.
const (
	// PageConfirm asks to confirm an opt-in, with one button.
	PageConfirm PageKind = "confirm"
	// PageConfirmed thanks for it.
	PageConfirmed PageKind = "confirmed"
	// PageUsed: the link to confirm was used before.
	PageUsed PageKind = "used"
	// PageConfirmExpired: the link to confirm came too late.
	PageConfirmExpired PageKind = "confirm-expired"
	// PageExpired: another link came too late.
	PageExpired PageKind = "expired"
	// PageInvalid: the link is none of ours, or was damaged.
	PageInvalid PageKind = "invalid"
	// PageGone: the contact, or its list, is there no more. Its person may be
	// another contact of the list by now.
	PageGone PageKind = "gone"
	// PageUnsubscribe asks to unsubscribe, and why.
	PageUnsubscribe PageKind = "unsubscribe"
	// PageUnsubscribed says that it is done.
	PageUnsubscribed PageKind = "unsubscribed"
	// PageLeft: the contact to unsubscribe is there no more. Its person may be
	// another contact of the list by now.
	PageLeft PageKind = "left"
	// PageProfile is the form of the contact's fields.
	PageProfile PageKind = "profile"
	// PageSaved says that the fields are stored.
	PageSaved PageKind = "saved"
	// PageReactivate tells whoever looks after a callback that it was deactivated,
	// and asks whether to reactivate it.
	PageReactivate PageKind = "reactivate"
	// PageReactivateAsked says that the dispatcher was asked to.
	PageReactivateAsked PageKind = "reactivate-asked"
	// PageReactivateOutdated: the callback is not deactivated any more, or again, or
	// not there any more.
	PageReactivateOutdated PageKind = "reactivate-outdated"
	// PageReactivateExpired: the link to reactivate came too late.
	PageReactivateExpired PageKind = "reactivate-expired"
	// PageLater asks to try again: contacts can't be stored at the moment.
	PageLater PageKind = "later"
	// PageInsecure: the page was asked for without HTTPS.
	PageInsecure PageKind = "insecure"
	// PageError: something else went wrong; nothing was changed.
	PageError PageKind = "error"
)

// Page is what one page says.
type Page struct {
	Kind     PageKind
	Language v1alpha1.Language
	// List is the list's display name, empty where no list is known.
	List string
	// ProfileURL is a link to the contact's profile, on PageConfirmed.
	ProfileURL string
	// Email is the contact's address, on PageProfile.
	Email string
	// Fields are those of the form on PageProfile.
	Fields []Field
	// Shown comes back with the form as its parameter "shown".
	Shown string
	// Callback is what the pages are about that reactivate; nil on others.
	Callback *Callback
}

// Callback is a subscription's callback that was deactivated.
type Callback struct {
	// Namespace and Name are the WebhookSubscription's.
	Namespace, Name string
	// DeactivatedAt is when that was. What follows is known on PageReactivate alone.
	DeactivatedAt time.Time
	// FailingSince is when calls began to fail, Answer what came of the last one, and
	// KeptUntil until when events are kept.
	FailingSince, KeptUntil time.Time
	Answer                  string
	// Kept and Lost are how many events are kept and lost so far.
	Kept, Lost int64
	// Replay, on PageReactivateAsked: the events that were kept are sent.
	Replay bool
}

// Moment writes a time for people.
func (Callback) Moment(at time.Time) string { return at.UTC().Format("2006-01-02 15:04 UTC") }

// Reasons returns what people can choose on PageUnsubscribe.
func (p Page) Reasons() []Option { return reasons[p.Language] }

// Wrong returns the fields that were refused.
func (p Page) Wrong() (wrong []Field) {
	for _, field := range p.Fields {
		if field.Error != "" {
			wrong = append(wrong, field)
		}
	}
	return wrong
}

// The data keys of a ConfigMap that says how a list's pages look; each is
// optional.
const (
	// PageLayout is the html/template that the contents are put into.
	PageLayout = "page.html"
	// PageStyle is the style sheet, behind the built-in one.
	PageStyle = "style.css"
)

//go:embed pages
var builtIn embed.FS

var (
	builtInStyle  = mustRead("pages/" + PageStyle)
	builtInLayout = template.Must(template.New(PageLayout).Parse(mustRead("pages/" + PageLayout)))
	// contents are the templates of what pages say, by the kind's name; with
	// ".title" behind it that of its title.
	contents = map[v1alpha1.Language]*template.Template{
		v1alpha1.LanguageEnglish: template.Must(template.ParseFS(builtIn, "pages/form.html", "pages/en.html")),
		v1alpha1.LanguageGerman:  template.Must(template.ParseFS(builtIn, "pages/form.html", "pages/de.html")),
	}
)

func mustRead(name string) string {
	data, err := builtIn.ReadFile(name)
	if err != nil {
		panic(err) // go:embed has put it there
	}
	return string(data)
}

// Pages is how the pages of a list look. The zero Pages has the built-in look.
type Pages struct {
	layout *template.Template // nil for the built-in one
	style  string             // behind the built-in one
}

// layoutData is what a list's page.html can use.
type layoutData struct {
	// Title is the page's title, which is in Content as a heading too.
	Title string
	// Language is en or de, for the attribute lang.
	Language string
	// List is the list's display name.
	List string
	// Content is what the page says.
	Content template.HTML
	// Style is the built-in style sheet, with the list's style.css behind it.
	Style template.CSS
}

// ParsePages reads how a list's pages look: page.html, an html/template with
// the data .Title, .Language, .List, .Content and .Style, and style.css, which
// comes behind the built-in style. Each is optional. The template is run once, so
// that it can be relied on. The error is a *TemplateError.
func ParsePages(files map[string]string) (*Pages, error) {
	pages := &Pages{style: files[PageStyle]}
	if strings.Contains(strings.ToLower(pages.style), "</style") {
		return nil, &TemplateError{File: PageStyle, Problem: "a style sheet must not have </style in it"}
	}
	if text, given := files[PageLayout]; given {
		if err := checkSize(PageLayout, text); err != nil {
			return nil, err
		}
		layout, err := template.New(PageLayout).Funcs(functions).Option("missingkey=zero").Parse(text)
		if err != nil {
			return nil, templateError(PageLayout, err)
		}
		if err := checkTree(PageLayout, layout.Tree); err != nil {
			return nil, err
		}
		pages.layout = layout
	}
	if err := pages.try(); err != nil {
		return nil, err
	}
	return pages, nil
}

// try renders pages with sample data, in each language. What they say must be in
// each once, as it is: not in an attribute or a script.
func (p *Pages) try() error {
	for _, language := range languages {
		for _, kind := range []PageKind{PageConfirm, PageProfile} {
			page := Page{Kind: kind, Language: language, List: "Example News", Email: "ada@example.com"}
			for _, name := range []string{"FIRSTNAME", "GENDER", "BIRTHDAY"} {
				field, _ := NewField(name, nil, language)
				page.Fields = append(page.Fields, field)
			}
			_, content, err := page.content()
			if err != nil {
				return err
			}
			made, err := p.Render(page)
			if err != nil {
				return err
			}
			if strings.Count(made, string(content)) != 1 {
				return &TemplateError{File: PageLayout, Problem: "a page must have {{.Content}} in it, once and as a part of its text"}
			}
		}
	}
	return nil
}

// Render returns a page in HTML. The error is a *TemplateError.
func (p *Pages) Render(page Page) (string, error) {
	layout := p.layout
	if layout == nil {
		layout = builtInLayout
	}
	title, content, err := page.content()
	if err != nil {
		return "", err
	}
	return execute(PageLayout, layout.Execute, layoutData{
		Title: title, Language: string(page.Language), List: page.List,
		Content: content, Style: template.CSS(builtInStyle + p.style), //nolint:gosec // a list's owner styles its pages
	})
}

// content returns the title and what the page says, heading first.
func (p Page) content() (title string, content template.HTML, err error) {
	heading, err := p.run(string(p.Kind) + ".title")
	if err != nil {
		return "", "", err
	}
	body, err := p.run(string(p.Kind))
	content = template.HTML("<h1>" + heading + "</h1>\n" + body) //nolint:gosec // both are made by html/template
	return html.UnescapeString(heading), content, err
}

// run runs one of the templates of what pages say.
func (p Page) run(name string) (string, error) {
	return execute(name, func(w io.Writer, data any) error {
		return contents[p.Language].ExecuteTemplate(w, name, data)
	}, p)
}
