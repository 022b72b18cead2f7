package controllers

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/recipient"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/testkit"
)

// Good texts, and one that names a function that there is not in its line 2.
const (
	goodMail = "Hello {{.Fields.FIRSTNAME}},\nplease confirm: {{.ConfirmURL}}\n"
	goodHTML = `<p>Please <a href="{{.ConfirmURL}}">confirm</a></p>`
	goodPage = "<!doctype html><html lang=\"{{.Language}}\"><title>{{.Title}}</title><main>{{.Content}}</main></html>"
	badMail  = "Hello,\n{{foo .Email}} {{.ConfirmURL}}\n"
)

const valid = "True " + v1alpha1.ReasonValid

// configMap makes a ConfigMap.
func (b *bench) configMap(name string, data map[string]string) *corev1.ConfigMap {
	b.t.Helper()
	made := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: name}, Data: data}
	b.create(made)
	return made
}

// mailing returns an opt-in mailing whose templates are in a ConfigMap.
func mailing(key, configMap string) v1alpha1.OptInMailing {
	return v1alpha1.OptInMailing{Key: key, TemplateRef: v1alpha1.ConfigMapReference{Name: configMap}}
}

// listWith makes a list with opt-in mailings.
func (b *bench) listWith(mailings ...v1alpha1.OptInMailing) *v1alpha1.ContactList {
	b.t.Helper()
	list := testkit.List(b.namespace, "newsletter")
	list.Spec.OptIn.Mailings = mailings
	b.create(list)
	return list
}

// texts returns what the store has of a list.
func (b *bench) texts(list *v1alpha1.ContactList) store.ListTexts {
	b.t.Helper()
	texts, err := b.store.LoadTexts(b.t.Context(), contact.ListKey{Namespace: list.Namespace, Name: list.Name})
	b.Expect(err).NotTo(HaveOccurred())
	return texts
}

// ready passes the list and returns what Ready is, with its message.
func (b *bench) ready(list *v1alpha1.ContactList) (ready, message string) {
	b.t.Helper()
	b.pass(list)
	b.Expect(list.Status.Conditions).To(HaveLen(1))
	found := list.Status.Conditions[0]
	b.Expect(found.ObservedGeneration).To(Equal(list.Generation))
	b.Expect(list.Status.Contacts).NotTo(BeNil(), "contacts are counted whatever the templates are")
	return string(found.Status) + " " + found.Reason, found.Message
}

func (b *bench) expectValid(list *v1alpha1.ContactList) {
	b.t.Helper()
	ready, message := b.ready(list)
	b.Expect(ready).To(Equal(valid), message)
	b.Expect(message).To(Equal("The list takes contacts."))
}

func TestGoodTemplatesArePublished(t *testing.T) {
	b := newBench(t)
	b.configMap("doi-mail", map[string]string{"mail.txt": goodMail, "mail.html": goodHTML, "README": "ours"})
	b.configMap("look", map[string]string{"page.html": goodPage, "style.css": "h1 { color: teal }", "logo.svg": "<svg/>"})
	list := testkit.List(b.namespace, "newsletter")
	list.Spec.OptIn.Mailings = []v1alpha1.OptInMailing{mailing("welcome", "doi-mail"), {Key: "plain"}}
	list.Spec.Pages.TemplateRef.Name = "look"
	b.create(list)
	b.expectValid(list)
	b.Expect(b.texts(list)).To(Equal(store.ListTexts{
		Mailings: map[string]store.Files{"welcome": {"mail.txt": goodMail, "mail.html": goodHTML}},
		Pages:    store.Files{"page.html": goodPage, "style.css": "h1 { color: teal }"},
	}), "other data of the ConfigMaps is none of ours")
}

