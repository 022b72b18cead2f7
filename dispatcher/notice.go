package dispatcher

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/mail"
	"slices"
	"strings"
	texttemplate "text/template"
	"time"

	gomail "github.com/wneessen/go-mail"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/mailpolicy"
	"postbus.dev/postbus/internal/recipient"
	"postbus.dev/postbus/internal/store"
)

// newNoticeDelivery returns the delivery of a namespace's notices. None waits for
// another: each goes to an address of its own.
func newNoticeDelivery(key store.SubscriptionKey) *subscription {
	return &subscription{
		key:     key,
		filter:  store.Filter{Namespace: key.Namespace, Types: []v1alpha1.EventType{contact.EventNotice}},
		timeout: mailTimeout, rules: rules{intervals: mailIntervals, notices: defaultNoticeLimits},
		ordering: v1alpha1.OrderingNone, maxInFlight: mailConnections,
	}
}

// noticer mails notices: who is named in spec.notify is told that a callback was
// deactivated.
type noticer struct {
	clock         clock.PassiveClock
	subscriptions client.Reader
	store         store.Deliveries
	from          *mail.Address
	policy        mailpolicy.Policy
	links         reactivationLinks
	transport     *transport
}

// newNoticer returns the noticer of one namespace. connections holds a value for
// each connection that is in use.
func newNoticer(options *Options, connections chan struct{}) *noticer {
	return &noticer{
		clock: options.Clock, subscriptions: options.Objects, store: options.Store, from: options.Mail.From,
		policy:    options.Mail.Policy,
		links:     reactivationLinks{keys: options.LinkKeys, base: options.Mail.PublicURL},
		transport: newTransport(options, connections),
	}
}

// attempt implements deliverer.
func (n *noticer) attempt(ctx context.Context, s *subscription, made call) (outcome, error) {
	o, err := n.try(ctx, s.timeout, made)
	return untilExpired(o, n.clock.Since(made.event.Time)), err
}

// close implements deliverer.
func (n *noticer) close() { n.transport.goodbyes.Wait() }

// try makes the mail of a notice and hands it over, unless it is obsolete.
func (n *noticer) try(ctx context.Context, limit time.Duration, made call) (outcome, error) {
	told, err := n.look(ctx, made)
	switch {
	case errors.Is(err, errObsolete):
		return outcome{verdict: givenUp, reason: mailObsolete}, err
	case errors.Is(err, errRecipientForbidden):
		return outcome{verdict: givenUp, reason: mailRecipientForbidden}, err
	case err != nil:
		return ofInterruption(ctx), err
	}
	told.event = n.links.to(told.event)
	mail, err := n.compose(told)
	if err != nil {
		return outcome{verdict: failed, reason: v1alpha1.FailureRender}, err
	}
	if err := n.transport.handOver(ctx, mail, limit); err != nil {
		return ofMailError(err), err
	}
	return outcome{verdict: delivered}, nil
}

var (
	// errObsolete: nobody is to be told of it any more.
	errObsolete = errors.New("the notice is obsolete")
	// errRecipientForbidden is the error of an address that the flags don't allow.
	errRecipientForbidden = errors.New("the notice's address is not allowed")
)

// notice is what a mail tells.
type notice struct {
	// event is the deactivation that lasts, or the first one that no mail told where the
	// callback is active.
	event  *contact.Event
	active bool
	// times is how many deactivations there were since, the first of them included.
	times int
	since time.Time
}

