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
	// accepted: the controller has accepted the spec. held: nothing is sent, events
	// wait.
	accepted, held bool
	filter         store.Filter
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

func newSubscription(object *v1alpha1.WebhookSubscription) *subscription {
	spec := &object.Spec
	s := &subscription{
		key:      store.SubscriptionKey{Namespace: object.Namespace, Name: object.Name},
		uid:      object.UID,
		accepted: isAccepted(object),
		held:     isHeld(object),
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
	s.held = s.held || s.isBroken() && !isChecked(object)
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

// isHeld: somebody suspended it, or the controller has not accepted it.
func isHeld(object *v1alpha1.WebhookSubscription) bool {
	suspended := object.Spec.Suspend != nil && *object.Spec.Suspend
	return suspended || !isAccepted(object)
}

func isAccepted(object *v1alpha1.WebhookSubscription) bool {
	return meta.IsStatusConditionTrue(object.Status.Conditions, v1alpha1.ConditionAccepted)
}

// isChecked tells whether the controller has looked at this spec, be it that it has
// accepted it or not.
func isChecked(object *v1alpha1.WebhookSubscription) bool {
	accepted := meta.FindStatusCondition(object.Status.Conditions, v1alpha1.ConditionAccepted)
	return accepted != nil && accepted.ObservedGeneration == object.Generation
}

// isBroken tells whether an expression of the spec can't be used. Until the controller
// says so events wait: they are not to be set aside for what it will not accept.
func (s *subscription) isBroken() bool {
	made, is := s.format.(template)
	return s.chosen.broken != nil || is && made.broken != nil
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

// wants tells whether an event is sent. One without a contact is operational, or
// is about somebody who had left already, or is a tombstone.
func (s *subscription) wants(event *contact.Event) bool {
	return (event.Contact.ID != 0 || isOperational(event)) && s.filter.Matches(event) &&
		(s.format == nil || s.format.knows(event)) && s.chosen.has(event)
}
