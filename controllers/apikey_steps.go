package controllers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/apikey"
)

// accept owns the condition Accepted and status.keys. The key comes before the
// list, so that a caller whose list is gone is told that, and not that its key
// is unknown; it ends in its time then too.
func (a apiKeys) accept(ctx context.Context, key *v1alpha1.ApiKey) error {
	again, err := a.readKey(ctx, key)
	if err == nil {
		list := client.ObjectKey{Namespace: key.Namespace, Name: key.Spec.ListRef.Name}
		err = checkList(ctx, a.client, list, "spec.listRef")
	}
	err = record(key, v1alpha1.ConditionAccepted, err,
		isTrue(v1alpha1.ReasonValid, "The list exists and the Secret holds a key."))
	switch {
	case refusalIn(err) != nil:
		return errors.Join(err, waitForEnd(key, a.now()))
	case err != nil:
		return err
	}
	return again
}

// readKey puts the digest of the Secret's key into status, and takes it out
// when the Secret can't be used any more. A rotation that was asked for begins
// here; again is a wait when that needs another pass.
func (a apiKeys) readKey(ctx context.Context, key *v1alpha1.ApiKey) (again, err error) {
	want := wanted{name: key.SecretName(), key: apikey.SecretKey, generate: apikey.Generate}
	found, err := a.secrets.value(ctx, key, want)
	if err == nil && startsRotation(key, found, a.now()) {
		found, err = a.secrets.renew(ctx, key, want, found)
	}
	value := withoutLineEnd(found.value)
	if err == nil {
		if weak := apikey.Check(value); weak != nil {
			err = refuse(v1alpha1.ReasonKeyTooWeak, "Secret %q: %s.", want.name, weak)
		}
	}
	if failed(err) {
		return nil, err
	}
	takeFirstRequest(key)
	if err != nil {
		key.Status.Keys = nil
		return nil, err
	}
	takeKey(key, value, a.now())
	if found.generated && rotationAsked(key) && len(key.Status.Keys) > 0 {
		again = wait{after: rotationDelay}
	}
	return again, nil
}

// issue lets no key work that is suspended or has expired, and comes back when
// the next of its keys ends or is about to.
func (a apiKeys) issue(ctx context.Context, key *v1alpha1.ApiKey) error {
	expiry := key.Spec.ExpiresAt
	switch now := a.now(); {
	case suspended(key.Spec.Suspend):
		return refuse(v1alpha1.ReasonSuspended, "spec.suspend is true: the key is refused.")
	case expired(expiry, now):
		return refuse(v1alpha1.ReasonExpired, "The key expired at %s.", timeText(*expiry))
	default:
		if err := a.warnOfExpiry(ctx, key); err != nil {
			return err
		}
		return waitForEnd(key, now)
	}
}

func (a apiKeys) cleanup(ctx context.Context, key *v1alpha1.ApiKey) error {
	return errors.Join(a.secrets.remove(ctx, key), a.store.ForgetKey(ctx, keyName(key)))
}

func (a apiKeys) conclude(key *v1alpha1.ApiKey, refused *refusal) finding {
	if refused != nil {
		return isFalse(refused.reason, refused.message)
	}
	reason := v1alpha1.ReasonIssued
	sentences := []string{"The key works."}
	if len(key.Status.Keys) > 1 {
		reason = v1alpha1.ReasonRotating
		sentences = []string{fmt.Sprintf("The new key works, and the older one until %s.", timeText(*key.Status.Keys[1].NotAfter))}
	}
	if rotationAsked(key) {
		sentences = append(sentences, fmt.Sprintf("Rotation waits for a new key in Secret %q: whoever keeps that Secret must put it there. "+
			"The present one then works for another %s.", key.SecretName(), key.Overlap()))
	}
	if warned := key.Status.WarnedExpiry; warned != nil {
		sentences = append(sentences, fmt.Sprintf("It expires soon, at %s.", timeText(*warned)))
	}
	return isTrue(reason, strings.Join(sentences, " "))
}

// waitForEnd returns the wait until the older key ends, the expiry is to be
// warned of, or the key expires; nil when nothing of that will be.
func waitForEnd(key *v1alpha1.ApiKey, now time.Time) error {
	var ends []time.Time
	for _, digest := range key.Status.Keys {
		if digest.NotAfter != nil {
			ends = append(ends, digest.NotAfter.Time)
		}
	}
	if expiry := key.Spec.ExpiresAt; expiry != nil {
		ends = append(ends, expiry.Time, warnFrom(key))
	}
	var next error
	shortest := time.Duration(0)
	for _, end := range ends {
		if after := end.Sub(now); after > 0 && (next == nil || after < shortest) {
			shortest, next = after, wait{after: after}
		}
	}
	return next
}

// withoutLineEnd drops one line end: a Secret made from a file by an editor or
// by echo has one, which nobody takes for a part of the key.
func withoutLineEnd(value string) string {
	return strings.TrimSuffix(strings.TrimSuffix(value, "\n"), "\r")
}