// look returns what a notice is to tell now, errObsolete when it is not to be sent any
// more, errRecipientForbidden, or another error when that can't be found out now.
func (n *noticer) look(ctx context.Context, made call) (told notice, err error) {
	event := made.event
	key := store.SubscriptionKey{Namespace: event.List.Namespace, Name: event.Operation.Name}
	var object v1alpha1.WebhookSubscription
	err = n.subscriptions.Get(ctx, types.NamespacedName{Namespace: key.Namespace, Name: key.Name}, &object)
	switch {
	case apierrors.IsNotFound(err):
		return told, fmt.Errorf("%w: the subscription is gone", errObsolete)
	case err != nil:
		return told, fmt.Errorf("read the subscription: %w", err)
	case !slices.Contains(object.Spec.Notify.Emails, event.Operation.Recipient):
		return told, fmt.Errorf("%w: the subscription does not name the address any more", errObsolete)
	}
	if err := n.policy.CheckRecipient(key.Namespace, event.Operation.Recipient); err != nil {
		return told, fmt.Errorf("%w: spec.notify.emails %w", errRecipientForbidden, err)
	}
	told = notice{event: event, times: max(1, made.held), since: event.Time}
	delivery, err := n.store.LoadDelivery(ctx, key)
	switch d := delivery.Life.Deactivation; {
	case errors.Is(err, store.ErrNotFound):
		return told, fmt.Errorf("%w: the subscription is gone", errObsolete)
	case err != nil:
		return told, err
	case d != nil && d.At.Equal(event.Time):
	case made.held == 0:
		return told, fmt.Errorf("%w: the callback was reactivated meanwhile", errObsolete)
	case d == nil:
		told.active = true
	default:
		told.event = lastDeactivation(event, &delivery)
	}
	return told, nil
}

// lastDeactivation returns an event of the deactivation that lasts, as one of before tells
// of another.
func lastDeactivation(before *contact.Event, delivery *store.Delivery) *contact.Event {
	d := delivery.Life.Deactivation
	event, operation := *before, *before.Operation
	event.Time, event.Operation = d.At, &operation
	operation.BufferedUntil, operation.Events = d.Until, int64(len(delivery.Open))+delivery.Life.Owed.Events
	operation.FailingSince = delivery.Health.FailingSince
	if failure := delivery.Health.LastFailure; failure != nil {
		operation.Reason, operation.HTTPStatus = failure.Reason, failure.HTTPStatus
	}
	return &event
}

//go:embed notice.txt
var noticeSource string

var noticeTemplate = texttemplate.Must(texttemplate.New("notice.txt").Option("missingkey=error").Parse(noticeSource))

// compose makes the message with its headers.
func (n *noticer) compose(told notice) (envelope, error) {
	event, operation := told.event, told.event.Operation
	answer := string(operation.Reason)
	if operation.HTTPStatus != 0 {
		answer = fmt.Sprintf("%s %d", answer, operation.HTTPStatus)
	}
	namespace, name := recipient.Unlinked(event.List.Namespace), recipient.Unlinked(operation.Name)
	var text strings.Builder
	err := noticeTemplate.Execute(&text, map[string]any{
		"Namespace": namespace, "Name": name, "At": mailTime(event.Time), "FailingSince": mailTime(operation.FailingSince),
		"Active": told.active, "Times": told.times, "Since": mailTime(told.since),
		"Answer": answer, "Events": operation.Events, "BufferedUntil": mailTime(operation.BufferedUntil),
		"URL": operation.ReactivateURL, "Expires": mailTime(reactivationOf(event).Expires()),
		// A name with what makes it no link is not one that kubectl knows.
		"Command":    namespace == event.List.Namespace && name == operation.Name,
		"Reactivate": v1alpha1.AnnotationReactivate, "ReplayEvents": v1alpha1.AnnotationReplayEvents,
	})
	if err != nil {
		return envelope{}, fmt.Errorf("write the notice: %w", err)
	}
	state := "Deactivated"
	if told.active {
		state = "Deactivated and reactivated"
	}
	l := newLetter(n.from, operation.Recipient, event.ID, n.clock.Now())
	l.message.Subject(fmt.Sprintf("%s: the callback of %s in %s", state, name, namespace))
	l.message.SetGenHeader("Content-Language", string(v1alpha1.LanguageEnglish))
	l.message.SetBodyString(gomail.TypeTextPlain, text.String())
	return l.seal()
}

// mailTime writes a time for people.
func mailTime(at time.Time) string { return at.UTC().Format("2006-01-02 15:04:05 UTC") }
