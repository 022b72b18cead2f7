package controllers

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/rc4"
)

// neededSecret is a Secret that a subscription needs.
type neededSecret struct {
	wanted
	// check returns what is wrong with a value, in words that don't show it.
	check func(value string) error
	// version is where status tells the Secret's resourceVersion.
	version *string
}

// neededSecrets returns the Secrets that a subscription needs beside the signing
// Secret, see checkSigning.
func neededSecrets(subscription *v1alpha1.WebhookSubscription) []neededSecret {
	var needed []neededSecret
	encryption := subscription.Spec.Payload.Encryption
	if encryption.Algorithm == v1alpha1.EncryptionRC4 {
		needed = append(needed, neededSecret{
			wanted: wanted{name: encryption.KeySecretRef.Name, key: encryption.KeySecretRef.Key},
			check: func(value string) error {
				_, err := rc4.ParseKey([]byte(value))
				return err
			},
			version: &subscription.Status.EncryptionKeyVersion,
		})
	}
	return needed
}

func (w webhookSubscriptions) checkSecrets(ctx context.Context, subscription *v1alpha1.WebhookSubscription) error {
	if subscription.Spec.Payload.Encryption.Algorithm == "" {
		subscription.Status.EncryptionKeyVersion = ""
	}
	for _, needed := range neededSecrets(subscription) {
		if err := w.checkSecret(ctx, subscription, needed); err != nil {
			return err
		}
	}
	return nil
}

// checkSecret looks at a Secret and records its version.
func (w webhookSubscriptions) checkSecret(ctx context.Context, subscription *v1alpha1.WebhookSubscription, needed neededSecret) error {
	known, err := w.isKnown(ctx, subscription, needed.name, *needed.version)
	if known || err != nil {
		return err
	}
	found, err := w.secrets.value(ctx, subscription, needed.wanted)
	if err == nil {
		if invalid := needed.check(found.value); invalid != nil {
			err = refuse(v1alpha1.ReasonSecretInvalid, "Secret %q, data key %q: %s.", needed.name, needed.key, invalid)
		}
	}
	if refusalIn(err) != nil {
		found.version = ""
	}
	if !failed(err) {
		*needed.version = found.version
	}
	return err
}

// isKnown tells whether this version of a Secret was looked at before, for this
// spec. It is not read again then, because this is asked whenever the counters of
// a subscription change.
func (w webhookSubscriptions) isKnown(
	ctx context.Context, subscription *v1alpha1.WebhookSubscription, secret, version string,
) (bool, error) {
	cached, err := versionOf(ctx, w.client, "Secret", client.ObjectKey{Namespace: subscription.Namespace, Name: secret})
	known := subscription.Status.ObservedGeneration == subscription.Generation
	return known && cached != "" && cached == version, err
}

// rc4Warning is what status says of a subscription that is encrypted with RC4.
const rc4Warning = "Warning: RC4 is broken, and every call has the same key stream, so payload.encryption hides little: " +
	"let https protect the data. JWE is to take its place and is not there yet."

// withWarning appends to a message what its reader should know of the spec.
func withWarning(message string, subscription *v1alpha1.WebhookSubscription) string {
	if subscription.Spec.Payload.Encryption.Algorithm == v1alpha1.EncryptionRC4 {
		message += " " + rc4Warning
	}
	if aside := subscription.Status.SetAsideEvents; aside != nil && *aside > 0 {
		message += " Warning: events were set aside, see status.setAsideEvents."
	}
	return message
}
