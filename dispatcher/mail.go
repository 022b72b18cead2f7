package dispatcher

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/mail"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	gomail "github.com/wneessen/go-mail"
	"golang.org/x/net/idna"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/link"
	"postbus.dev/postbus/internal/mailpolicy"
	"postbus.dev/postbus/internal/recipient"
	"postbus.dev/postbus/internal/store"
)

const (
	mailTimeout = 30 * time.Second
	// mailConnections is how many connections to the mail server may be open at
	// once, for all lists together.
	mailConnections = 4
	// unsubscribeTTL is how long the link to unsubscribe works.
	unsubscribeTTL = 365 * 24 * time.Hour
)

// mailIntervals are the waits before the retries of a mail; the last is repeated.
var mailIntervals = []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour}

// newMailDelivery returns the delivery of a list's opt-in mails.
func newMailDelivery(list contact.ListKey, uid types.UID) *subscription {
	return &subscription{
		key: store.MailKey(list), uid: uid,
		filter: store.Filter{
			Namespace: list.Namespace, Lists: []string{list.Name}, Types: []v1alpha1.EventType{contact.EventOptInMail},
		},
		timeout: mailTimeout, rules: rules{intervals: mailIntervals},
		ordering: v1alpha1.OrderingPerContact, maxInFlight: mailConnections,
	}
}

// mailer sends opt-in mails.
type mailer struct {
	clock     clock.PassiveClock
	lists     client.Reader
	checked   *trusted[*v1alpha1.ContactList]
	store     Store
	from      *mail.Address
	policy    mailpolicy.Policy
	publicURL *url.URL
	linkKeys  *link.Ring
	transport *transport
}

// newMailer returns the mailer of one list. connections holds a value for each
// connection that is in use.
func newMailer(options *Options, checked *trusted[*v1alpha1.ContactList], connections chan struct{}) *mailer {
	return &mailer{
		clock: options.Clock, lists: options.Objects, checked: checked, store: options.Store,
		from: options.Mail.From, policy: options.Mail.Policy, publicURL: options.Mail.PublicURL, linkKeys: options.LinkKeys,
		transport: newTransport(options, connections),
	}
}

// attempt implements deliverer.
func (m *mailer) attempt(ctx context.Context, s *subscription, made call) (outcome, error) {
	o, err := m.try(ctx, s.timeout, made.event)
	return untilExpired(o, m.clock.Since(made.event.Time)), err
}

// close implements deliverer.
func (m *mailer) close() { m.transport.goodbyes.Wait() }

// try makes the mail of an event and hands it over.
func (m *mailer) try(ctx context.Context, limit time.Duration, event *contact.Event) (outcome, error) {
	request, o, err := m.look(ctx, event)
	if request == nil {
		return o, err
	}
	content, o, err := m.render(ctx, request)
	if content == nil {
		return o, err
	}
	made, err := m.compose(request, content)
	if errors.Is(err, errSenderForbidden) {
		return outcome{verdict: failed, reason: mailSenderForbidden}, err
	}
	if err != nil {
		return outcome{verdict: failed, reason: v1alpha1.FailureRender}, err
	}
	if err := m.transport.handOver(ctx, made, limit); err != nil {
		return ofMailError(err), err
	}
	return outcome{verdict: delivered}, nil
}

// optInRequest is what is known of a mail that shall be sent now.
type optInRequest struct {
	event   *contact.Event
	contact *contact.Contact
	list    *v1alpha1.ContactList
	mailing *v1alpha1.OptInMailing // nil for the built-in one
	now     time.Time
}

