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
	"postbus.dev/postbus/internal/store"
)

// newNoticeDelivery returns the delivery of a namespace's notices. None waits for
// another: each goes to an address of its own.
func newNoticeDelivery(key store.SubscriptionKey) *subscription {
	return &subscription{
		key:     key,
		filter:  store.Filter{Namespace: key.Namespace, Types: []v1alpha1.EventType{contact.EventNotice}},
		timeout: mailTimeout, rules: rules{intervals: mailIntervals},
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
	links         reactivationLinks
	transport     *transport
}

// newNoticer returns the noticer of one namespace. connections holds a value for
// each connection that is in use.
func newNoticer(options *Options, connections chan struct{}) *noticer {
	return &noticer{
		clock: options.Clock, subscriptions: options.Objects, store: options.Store, from: options.Mail.From,
		links:     reactivationLinks{keys: options.LinkKeys, base: options.Mail.PublicURL},
		transport: newTransport(options, connections),
	}
}

// attempt implements deliverer.
func (n *noticer) attempt(ctx context.Context, s *subscription, made call) (outcome, error) {
	o, err := n.try(ctx, s.timeout, made.event)
	return untilExpired(o, n.clock.Since(made.event.Time)), err
}

// close implements deliverer.
func (n *noticer) close() { n.transport.goodbyes.Wait() }

// try makes the mail of a notice and hands it over, unless it is obsolete.
func (n *noticer) try(ctx context.Context, limit time.Duration, event *contact.Event) (outcome, error) {
	if err := n.look(ctx, event); err != nil {
		if errors.Is(err, errObsolete) {
			return outcome{verdict: givenUp, reason: mailObsolete}, err
		}
		return ofInterruption(ctx), err
	}
	made, err := n.compose(n.links.to(event))
	if err != nil {
		return outcome{verdict: failed, reason: v1alpha1.FailureRender}, err
	}
	if err := n.transport.handOver(ctx, made, limit); err != nil {
		return ofMailError(err), err
	}
	return outcome{verdict: delivered}, nil
}

// errObsolete: nobody is to be told of it any more.
var errObsolete = errors.New("the notice is obsolete")

// look returns errObsolete when a notice is not to be sent any more, and another
// error when that can't be found out now.
func (n *noticer) look(ctx context.Context, event *contact.Event) error {
	key := store.SubscriptionKey{Namespace: event.List.Namespace, Name: event.Operation.Name}
	var object v1alpha1.WebhookSubscription
	err := n.subscriptions.Get(ctx, types.NamespacedName{Namespace: key.Namespace, Name: key.Name}, &object)
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%w: the subscription is gone", errObsolete)
	case err != nil:
		return fmt.Errorf("read the subscription: %w", err)
	case !slices.Contains(object.Spec.Notify.Emails, event.Operation.Recipient):
		return fmt.Errorf("%w: the subscription does not name the address any more", errObsolete)
	}
	delivery, err := n.store.LoadDelivery(ctx, key)
	switch d := delivery.Life.Deactivation; {
	case errors.Is(err, store.ErrNotFound):
		return fmt.Errorf("%w: the subscription is gone", errObsolete)
	case err != nil:
		return err
	case d == nil || !d.At.Equal(event.Time):
		return fmt.Errorf("%w: the callback was reactivated meanwhile", errObsolete)
	}
	return nil
}

//go:embed notice.txt
var noticeSource string

var noticeTemplate = texttemplate.Must(texttemplate.New("notice.txt").Option("missingkey=error").Parse(noticeSource))

// compose makes the message with its headers.
func (n *noticer) compose(event *contact.Event) (envelope, error) {
	told := event.Operation
	answer := string(told.Reason)
	if told.HTTPStatus != 0 {
		answer = fmt.Sprintf("%s %d", answer, told.HTTPStatus)
	}
	var text strings.Builder
	err := noticeTemplate.Execute(&text, map[string]any{
		"Namespace": event.List.Namespace, "Name": told.Name, "At": mailTime(event.Time), "FailingSince": mailTime(told.FailingSince),
		"Answer": answer, "Events": told.Events, "BufferedUntil": mailTime(told.BufferedUntil),
		"URL": told.ReactivateURL, "Expires": mailTime(reactivationOf(event).Expires()),
		"Reactivate": v1alpha1.AnnotationReactivate, "ReplayEvents": v1alpha1.AnnotationReplayEvents,
	})
	if err != nil {
		return envelope{}, fmt.Errorf("write the notice: %w", err)
	}
	l := newLetter(n.from, told.Recipient, event.ID, n.clock.Now())
	l.message.Subject(fmt.Sprintf("Deactivated: the callback of %s in %s", told.Name, event.List.Namespace))
	l.message.SetGenHeader("Content-Language", string(v1alpha1.LanguageEnglish))
	l.message.SetBodyString(gomail.TypeTextPlain, text.String())
	return l.seal()
}

// mailTime writes a time for people.
func mailTime(at time.Time) string { return at.UTC().Format("2006-01-02 15:04:05 UTC") }