func TestBadTemplatesAreRefused(t *testing.T) {
	const mailField, pageField = "spec.optIn.mailings[welcome].templateRef: ", "spec.pages.templateRef: "
	for name, row := range map[string]struct {
		data    map[string]string
		binary  map[string][]byte
		pages   bool
		ready   string
		message string
	}{
		"a function that there is not": {
			data:    map[string]string{"mail.txt": badMail},
			ready:   "False TemplateInvalid",
			message: mailField + `ConfigMap "the-texts", mail.txt, line 2: function "foo" not defined. Mails of it wait.`,
		},
		"a good text and a bad mail.html": {
			data:    map[string]string{"mail.txt": goodMail, "mail.html": "<p>\n\n<a href=\"{{.ConfirmURL}}\">{{if}}</a>"},
			ready:   "False TemplateInvalid",
			message: mailField + `ConfigMap "the-texts", mail.html, line 3: missing value for if. Mails of it wait.`,
		},
		"an empty mail.html": {
			data:    map[string]string{"mail.txt": goodMail, "mail.html": ""},
			ready:   "False TemplateInvalid",
			message: mailField + `ConfigMap "the-texts", mail.html`,
		},
		"a field that no mail has": {
			data:    map[string]string{"mail.txt": "{{.ConfirmURL}}\n{{.Password}}"},
			ready:   "False TemplateInvalid",
			message: mailField + `ConfigMap "the-texts", mail.txt, line 2: `,
		},
		"no mail.txt": {
			data:    map[string]string{"mail.html": goodHTML},
			ready:   "False TemplateNotFound",
			message: mailField + `ConfigMap "the-texts" has no data key "mail.txt". Mails of it wait.`,
		},
		"a mail.txt that is no text": {
			binary:  map[string][]byte{"mail.txt": []byte("Gr\xfc\xdfe")},
			ready:   "False TemplateInvalid",
			message: mailField + `ConfigMap "the-texts", mail.txt: it is not UTF-8 text. Mails of it wait.`,
		},
		"a page that can't be read": {
			data:    map[string]string{"page.html": "<main>\n{{.Content}}\n{{end}}</main>"},
			pages:   true,
			ready:   "False TemplateInvalid",
			message: pageField + `ConfigMap "the-texts", page.html, line 3: unexpected {{end}}. Pages keep the built-in look.`,
		},
		"neither a page nor a style": {
			data:    map[string]string{"pages.html": goodPage},
			pages:   true,
			ready:   "False TemplateNotFound",
			message: pageField + `ConfigMap "the-texts" has none of the data keys ["page.html" "style.css"]. Pages keep the built-in look.`,
		},
		"a style that leaves its element": {
			data:    map[string]string{"style.css": "</style><script>"},
			pages:   true,
			ready:   "False TemplateInvalid",
			message: pageField + `ConfigMap "the-texts", style.css: `,
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.create(&corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: "the-texts"}, Data: row.data, BinaryData: row.binary,
			})
			list := testkit.List(b.namespace, "newsletter")
			if row.pages {
				list.Spec.Pages.TemplateRef.Name = "the-texts"
			} else {
				list.Spec.OptIn.Mailings = []v1alpha1.OptInMailing{mailing("welcome", "the-texts")}
			}
			b.create(list)
			ready, message := b.ready(list)
			b.Expect(ready).To(Equal(row.ready), message)
			b.Expect(message).To(HavePrefix(row.message))
			b.Expect(b.texts(list)).To(BeZero())
			again, sameMessage := b.ready(list)
			b.Expect([]string{again, sameMessage}).To(Equal([]string{ready, message}), "it is not forgotten")
		})
	}
}

func TestBadTemplateLeavesTheGoodOneBefore(t *testing.T) {
	b := newBench(t)
	list := b.listWith(mailing("welcome", "doi-mail"))
	ready, message := b.ready(list)
	b.Expect(ready).To(Equal("False TemplateNotFound"))
	b.Expect(message).To(Equal(
		`spec.optIn.mailings[welcome].templateRef: there is no ConfigMap "doi-mail" in this namespace. Mails of it wait.`))

	made := b.configMap("doi-mail", map[string]string{"mail.txt": goodMail})
	b.expectValid(list)
	good := store.ListTexts{Mailings: map[string]store.Files{"welcome": {"mail.txt": goodMail}}}
	b.Expect(b.texts(list)).To(Equal(good))

	made.Data["mail.txt"] = badMail
	b.update(made)
	ready, message = b.ready(list)
	b.Expect(ready).To(Equal("False TemplateInvalid"))
	b.Expect(message).To(HaveSuffix(`function "foo" not defined. The text before stays in use.`))
	b.Expect(b.texts(list)).To(Equal(good))

	b.delete(made)
	ready, message = b.ready(list)
	b.Expect(ready).To(Equal("False TemplateNotFound"))
	b.Expect(message).To(HaveSuffix("The text before stays in use."))
	b.Expect(b.texts(list)).To(Equal(good))

	b.configMap("doi-mail", map[string]string{"mail.txt": "Mended: {{.ConfirmURL}}"})
	b.expectValid(list)
	b.Expect(b.texts(list).Mailings["welcome"]).To(Equal(store.Files{"mail.txt": "Mended: {{.ConfirmURL}}"}))
}

