package controllers

import (
	"context"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/apikey"
)

// accept owns the condition Accepted and status.keys. The key comes before the
// list, so that a caller whose list is gone is told that, and not that its key
// is unknown.
func (a apiKeys) accept(ctx context.Context, key *v1alpha1.ApiKey) error {
	err := a.readKey(ctx, key)
	if err == nil {
		list := client.ObjectKey{Namespace: key.Namespace, Name: key.Spec.ListRef.Name}
		err = checkList(ctx, a.client, list, "spec.listRef")
	}
	return record(key, v1alpha1.ConditionAccepted, err,
		isTrue(v1alpha1.ReasonValid, "The list exists and the Secret holds a key."))
}

// readKey puts the digest of the Secret's key into status, and takes it out
// when the Secret can't be used any more.
func (a apiKeys) readKey(ctx context.Context, key *v1alpha1.ApiKey) error {
	want := wanted{name: key.SecretName(), key: apikey.SecretKey, generate: apikey.Generate}
	value, _, err := a.secrets.value(ctx, key, want)
	if err == nil {
		value = withoutLineEnd(value)
		if weak := apikey.Check(value); weak != nil {
			err = refuse(v1alpha1.ReasonKeyTooWeak, "Secret %q: %s.", want.name, weak)
		}
	}
	switch {
	case failed(err):
		return err
	case err != nil:
		key.Status.Keys = nil
		return err
	}
	key.Status.Keys = digestsOf(key.Spec, value, a.now())
	return nil
}

// issue lets no key work that is suspended or has expired, and comes back when
// it expires.
func (a apiKeys) issue(_ context.Context, key *v1alpha1.ApiKey) error {
	expiry := key.Spec.ExpiresAt
	switch now := a.now(); {
	case suspended(key.Spec.Suspend):
		return refuse(v1alpha1.ReasonSuspended, "spec.suspend is true: the key is refused.")
	case expired(expiry, now):
		return refuse(v1alpha1.ReasonExpired, "The key expired at %s.", expiry.UTC().Format(time.RFC3339))
	case expiry != nil:
		return wait{after: expiry.Sub(now)}
	}
	return nil
}

func (a apiKeys) cleanup(ctx context.Context, key *v1alpha1.ApiKey) error {
	return a.secrets.remove(ctx, key)
}

func concludeApiKey(_ *v1alpha1.ApiKey, refused *refusal) finding {
	if refused != nil {
		return isFalse(refused.reason, refused.message)
	}
	return isTrue(v1alpha1.ReasonIssued, "The key works.")
}

// digestsOf returns the keys that work: none while the ApiKey is suspended or
// after it has expired.
func digestsOf(spec v1alpha1.ApiKeySpec, value string, now time.Time) []v1alpha1.ApiKeyDigest {
	if suspended(spec.Suspend) || expired(spec.ExpiresAt, now) {
		return nil
	}
	return []v1alpha1.ApiKeyDigest{{
		Prefix:   apikey.Prefix(value),
		SHA256:   apikey.Digest(value),
		NotAfter: spec.ExpiresAt,
	}}
}

// withoutLineEnd drops one line end: a Secret made from a file by an editor or
// by echo has one, which nobody takes for a part of the key.
func withoutLineEnd(value string) string {
	return strings.TrimSuffix(strings.TrimSuffix(value, "\n"), "\r")
}