// look returns what the mail is to be about, or nil and an outcome when none is
// to be sent now.
func (m *mailer) look(ctx context.Context, event *contact.Event) (*optInRequest, outcome, error) {
	list, current, o, err := m.list(ctx, event.List)
	if list == nil {
		return nil, o, err
	}
	stored, err := m.store.FindContactByID(ctx, event.List, event.Contact.ID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, outcome{verdict: givenUp, reason: mailObsolete}, errors.New("the contact is gone")
	case err != nil:
		return nil, ofInterruption(ctx), fmt.Errorf("read the contact: %w", err)
	}
	optIn := event.Contact.OptIn
	switch {
	case optIn == nil || (contact.Confirmation{RequestedAt: optIn.RequestedAt}).Used(&stored):
		return nil, outcome{verdict: givenUp, reason: mailObsolete}, errors.New("the contact has confirmed meanwhile")
	case stored.OptIn != nil && stored.OptIn.RequestedAt.After(optIn.RequestedAt):
		return nil, outcome{verdict: givenUp, reason: mailObsolete}, errors.New("a later mail was asked for meanwhile")
	}
	mailing := list.Mailing(optIn.Mailing)
	if mailing == nil && !current { // it may be in the newest spec
		return nil, outcome{verdict: postponed}, fmt.Errorf("read the mailing: %w", errListNotChecked)
	}
	if mailing == nil { // it was there when the mail was asked for
		mailing = list.Mailing("")
	}
	return &optInRequest{event: event, contact: &stored, list: list, mailing: mailing, now: m.clock.Now()}, outcome{}, nil
}

// errListNotChecked is the error of a list whose spec is too new.
var errListNotChecked = errors.New("the controller has not checked the list's spec")

// list returns the newest version of a list that the controller has checked, and whether that is
// the list as it is now; nil and an outcome when there is none.
func (m *mailer) list(ctx context.Context, key contact.ListKey) (checked *v1alpha1.ContactList, current bool, o outcome, err error) {
	list := &v1alpha1.ContactList{}
	err = m.lists.Get(ctx, types.NamespacedName{Namespace: key.Namespace, Name: key.Name}, list)
	switch {
	case apierrors.IsNotFound(err):
		return nil, false, outcome{verdict: failed, reason: mailListNotFound}, errors.New("the list is gone")
	case err != nil:
		return nil, false, ofInterruption(ctx), fmt.Errorf("read the list: %w", err)
	case isCheckedList(list):
		return list, true, outcome{}, nil
	}
	if checked, has := m.checked.last(list); has {
		return checked, false, outcome{}, nil
	}
	return nil, false, outcome{verdict: postponed}, fmt.Errorf("read the list: %w", errListNotChecked)
}

// ofInterruption is the outcome of something that could not be read.
func ofInterruption(ctx context.Context) outcome {
	if ctx.Err() != nil {
		return outcome{verdict: aborted}
	}
	return outcome{verdict: failed, reason: mailStore}
}

// mailContent is what somebody gets to read.
type mailContent struct {
	subject, text, html string
	language            v1alpha1.Language
	unsubscribeURL      string
}

// render makes what somebody gets to read, or returns nil and an outcome.
func (m *mailer) render(ctx context.Context, r *optInRequest) (*mailContent, outcome, error) {
	language := recipient.LanguageOf(r.contact.StandardFields["LOCALE"], r.list.Spec.Language)
	template := recipient.BuiltInMail(language)
	if r.mailing != nil && r.mailing.TemplateRef.Name != "" {
		texts, err := m.store.LoadTexts(ctx, r.event.List)
		if err != nil {
			return nil, ofInterruption(ctx), fmt.Errorf("read the templates: %w", err)
		}
		files, found := texts.Mailings[r.mailing.Key]
		if !found {
			return nil, outcome{verdict: failed, reason: mailTemplateMissing}, errors.New("the mailing's template has not been found yet")
		}
		if template, err = recipient.ParseMail(files); err != nil {
			return nil, outcome{verdict: failed, reason: v1alpha1.FailureRender}, err
		}
	}
	data := m.data(r, language)
	text, html, err := template.Render(data)
	if err != nil {
		return nil, outcome{verdict: failed, reason: v1alpha1.FailureRender}, err
	}
	content := &mailContent{
		subject: recipient.Subject(language, r.list.DisplayName()),
		text:    text, html: html, language: language, unsubscribeURL: data.UnsubscribeURL,
	}
	if r.mailing != nil {
		content.subject = cmp.Or(r.mailing.Subject, content.subject)
	}
	return content, outcome{}, nil
}

