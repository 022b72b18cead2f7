package controllers

import (
	"errors"
	"fmt"
	"net/mail"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/mailpolicy"
	"postbus.dev/postbus/internal/recipient"
	"postbus.dev/postbus/internal/store"
)

// templateUse is one of the two things that a list names ConfigMaps for.
type templateUse struct {
	// keys are the data keys that mean something; others are left alone.
	keys []string
	// needed is the data key that must be there, empty when any one will do.
	needed string
	// check says what is wrong with the data.
	check func(files map[string]string) error
	// without says what happens as long as there was never a good one.
	without string
}

var mailTemplates = templateUse{
	keys:    []string{recipient.MailText, recipient.MailHTML},
	needed:  recipient.MailText,
	without: "Mails of it wait.",
	check: func(files map[string]string) error {
		_, err := recipient.ParseMail(files)
		return err
	},
}

var pageTemplates = templateUse{
	keys:    []string{recipient.PageLayout, recipient.PageStyle},
	without: "Pages keep the built-in look.",
	check: func(files map[string]string) error {
		_, err := recipient.ParsePages(files)
		return err
	},
}

// read returns the data of a ConfigMap that means something, nil for a ConfigMap
// that does not exist. Errors are refusals.
func (u templateUse) read(name string, configMap *corev1.ConfigMap) (store.Files, error) {
	if configMap == nil {
		return nil, refuse(v1alpha1.ReasonTemplateNotFound, "there is no ConfigMap %q in this namespace.", name)
	}
	files := store.Files{}
	for _, key := range u.keys {
		if _, binary := configMap.BinaryData[key]; binary {
			return nil, refuse(v1alpha1.ReasonTemplateInvalid, "ConfigMap %q, %s: it is not UTF-8 text.", name, key)
		}
		if content, given := configMap.Data[key]; given {
			files[key] = content
		}
	}
	if _, given := files[u.needed]; u.needed != "" && !given {
		return nil, refuse(v1alpha1.ReasonTemplateNotFound, "ConfigMap %q has no data key %q.", name, u.needed)
	}
	if len(files) == 0 {
		return nil, refuse(v1alpha1.ReasonTemplateNotFound, "ConfigMap %q has none of the data keys %q.", name, u.keys)
	}
	if err := u.check(files); err != nil {
		return nil, refuse(v1alpha1.ReasonTemplateInvalid, "ConfigMap %q, %s.", name, problem(err))
	}
	return files, nil
}

const (
	// problemSize bounds, in bytes, what is told of one problem.
	problemSize = 200
	// quoteSize bounds, in bytes, what is told of the template itself: enough to
	// find the place. Some of the template packages' errors quote it from there to
	// its end.
	quoteSize = 40
)

// quoted is a text of Go syntax in quotes.
var quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"?`)

// problem says what is wrong with a template, in one short line.
func problem(err error) string {
	var wrong *recipient.TemplateError
	if errors.As(err, &wrong) {
		short := *wrong
		told := quoted.ReplaceAllStringFunc(wrong.Problem, func(quote string) string { return clip(quote, quoteSize) })
		short.Problem = clip(strings.Join(strings.Fields(told), " "), problemSize)
		err = &short
	}
	return strings.TrimSuffix(err.Error(), ".")
}

// inspection looks at what a list says about mails and pages and the schema
// can't check.
type inspection struct {
	// configMaps are those that the list names and that exist, by name.
	configMaps map[string]*corev1.ConfigMap
	// before are the texts in use.
	before store.ListTexts
	// policy says which senders mailings may have.
	policy *mailpolicy.Policy
	// good are the texts to use from now on: what is bad stays as it was before,
	// and what is not named any more is gone.
	good store.ListTexts
	// findings are refusals, in the order of the spec.
	findings []*refusal
}

func (i *inspection) run(list *v1alpha1.ContactList) {
	i.good.Mailings = map[string]store.Files{}
	for _, mailing := range list.Spec.OptIn.Mailings {
		field := "spec.optIn.mailings[" + mailing.Key + "]"
		i.checkSender(list.Namespace, field+".from", mailing.From)
		before := i.before.Mailings[mailing.Key]
		if text := i.resolve(mailTemplates, field+".templateRef", mailing.TemplateRef, before); text != nil {
			i.good.Mailings[mailing.Key] = text
		}
	}
	i.good.Pages = i.resolve(pageTemplates, "spec.pages.templateRef", list.Spec.Pages.TemplateRef, i.before.Pages)
}

// checkSender refuses what the schema's pattern lets pass and RFC 5322 does not,
// such as two dots in a row, and a sender that the flags don't allow.
func (i *inspection) checkSender(namespace, field, from string) {
	if from == "" {
		return
	}
	sender, err := mail.ParseAddress(from)
	if err != nil {
		i.find(v1alpha1.ReasonMailingInvalid, "%s is no sender of a mail: %s. Mails of it wait.",
			field, strings.TrimPrefix(err.Error(), "mail: "))
		return
	}
	if err := i.policy.CheckSender(namespace, sender.Address); err != nil {
		i.find(v1alpha1.ReasonMailingInvalid, "%s %s. Mails of it wait.", field, err)
	}
}

// resolve returns the text that a reference leads to, and the text before when
// that is bad.
func (i *inspection) resolve(use templateUse, field string, reference v1alpha1.ConfigMapReference, before store.Files) store.Files {
	if reference.Name == "" {
		return nil
	}
	files, err := use.read(reference.Name, i.configMaps[reference.Name])
	refused := refusalIn(err)
	if refused == nil {
		return files
	}
	meanwhile := use.without
	if len(before) > 0 {
		meanwhile = "The text before stays in use."
	}
	i.find(refused.reason, "%s: %s %s", field, refused.message, meanwhile)
	return before
}

func (i *inspection) find(reason, format string, arguments ...any) {
	i.findings = append(i.findings, &refusal{reason: reason, message: fmt.Sprintf(format, arguments...)})
}

// maxFindings bounds, in bytes, the message of all findings: one of a condition
// has at most 32,768 characters.
const maxFindings = 30_000

// refused returns all findings as one refusal, with the reason of the first;
// nil when there are none.
func (i *inspection) refused() error {
	if len(i.findings) == 0 {
		return nil
	}
	var message strings.Builder
	for n, found := range i.findings {
		if message.Len()+len(found.message) > maxFindings {
			fmt.Fprintf(&message, " And %d more.", len(i.findings)-n)
			break
		}
		if n > 0 {
			message.WriteString(" ")
		}
		message.WriteString(found.message)
	}
	return &refusal{reason: i.findings[0].reason, message: message.String()}
}
