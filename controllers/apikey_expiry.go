package controllers

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// An expiry is warned of when this part of the key's lifetime is left, and at
// most so long before. The part is for keys that live for days only.
const (
	warnPart    = 10
	warnAtMost  = 14 * 24 * time.Hour
	expiryEvent = "The key expires at %s. Set spec.expiresAt to a later time to keep it working."
)

// warnFrom returns when the expiry of a key that expires is to be warned of.
func warnFrom(key *v1alpha1.ApiKey) time.Time {
	expiry := key.Spec.ExpiresAt.Time
	return expiry.Add(-min(expiry.Sub(key.CreationTimestamp.Time)/warnPart, warnAtMost))
}

// onceFor is how long after an expiry the store knows that it was warned of.
const onceFor = 24 * time.Hour

// warnOfExpiry owns status.warnedExpiry, and raises the operational event of an
// expiry that is to be warned of. It does so before status says it, and the store
// takes each once: so none is left out, whatever ends in between.
func (a apiKeys) warnOfExpiry(ctx context.Context, key *v1alpha1.ApiKey) error {
	told, now := key.Status.WarnedExpiry, a.now()
	noteExpiry(key, now)
	warned := key.Status.WarnedExpiry
	if warned == nil || warned.Equal(told) {
		return nil
	}
	name := fmt.Sprintf("%s/%s/%s", contact.EventKeyExpiring, key.UID, timeText(*warned))
	once := store.Once{Key: name, Now: now, Until: warned.Add(onceFor)}
	err := a.operations.RaiseOnce(ctx, once, contact.Event{
		List: contact.ListKey{Namespace: key.Namespace}, Type: contact.EventKeyExpiring, Time: now,
		Operation: &contact.Operation{Kind: "ApiKey", Name: key.Name, ExpiresAt: warned.Time},
	})
	if err != nil {
		key.Status.WarnedExpiry = told
		return fmt.Errorf("tell that the key expires: %w", err)
	}
	return nil
}

// noteExpiry notes an expiry that is to be warned of.
func noteExpiry(key *v1alpha1.ApiKey, now time.Time) {
	key.Status.WarnedExpiry = nil
	if key.Spec.ExpiresAt != nil && !now.Before(warnFrom(key)) {
		key.Status.WarnedExpiry = inSeconds(key.Spec.ExpiresAt)
	}
}

// tellExpiry sends an event when an expiry is to be warned of that was not
// before.
func (a apiKeys) tellExpiry(before, key *v1alpha1.ApiKey) {
	warned := key.Status.WarnedExpiry
	if warned == nil || warned.Equal(before.Status.WarnedExpiry) {
		return
	}
	a.recorder.Eventf(key, nil, corev1.EventTypeWarning, v1alpha1.ReasonExpiring, eventAction, expiryEvent, timeText(*warned))
}

func timeText(at metav1.Time) string { return at.UTC().Format(time.RFC3339) }
