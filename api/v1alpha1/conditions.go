package v1alpha1

// Finalizer is on every object whose deletion has something to clean up: a
// WebhookSubscription's delivery state, a generated Secret.
const Finalizer = "postbus.dev/cleanup"

// ConditionReady is on every kind and says whether the object does now what
// its spec asks for. It follows kstatus: False while it does not, together with
// observedGeneration, so `kubectl wait --for=condition=Ready`, Flux and Argo CD
// can wait for it.
//
//   - True on a ContactList: ReasonValid. On an ApiKey: ReasonIssued, and
//     ReasonRotating while the key before it works too.
//     On a WebhookSubscription: ReasonActive, ReasonReplaying, and
//     ReasonSuspended, because a subscription that is suspended on purpose is as
//     its spec wants it.
//   - False: on a ContactList ReasonTemplateNotFound, ReasonTemplateInvalid and
//     ReasonMailingInvalid; the list takes contacts all the same. Also
//     ReasonNamespaceReplaced; then it takes none. On a
//     WebhookSubscription ReasonFailing and ReasonDeactivated. On that and on an ApiKey the False
//     reasons of ConditionAccepted; on an ApiKey also ReasonExpired and
//     ReasonSuspended, because the key is refused then.
//   - Unknown: ReasonProgressing, while no controller has looked at the object,
//     or none has come to the end of this spec.
const ConditionReady = "Ready"

// ConditionAccepted is on ApiKey and WebhookSubscription and says whether
// everything that the spec names exists and can be used.
//
//   - True: ReasonValid.
//   - False: ReasonListNotFound, ReasonSecretNotFound, ReasonSecretTaken; on an
//     ApiKey also ReasonKeyTooWeak, on a WebhookSubscription also
//     ReasonSecretInvalid, ReasonCallbackInvalid, ReasonCallbackForbidden,
//     ReasonNotifyForbidden, ReasonFilterInvalid, ReasonTemplateInvalid and
//     ReasonNamespaceReplaced.
//   - Unknown: ReasonProgressing.
const ConditionAccepted = "Accepted"

// ConditionReachable is on WebhookSubscription and says whether the callback
// answered the last call with success.
//
//   - True: ReasonSucceeded.
//   - False: the reason of the last failed attempt, see FailureReason.
//   - Unknown: ReasonNotCalled, while the callback has not been called yet.
const ConditionReachable = "Reachable"

// The reasons of the conditions above.
const (
	// ReasonProgressing: the controller has not finished looking at this spec.
	ReasonProgressing = "Progressing"
	// ReasonValid: the spec is complete and consistent.
	ReasonValid = "Valid"
	// ReasonIssued: the ApiKey's digest is in status, so ingress takes the key.
	ReasonIssued = "Issued"
	// ReasonRotating: the ApiKey has a new key, and the older one works until
	// its overlap ends.
	ReasonRotating = "Rotating"
	// ReasonExpiring is on no condition: it is a Warning event, sent once when
	// an ApiKey is about to expire.
	ReasonExpiring = "Expiring"
	// ReasonTemplateNotFound: a ConfigMap that the spec names, or the data key
	// that is needed, does not exist.
	ReasonTemplateNotFound = "TemplateNotFound"
	// ReasonTemplateInvalid: a template of a ContactList, or spec.payload.template,
	// can't be used; the message names the place in it.
	ReasonTemplateInvalid = "TemplateInvalid"
	// ReasonFilterInvalid: spec.filter can't be used; the message names the place in
	// it.
	ReasonFilterInvalid = "FilterInvalid"
	// ReasonMailingInvalid: an opt-in mailing names a sender that no mail can
	// have, or that the mailings of the namespace may not have; the message names the
	// flag that can allow it.
	ReasonMailingInvalid = "MailingInvalid"
	// ReasonListNotFound: a ContactList that the spec names does not exist.
	ReasonListNotFound = "ListNotFound"
	// ReasonSecretNotFound: a Secret that the spec names exists without the
	// data key that is needed, or does not exist and is none that is generated.
	ReasonSecretNotFound = "SecretNotFound"
	// ReasonSecretInvalid: the Secret's value is not in the form that is needed.
	ReasonSecretInvalid = "SecretInvalid"
	// ReasonSecretTaken: the Secret that would be generated was generated for
	// another object.
	ReasonSecretTaken = "SecretTaken"
	// ReasonKeyTooWeak: the ApiKey's Secret holds a key of less than 128 bits.
	ReasonKeyTooWeak = "KeyTooWeak"
	// ReasonNamespaceReplaced: the store holds contacts or subscriptions of an earlier
	// Namespace of this name. An annotation on the Namespace must decide about them.
	ReasonNamespaceReplaced = "NamespaceReplaced"
	// ReasonExpired: spec.expiresAt has passed.
	ReasonExpired = "Expired"
	// ReasonSuspended: spec.suspend is true.
	ReasonSuspended = "Suspended"
	// ReasonCallbackInvalid: the callback's URL can't be called.
	ReasonCallbackInvalid = "CallbackInvalid"
	// ReasonCallbackForbidden: the callback's URL points to where callbacks may
	// not point; the message names the flag that can allow it.
	ReasonCallbackForbidden = "CallbackForbidden"
	// ReasonNotifyForbidden: spec.notify names an address that the notices of the
	// namespace may not go to; the message names the flag that can allow it.
	ReasonNotifyForbidden = "NotifyForbidden"
	// ReasonActive: calls are made, and the last one succeeded if there was one.
	ReasonActive = "Active"
	// ReasonFailing: the last calls failed and are being retried.
	ReasonFailing = "Failing"
	// ReasonDeactivated: the callback was deactivated and is called no more, until
	// somebody reactivates it.
	ReasonDeactivated = "Deactivated"
	// ReasonReplaying: events are sent again, beside the live ones.
	ReasonReplaying = "Replaying"
	// ReasonEventsSetAside is on no condition: it is a Warning event, sent when
	// more events were set aside.
	ReasonEventsSetAside = "EventsSetAside"
	// ReasonRequestRefused is on no condition: it is a Warning event, sent when an
	// annotation asks for what can't be done.
	ReasonRequestRefused = "RequestRefused"
	// ReasonSucceeded: the callback answered the last call with success.
	ReasonSucceeded = "Succeeded"
	// ReasonNotCalled: the callback has not been called yet.
	ReasonNotCalled = "NotCalled"
)
