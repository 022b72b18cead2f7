package dispatcher

import (
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// What a subscription has where its spec says nothing: the defaults that the
// CRD documents.
const (
	defaultTimeout     = 10 * time.Second
	maileonTimeout     = 5 * time.Second // the vendor's
	defaultMaxInFlight = 64
	defaultWindow      = 5 * 24 * time.Hour
	defaultReplayRate  = 100
)

// defaultIntervals are MailUp's: 5 retries, every 5 minutes.
var defaultIntervals = []time.Duration{5 * time.Minute, 5 * time.Minute, 5 * time.Minute, 5 * time.Minute, 5 * time.Minute}

// subscription is a WebhookSubscription's spec in the form that deliveries need;
// opt-in mails have one too, of fewer fields. It is never changed, only replaced.
type subscription struct {
	key store.SubscriptionKey
	// uid is that of the object that the delivery is for; empty for notices.
	uid types.UID
	// accepted: the controller has accepted this spec, and has refused none since. held: nothing is
	// sent, events wait.
	accepted, held bool
	// unchecked: the object has a newer spec than the controller has checked. unproven: this spec is
	// not known to have been accepted, so no event is taken by it.
	unchecked, unproven bool
	filter              store.Filter
	// chosen is spec.filter.
	chosen chosen
	// format is nil for mails, which are not made from the event alone.
	format format
	// url is what is called. Where it is empty the URL is in urlSecret.
	url       string
	urlSecret secretPlace
	// headers are those of the spec.
	headers []header
	tls     tlsPlaces
	// grant says where tokens come from; nil where calls carry none.
	grant       *grant
	method      string
	timeout     time.Duration
	rules       rules
	ordering    v1alpha1.Ordering
	maxInFlight int
	// perSecond is how many calls may begin in a second; 0 is no limit.
	perSecond int
	// signingSecret is where the signing secrets are.
	signingSecret secretPlace
	// encryption is how what is sent is encrypted, with the key that is in
	// encryptionKey; empty when nothing is.
	encryption    v1alpha1.EncryptionAlgorithm
	encryptionKey secretPlace
}

// header is a header of the spec.
type header struct {
	name, value string
	// secret is where the value is, when it is not here.
	secret secretPlace
}

// newSubscription returns what an object's spec says, which the controller has accepted.
func newSubscription(object *v1alpha1.WebhookSubscription) *subscription {
	spec := &object.Spec
	s := &subscription{
		key:      store.SubscriptionKey{Namespace: object.Namespace, Name: object.Name},
		uid:      object.UID,
		accepted: true,
		held:     isSuspended(object),
		filter: store.Filter{
			Namespace: object.Namespace, Lists: spec.Lists,
			Types: spec.Events, Sources: spec.Sources,
			Operations: spec.OperationalEvents, Except: (&contact.Operation{Kind: kindSubscription, Name: object.Name}).Object(),
		},
		chosen:    newChosen(spec.Filter),
		format:    newFormat(spec),
		url:       spec.Callback.URL,
		urlSecret: placeOf(object, spec.Callback.URLSecretRef),
		headers:   headersOf(object),
		tls:       newTLSPlaces(object),
		grant:     newGrant(object),
		method:    http.MethodPost,
		timeout:   defaultTimeout,
		rules: rules{
			intervals: defaultIntervals, deactivation: v1alpha1.DeactivateOnUnreachable,
			window: defaultWindow, replayGap: time.Second / defaultReplayRate,
		},
		ordering:      v1alpha1.OrderingPerContact,
		maxInFlight:   defaultMaxInFlight,
		perSecond:     int(spec.RateLimit.RequestsPerSecond),
		signingSecret: placeOf(object, v1alpha1.SecretKeyReference{Name: object.SigningSecretName()}),
		encryption:    spec.Payload.Encryption.Algorithm,
		encryptionKey: placeOf(object, spec.Payload.Encryption.KeySecretRef),
	}
	if spec.Callback.Method != "" {
		s.method = string(spec.Callback.Method)
	}
	switch {
	case spec.Callback.Timeout != nil:
		s.timeout = spec.Callback.Timeout.Duration
	case spec.Payload.Format == v1alpha1.FormatMaileon:
		s.timeout = maileonTimeout
	}
	s.rules.set(spec)
	if spec.Ordering != "" {
		s.ordering = spec.Ordering
	}
	if spec.RateLimit.MaxInFlight > 0 {
		s.maxInFlight = int(spec.RateLimit.MaxInFlight)
	}
	// A replay leaves half of the calls that may be under way to live events.
	s.rules.maxReplayed = max(1, s.maxInFlight/2)
	return s
}

// newTrusted returns what may be done for an object. accepted is the last version of the object
// that the controller accepted, as far as this process has seen; nil when it has seen none. Until
// the controller has checked a newer spec, the accepted one stays in force. To suspend is always
// safe, so that takes effect at once. After a refusal nothing is sent until a spec is accepted.
func newTrusted(object, accepted *v1alpha1.WebhookSubscription) *subscription {
	switch {
	case isAccepted(object):
		return newSubscription(object)
	case accepted == nil || accepted.UID != object.UID:
		s := newSubscription(object)
		s.accepted, s.held, s.unproven, s.unchecked = false, true, true, !isChecked(object)
		return s
	}
	s := newSubscription(accepted)
	s.unchecked = !isChecked(object)
	s.accepted = meta.IsStatusConditionTrue(object.Status.Conditions, v1alpha1.ConditionAccepted)
	s.held = s.held || !s.accepted || isSuspended(object)
	return s
}

// set takes over what a spec says.
func (r *rules) set(spec *v1alpha1.WebhookSubscriptionSpec) {
	if len(spec.Retry.Intervals) > 0 {
		r.intervals = durations(spec.Retry.Intervals)
	}
	r.notify = spec.Notify.Emails
	if spec.Deactivation.Policy != "" {
		r.deactivation = spec.Deactivation.Policy
	}
	if spec.Buffer.Window != nil {
		r.window = spec.Buffer.Window.Duration
	}
	if spec.Replay.RequestsPerSecond > 0 {
		r.replayGap = time.Second / time.Duration(spec.Replay.RequestsPerSecond)
	}
}

func headersOf(object *v1alpha1.WebhookSubscription) (headers []header) {
	for _, spec := range object.Spec.Callback.Headers {
		headers = append(headers, header{name: spec.Name, value: spec.Value, secret: placeOf(object, spec.SecretRef)})
	}
	return headers
}

// placeOf returns where a Secret's value is. The zero place is that of none.
func placeOf(object *v1alpha1.WebhookSubscription, ref v1alpha1.SecretKeyReference) secretPlace {
	return secretPlace{name: ref.Name, key: ref.Key, version: object.Status.SecretVersion(ref.Name)}
}

func isSuspended(object *v1alpha1.WebhookSubscription) bool {
	return object.Spec.Suspend != nil && *object.Spec.Suspend
}

// isAccepted reports whether the controller has accepted the object's spec as it is now.
func isAccepted(object *v1alpha1.WebhookSubscription) bool {
	return isChecked(object) && meta.IsStatusConditionTrue(object.Status.Conditions, v1alpha1.ConditionAccepted)
}

// isChecked reports whether the controller has checked the object's spec as it is now, and accepted
// or refused it.
func isChecked(object *v1alpha1.WebhookSubscription) bool {
	accepted := meta.FindStatusCondition(object.Status.Conditions, v1alpha1.ConditionAccepted)
	return accepted != nil && accepted.ObservedGeneration == object.Generation
}

func durations(values []metav1.Duration) []time.Duration {
	var all []time.Duration
	for _, value := range values {
		all = append(all, value.Duration)
	}
	return all
}

// isMail tells whether this is of opt-in mails, or of notices.
func (s *subscription) isMail() bool {
	_, is := s.key.MailList()
	return is || s.key.IsNotices()
}

// lists are those whose events may be wanted; one without a name is for all of the
// namespace.
func (s *subscription) lists() []contact.ListKey {
	if len(s.filter.Lists) == 0 || len(s.filter.Operations) > 0 { // these are of no list
		return []contact.ListKey{{Namespace: s.key.Namespace}}
	}
	lists := make([]contact.ListKey, len(s.filter.Lists))
	for i, name := range s.filter.Lists {
		lists[i] = contact.ListKey{Namespace: s.key.Namespace, Name: name}
	}
	return lists
}

// mayWant reports whether an event is sent if spec.filter chooses it. An event without a
// contact is operational, or is about a contact that was deleted before, or is a tombstone.
func (s *subscription) mayWant(event *contact.Event) bool {
	return (event.Contact.ID != 0 || isOperational(event)) && s.filter.Matches(event) &&
		(s.format == nil || s.format.knows(event))
}

// evaluates reports whether spec.filter decides if an event is sent.
func (s *subscription) evaluates(event *contact.Event) bool {
	return s.chosen.filter != nil && !isOperational(event) && s.mayWant(event)
}