func TestTextThatIsNotNamedIsDropped(t *testing.T) {
	b := newBench(t)
	b.configMap("doi-mail", map[string]string{"mail.txt": goodMail})
	b.configMap("look", map[string]string{"style.css": "h1 { color: teal }"})
	list := testkit.List(b.namespace, "newsletter")
	list.Spec.OptIn.Mailings = []v1alpha1.OptInMailing{mailing("welcome", "doi-mail"), mailing("again", "doi-mail")}
	list.Spec.Pages.TemplateRef.Name = "look"
	b.create(list)
	b.expectValid(list)
	b.Expect(b.texts(list).Mailings).To(HaveLen(2))

	list.Spec.OptIn.Mailings = list.Spec.OptIn.Mailings[:1]
	b.update(list)
	b.expectValid(list)
	b.Expect(b.texts(list).Mailings).To(HaveLen(1))
	b.Expect(b.texts(list).Pages).NotTo(BeEmpty())

	list.Spec.OptIn.Mailings[0].TemplateRef, list.Spec.Pages = v1alpha1.ConfigMapReference{}, v1alpha1.Pages{}
	b.update(list)
	b.expectValid(list)
	b.Expect(b.texts(list)).To(BeZero())
}

func TestEveryFindingIsTold(t *testing.T) {
	b := newBench(t)
	b.configMap("good", map[string]string{"mail.txt": goodMail})
	b.configMap("bad", map[string]string{"mail.txt": badMail})
	list := testkit.List(b.namespace, "newsletter")
	list.Spec.OptIn.Mailings = []v1alpha1.OptInMailing{
		mailing("a", "bad"), mailing("b", "good"), mailing("c", "missing"), mailing("d", "bad"),
	}
	list.Spec.OptIn.Mailings[1].From = "news..letter@example.com"
	list.Spec.Pages.TemplateRef.Name = "missing"
	b.create(list)
	ready, message := b.ready(list)
	b.Expect(ready).To(Equal("False TemplateInvalid"), "the first finding's reason")
	b.Expect(message).To(MatchRegexp(`^spec.optIn.mailings\[a\].templateRef: .* wait\. ` +
		`spec.optIn.mailings\[b\].from is no sender of a mail: .* wait\. ` +
		`spec.optIn.mailings\[c\].templateRef: there is no .* wait\. ` +
		`spec.optIn.mailings\[d\].templateRef: .* wait\. spec.pages.templateRef: there is no .* look\.$`))
	b.Expect(b.texts(list)).To(Equal(store.ListTexts{
		Mailings: map[string]store.Files{"b": {"mail.txt": goodMail}},
	}), "one that is good is published")
}

func TestSenderThatNoMailCanHaveIsRefused(t *testing.T) {
	for name, row := range map[string]struct {
		from string
		bad  bool
	}{
		"an address":                    {from: "news@example.com"},
		"an address with a name":        {from: "Example News <news@example.com>"},
		"an address in angle brackets":  {from: "<news@example.com>"},
		"a name in quotes":              {from: `"News, Example" <news@example.com>`},
		"a name with an umlaut":         {from: "Grüße <news@example.com>"},
		"a comma outside of quotes":     {from: "News, Example <news@example.com>", bad: true},
		"two dots in a row":             {from: "news..letter@example.com", bad: true},
		"a comment that is not closed":  {from: "News (new <news@example.com>", bad: true},
		"a quote that is not closed":    {from: `"News <news@example.com>`, bad: true},
		"a semicolon that ends a group": {from: "news@example.com;", bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			list := b.listWith(v1alpha1.OptInMailing{Key: "welcome", From: row.from})
			if !row.bad {
				b.expectValid(list)
				return
			}
			ready, message := b.ready(list)
			b.Expect(ready).To(Equal("False MailingInvalid"))
			b.Expect(message).To(MatchRegexp(`^spec.optIn.mailings\[welcome\].from is no sender of a mail: .+\. Mails of it wait\.$`))
		})
	}
}

// countingReader counts what is read from the API server.
type countingReader struct {
	client.Reader
	reads int
}

// Get implements client.Reader.
func (c *countingReader) Get(ctx context.Context, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	c.reads++
	return c.Reader.Get(ctx, key, object, options...)
}

func TestConfigMapsAreReadOnlyWhenTheyChange(t *testing.T) {
	b := newBench(t)
	made := b.configMap("doi-mail", map[string]string{"mail.txt": goodMail})
	b.configMap("bad", map[string]string{"mail.txt": badMail})
	list := b.listWith(mailing("a", "doi-mail"), mailing("b", "doi-mail"), mailing("c", "bad"), mailing("d", "missing"))
	reader := &countingReader{Reader: plane.Client}
	lists := b.lists()
	lists.reader = reader
	pass := func() int {
		before := reader.reads
		_, err := lists.loop().Reconcile(t.Context(), requestFor(list))
		b.Expect(err).NotTo(HaveOccurred())
		return reader.reads - before
	}
	b.Expect(pass()).To(Equal(2), "each once")
	b.Expect(pass()).To(BeZero())
	addContact(t, b.store, contact.ListKey{Namespace: b.namespace, Name: "newsletter"}, "a@example.com", contact.PermissionNone)
	b.Expect(pass()).To(BeZero(), "counting")

	made.Data["mail.txt"] = "Other: {{.ConfirmURL}}"
	b.update(made)
	b.Expect(pass()).To(Equal(2))
	b.Expect(b.texts(list).Mailings).To(HaveKeyWithValue("b", store.Files{"mail.txt": "Other: {{.ConfirmURL}}"}))
	b.configMap("other", map[string]string{"mail.txt": goodMail})
	b.Expect(pass()).To(BeZero(), "nobody names it")

	b.read(list)
	list.Spec.OptIn.Mailings = list.Spec.OptIn.Mailings[:2]
	b.update(list)
	b.Expect(pass()).To(Equal(1))
	b.Expect(pass()).To(BeZero())
}