// data returns what templates can say to the contact.
func (m *mailer) data(r *optInRequest, language v1alpha1.Language) recipient.MailData {
	expires := r.now.Add(r.list.LinkTTL()).UTC()
	optIn := r.event.Contact.OptIn
	confirm := link.Link{
		Purpose: link.Confirm, List: r.event.List, Contact: r.contact.ID, Expires: expires,
		RequestedAt: optIn.RequestedAt, Plus: optIn.Plus,
	}
	unsubscribe := link.Link{
		Purpose: link.Unsubscribe, List: r.event.List, Contact: r.contact.ID, Expires: r.now.Add(unsubscribeTTL),
	}
	return recipient.MailData{
		List: r.list.DisplayName(), Email: r.contact.Email,
		Fields: r.contact.StandardFields, Custom: customTexts(r.contact.CustomFields),
		Source: r.contact.Source, Language: string(language),
		ConfirmURL:     m.linkKeys.URL(m.publicURL, confirm),
		UnsubscribeURL: m.linkKeys.URL(m.publicURL, unsubscribe),
		ExpiresAt:      expires,
	}
}

// customTexts returns custom fields as templates show them.
func customTexts(fields map[string]any) map[string]string {
	texts := make(map[string]string, len(fields))
	for name, value := range fields {
		texts[name] = valueText(value)
	}
	return texts
}

// errSenderForbidden is the error of a mailing whose sender the flags don't allow.
var errSenderForbidden = errors.New("the mailing's sender is not allowed")

// compose makes the message with its headers.
func (m *mailer) compose(r *optInRequest, content *mailContent) (envelope, error) {
	sender := m.from
	if r.mailing != nil && r.mailing.From != "" {
		parsed, err := mail.ParseAddress(r.mailing.From)
		if err != nil {
			return envelope{}, fmt.Errorf("read the mailing's sender: %w", err)
		}
		if err := m.policy.CheckSender(r.list.Namespace, parsed.Address); err != nil {
			return envelope{}, fmt.Errorf("%w: it %w", errSenderForbidden, err)
		}
		sender = parsed
	}
	l := newLetter(sender, r.contact.Email, r.event.ID, r.now)
	message := l.message
	message.Subject(content.subject)
	message.SetGenHeader("Content-Language", string(content.language))
	message.SetListUnsubscribe(content.unsubscribeURL)
	if m.publicURL.Scheme == "https" { // RFC 8058, section 3.1
		message.SetListUnsubscribePost()
	}
	message.SetBodyString(gomail.TypeTextPlain, content.text)
	if content.html != "" {
		message.AddAlternativeString(gomail.TypeTextHTML, content.html)
	}
	return l.seal()
}

// letter is a mail that is being written.
type letter struct {
	from, to string
	message  *gomail.Msg
}

// newLetter returns a mail with the headers that all of ours have.
func newLetter(sender *mail.Address, recipient, eventID string, now time.Time) letter {
	l := letter{from: mailbox(sender.Address), to: mailbox(recipient), message: gomail.NewMsg(gomail.WithNoDefaultUserAgent())}
	l.message.FromMailAddress(&mail.Address{Name: sender.Name, Address: l.from})
	l.message.ToMailAddress(&mail.Address{Address: l.to})
	l.message.SetDateWithValue(now)
	// The same for each attempt, so that a mail that came twice shows as one.
	l.message.SetMessageIDWithValue(eventID + l.from[strings.LastIndex(l.from, "@"):])
	l.message.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834
	return l
}

// seal returns the mail as it is handed over.
func (l letter) seal() (envelope, error) {
	var made bytes.Buffer
	if _, err := l.message.WriteTo(&made); err != nil {
		return envelope{}, fmt.Errorf("write the message: %w", err)
	}
	return envelope{from: l.from, to: l.to, needsUTF8: !isASCII(l.from) || !isASCII(l.to), message: made.Bytes()}, nil
}

// mailbox returns an address with its domain in ASCII, so that it needs
// SMTPUTF8 only for what comes before the @.
func mailbox(address string) string {
	at := strings.LastIndex(address, "@")
	domain, err := idna.Lookup.ToASCII(address[at+1:])
	if err != nil {
		return address
	}
	return address[:at+1] + domain
}

func isASCII(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
}
