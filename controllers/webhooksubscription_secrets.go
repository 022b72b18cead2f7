package controllers

import (
	"context"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/jwe"
	"postbus.dev/postbus/internal/rc4"
)

// neededSecret is a Secret that a subscription needs.
type neededSecret struct {
	name string
	keys []neededKey
}

// neededKey is a data key of a Secret that is needed.
type neededKey struct {
	key string
	// check returns what is wrong with what the Secret holds, in words that don't
	// show it, or a refusal.
	check func(data map[string][]byte) error
	// again, when not nil, refuses what was good before and can be wrong now
	// although the Secret has not changed.
	again func() error
}

// neededSecrets are the Secrets that a subscription needs, each once.
type neededSecrets []neededSecret

// add adds a data key.
func (n *neededSecrets) add(ref v1alpha1.SecretKeyReference, key neededKey) {
	key.key = ref.Key
	for i := range *n {
		if (*n)[i].name == ref.Name {
			(*n)[i].keys = append((*n)[i].keys, key)
			return
		}
	}
	*n = append(*n, neededSecret{name: ref.Name, keys: []neededKey{key}})
}

// needed returns the Secrets that a subscription needs beside the signing Secret,
// see checkSigning.
func (w webhookSubscriptions) needed(subscription *v1alpha1.WebhookSubscription) neededSecrets {
	var all neededSecrets
	w.addCallback(&all, subscription)
	encryption := subscription.Spec.Payload.Encryption
	if encryption.Algorithm != "" {
		all.add(encryption.KeySecretRef, neededKey{check: func(data map[string][]byte) error {
			return checkEncryptionKey(encryption.Algorithm, data[encryption.KeySecretRef.Key])
		}})
	}
	return all
}

// checkEncryptionKey returns what is wrong with a key, in words that don't show it.
func checkEncryptionKey(algorithm v1alpha1.EncryptionAlgorithm, value []byte) error {
	if algorithm == v1alpha1.EncryptionRC4 {
		_, err := rc4.ParseKey(value)
		return err
	}
	_, err := jwe.ParseKey(value)
	return err
}

// checkSecrets looks at the Secrets that are needed, and has status tell those
// that are good and no others.
func (w webhookSubscriptions) checkSecrets(ctx context.Context, subscription *v1alpha1.WebhookSubscription) error {
	status, names := &subscription.Status, subscription.SecretNames()
	status.Secrets = slices.DeleteFunc(status.Secrets, func(secret v1alpha1.SecretVersion) bool {
		return !slices.Contains(names, secret.Name)
	})
	for _, needed := range w.needed(subscription) {
		version, err := w.checkSecret(ctx, subscription, needed)
		switch {
		case refusalIn(err) != nil:
			status.SetSecretVersion(needed.name, "")
			return err
		case err != nil:
			return err
		case needed.name != subscription.SigningSecretName():
			status.SetSecretVersion(needed.name, version)
		}
	}
	return nil
}

// checkSecret looks at a Secret and returns its version, or a refusal. One that
// holds the signing secret too is always read, because its version in status tells
// that it was good for that.
func (w webhookSubscriptions) checkSecret(
	ctx context.Context, subscription *v1alpha1.WebhookSubscription, needed neededSecret,
) (version string, err error) {
	version = subscription.Status.SecretVersion(needed.name)
	known, err := w.isKnown(ctx, subscription, needed.name, version)
	if err != nil {
		return "", err
	}
	if known && needed.name != subscription.SigningSecretName() {
		return version, needed.checkAgain()
	}
	found, err := w.secrets.value(ctx, subscription, wanted{name: needed.name, key: needed.keys[0].key})
	if err != nil {
		return "", err
	}
	for _, key := range needed.keys {
		if err := key.checkIn(needed.name, found); err != nil {
			return "", err
		}
	}
	return found.version, nil
}

// checkIn refuses what a Secret holds.
func (k neededKey) checkIn(name string, found held) error {
	if _, has := found.data[k.key]; !has {
		return refuse(v1alpha1.ReasonSecretNotFound, "Secret %q has no data key %q.", name, k.key)
	}
	err := k.check(found.data)
	if err != nil && refusalIn(err) == nil {
		return refuse(v1alpha1.ReasonSecretInvalid, "Secret %q, data key %q: %s.", name, k.key, err)
	}
	return err
}

func (n neededSecret) checkAgain() error {
	for _, key := range n.keys {
		if key.again == nil {
			continue
		}
		if err := key.again(); err != nil {
			return err
		}
	}
	return nil
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
	"let https protect the data, and change to payload.encryption.algorithm JWE as soon as the receiver can."

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