func TestListThatIsGoneIsForgotten(t *testing.T) {
	b := newBench(t)
	b.configMap("doi-mail", map[string]string{"mail.txt": goodMail})
	list := b.listWith(mailing("welcome", "doi-mail"))
	b.expectValid(list)
	b.Expect(b.inspected.last).To(HaveLen(1))
	b.delete(list)
	b.pass(list)
	b.Expect(b.inspected.last).To(BeEmpty())
	b.Expect(b.texts(list).Mailings).To(HaveLen(1), "as its contacts, its texts are there for a list of the same name")

	again := b.listWith(v1alpha1.OptInMailing{Key: "welcome"})
	b.expectValid(again)
	b.Expect(b.texts(again)).To(BeZero())
}

func TestMessageOfManyFindingsFits(t *testing.T) {
	b := newBench(t)
	var mailings []v1alpha1.OptInMailing
	for n := range 50 {
		bad := mailing(fmt.Sprintf("%02d%s", n, strings.Repeat("k", 62)), fmt.Sprintf("%02d%s", n, strings.Repeat("c", 251)))
		bad.From = strings.Repeat("ü", 300) + "..@example.com"
		mailings = append(mailings, bad)
	}
	list := b.listWith(mailings...)
	ready, message := b.ready(list)
	b.Expect(ready).To(Equal("False MailingInvalid"))
	b.Expect(strings.Count(message, "Mails of it wait.")).To(Equal(100), "none is left out")
	note := <-b.events.Events
	b.Expect(len(note)).To(BeNumerically("<", len("Warning MailingInvalid ")+noteSize+1))
	b.Expect(note).To(HaveSuffix("…"))
}

func TestFindingsThatDoNotFitAreCounted(t *testing.T) {
	g := NewWithT(t)
	look := inspection{}
	g.Expect(look.refused()).To(Succeed())
	for n := range 100 {
		look.find(v1alpha1.ReasonTemplateInvalid, "%03d%s.", n, strings.Repeat("x", 996))
	}
	message := look.refused().Error()
	g.Expect(message).To(HavePrefix("000x"))
	g.Expect(message).To(HaveSuffix("x. And 71 more."))
	g.Expect(len(message)).To(BeNumerically("<", 32_768))
}

func TestProblemIsShort(t *testing.T) {
	g := NewWithT(t)
	told := problem(&recipient.TemplateError{File: "mail.html", Line: 7, Problem: "got " + strings.Repeat("ü\n", 1000) + "\xff"})
	g.Expect(told).To(HavePrefix(`mail.html, line 7: got ü ü`))
	g.Expect(len(told)).To(BeNumerically("<", problemSize+30))
	g.Expect(utf8.ValidString(told)).To(BeTrue())
	g.Expect(problem(&recipient.TemplateError{File: "a", Problem: "A sentence."})).To(Equal("a: A sentence"))
}

// A template's text is not shown beyond what finds the place.
func TestProblemQuotesLittle(t *testing.T) {
	hidden := strings.Repeat("hidden", 5)
	for name, html := range map[string]string{
		"a quote in an attribute":           `<a href=x"lead in, and then ` + hidden + `{{.ConfirmURL}}>`,
		"a quote in an attribute's name":    `<a b"lead in, and then ` + hidden + `="{{.ConfirmURL}}">`,
		"two texts where one is":            `<a href="{{.ConfirmURL}}" class=a"lead in, and then ` + hidden + "\">",
		"a function of a long name":         `{{leadingInAndThenALongName` + strings.Repeat("x", 30) + hidden + `}}`,
		"a text that is cut off too far":    `{{slice "lead in, and then ` + hidden + `" 500}}`,
		"a text that is taken for a number": `{{index .Email "lead in, and then ` + hidden + `"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := recipient.ParseMail(map[string]string{"mail.txt": goodMail, "mail.html": html})
			g.Expect(err).To(HaveOccurred())
			g.Expect(problem(err)).NotTo(ContainSubstring(hidden))
			g.Expect(problem(err)).To(HavePrefix("mail.html"))
		})
	}
}
