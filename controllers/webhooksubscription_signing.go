package controllers

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/signature"
)

// This file answers: which secrets sign a subscription's calls before, while and
// after one is replaced?
//
// A rotation is these writes, in this order:
//
//  1. The Secret gets a new secret, the one before it under "previous", and the
//     request as an annotation, its mark: in one patch, only in the version that
//     was read, and only while status agrees with the mark that was there.
//  2. Status gets the request as handled, and until when both sign.
//  3. When that time has come the Secret loses "previous".
//  4. Status loses the time.
//
// Whoever is killed between 1 and 2 leaves a mark that tells what is done: the next
// pass does 2, and the overlap begins then. Whoever is killed between 3 and 4 leaves
// nothing to drop, and the next pass does 4. From 1 on both secrets sign, because
// the dispatcher signs with all that the Secret has.
//
// A pass over an old copy of the subscription finds a mark that the copy's status
// does not have: it writes nothing into the Secret, and its patch of status
// conflicts.

// checkSigning has a signing Secret exist, rotates it when that is asked for, and
// owns status.signing and its version in status.secrets.
func (w webhookSubscriptions) checkSigning(ctx context.Context, subscription *v1alpha1.WebhookSubscription) error {
	status := &subscription.Status
	known, err := w.isKnown(ctx, subscription, subscription.SigningSecretName(), status.SecretVersion(subscription.SigningSecretName()))
	if err != nil || (known && !signingAsked(subscription) && !overlapEnded(subscription, w.now())) {
		return err
	}
	found, err := w.signingSecret(ctx, subscription)
	var secrets signature.Secrets
	if err == nil {
		secrets, err = parseSigning(subscription, found)
	}
	switch {
	case failed(err):
		return err
	case err != nil:
		status.SetSecretVersion(subscription.SigningSecretName(), "")
		status.Signing.PublicKey = ""
		return err
	}
	status.SetSecretVersion(subscription.SigningSecretName(), found.version)
	status.Signing.PublicKey = secrets[0].PublicKey()
	if found.generated && signingAsked(subscription) {
		return wait{after: rotationDelay} // status did not have the mark
	}
	return nil
}

// signingSecret returns what the signing Secret holds, after it was made, renewed,
// or freed of a secret whose time is over, and tells status of it.
func (w webhookSubscriptions) signingSecret(ctx context.Context, subscription *v1alpha1.WebhookSubscription) (held, error) {
	want := wanted{
		name: subscription.SigningSecretName(), key: signature.SecretKey, previous: signature.PreviousKey,
		generate: func() string { return signature.GenerateSecret(subscription.Spec.Signing.Algorithm) },
	}
	if request := subscription.RequestedSigningRotation(); request != "" {
		want.marks = map[string]string{v1alpha1.RotateSigningAnnotation: request}
	}
	found, err := w.secrets.value(ctx, subscription, want)
	if err == nil {
		_, err = parseSigning(subscription, found) // what does not sign can't be kept as the one before
	}
	if err == nil && startsSigningRotation(subscription, found) {
		found, err = w.secrets.renew(ctx, subscription, want, found)
	}
	if err != nil {
		return held{}, err
	}
	takeSigning(subscription, found, w.now())
	if !overlapEnded(subscription, w.now()) {
		return found, nil
	}
	if found, err = w.secrets.dropPrevious(ctx, subscription, want, found); err != nil {
		return held{}, err
	}
	takeSigning(subscription, found, w.now())
	return found, nil
}

func parseSigning(subscription *v1alpha1.WebhookSubscription, found held) (signature.Secrets, error) {
	secrets, err := signature.ParseSecrets(found.data)
	if err != nil {
		return nil, refuse(v1alpha1.ReasonSecretInvalid, "Secret %q, %s.", subscription.SigningSecretName(), err)
	}
	return secrets, nil
}

// signingAsked tells whether the annotation has a value whose secret does not sign
// yet.
func signingAsked(subscription *v1alpha1.WebhookSubscription) bool {
	return isNew(subscription.RequestedSigningRotation(), subscription.Status.Signing.LastHandledRotation)
}

// startsSigningRotation tells whether a new secret is to be generated. The
// subscription's status is as it was read.
func startsSigningRotation(subscription *v1alpha1.WebhookSubscription, found held) bool {
	return found.generated && signingAsked(subscription) &&
		found.marks[v1alpha1.RotateSigningAnnotation] == subscription.Status.Signing.LastHandledRotation
}

// takeSigning puts into status which request the Secret was renewed for, and until
// when the secret before it signs. Nothing is known of the requests and times of
// people who keep the Secret themselves.
func takeSigning(subscription *v1alpha1.WebhookSubscription, found held, now time.Time) {
	status := &subscription.Status.Signing
	if !found.generated {
		status.PreviousUntil = nil
		return
	}
	mark := found.marks[v1alpha1.RotateSigningAnnotation]
	_, overlaps := found.data[signature.PreviousKey]
	switch {
	case !overlaps:
		status.PreviousUntil = nil
	case status.PreviousUntil == nil || mark != status.LastHandledRotation:
		status.PreviousUntil = inSeconds(&metav1.Time{Time: now.Add(subscription.SigningOverlap())})
	}
	status.LastHandledRotation = mark
}

// overlapEnded tells whether the secret before the present one is to go.
func overlapEnded(subscription *v1alpha1.WebhookSubscription, now time.Time) bool {
	return expired(subscription.Status.Signing.PreviousUntil, now)
}

// awaitOverlap comes back when the secret before the present one is to go.
func (w webhookSubscriptions) awaitOverlap(_ context.Context, subscription *v1alpha1.WebhookSubscription) error {
	if until := subscription.Status.Signing.PreviousUntil; until != nil {
		return wait{after: max(until.Sub(w.now()), time.Millisecond)}
	}
	return nil
}

// signingNote is what the message of Accepted says of how calls are signed, where
// there is something to know.
func signingNote(subscription *v1alpha1.WebhookSubscription) string {
	signing := &subscription.Status.Signing
	switch {
	case signing.PreviousUntil != nil:
		return fmt.Sprintf(" Until %s calls are signed with the secret before the present one, too.", timeText(*signing.PreviousUntil))
	case signingAsked(subscription):
		return fmt.Sprintf(" Rotation waits: Secret %q was not generated here, so whoever keeps it must put the new secret "+
			"under the data key %q, and the one before it under %q for as long as both shall sign.",
			subscription.SigningSecretName(), signature.SecretKey, signature.PreviousKey)
	case subscription.Spec.Signing.Algorithm == v1alpha1.SigningEd25519 && signing.PublicKey == "":
		return fmt.Sprintf(" Calls are signed by HMAC, because Secret %q holds a secret for that: "+
			"spec.signing.algorithm counts from the next rotation on.", subscription.SigningSecretName())
	default:
		return ""
	}
}
