package controllers

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/apikey"
)

// This file answers: which keys of an ApiKey work, before, while and after one
// is rotated?
//
// A rotation is two writes, in this order:
//
//  1. The Secret gets a new key, but only while status, as the API server has
//     it, names the one that is there (startsRotation), and only in the version
//     that was read.
//  2. Status gets the new digest, the older one with its end, and the request
//     as handled, in one patch (takeKey).
//
// Whoever is killed before 1 has done nothing. Whoever is killed between the
// two leaves a Secret whose key is not the one in status, and a request that is
// not handled: the next pass can't do 1 again, and does 2. The older digest
// was in status all the time, so the older key never stops. The new one works
// from 2 on; it stands in the Secret alone, which is not lost.
//
// A pass over an old copy of the ApiKey, or a second controller, is in one of
// these places too, and its patch of status conflicts.
//
// Where people bring the Secret they do 1; the rest is the same.

// rotationDelay is the wait before a rotation whose key was not in status yet.
const rotationDelay = 100 * time.Millisecond

// rotationAsked tells whether the annotation has a value whose key does not
// work yet.
func rotationAsked(key *v1alpha1.ApiKey) bool {
	return isNew(key.RequestedRotation(), key.Status.LastHandledRotation)
}

// isNew tells whether an annotation's value asks for something, given the value
// that was handled last.
func isNew(request, handled string) bool { return request != "" && request != handled }

// startsRotation tells whether a new key is to be generated into the Secret.
// The key's status is as it was read: nothing that this pass found is in it. A
// key that is suspended or has expired is not in status, so its request waits.
func startsRotation(key *v1alpha1.ApiKey, found held, now time.Time) bool {
	return found.generated && rotationAsked(key) && isUsable(key, now) &&
		len(key.Status.Keys) > 0 && key.Status.Keys[0].SHA256 == apikey.Digest(withoutLineEnd(found.value))
}

// takeFirstRequest notes as handled what the ApiKey was made, or restored, with: that
// asks for nothing, because the key is new, be it one that can't be taken yet.
func takeFirstRequest(key *v1alpha1.ApiKey) {
	if key.Status.ObservedGeneration == 0 && len(key.Status.Keys) == 0 {
		key.Status.LastHandledRotation = key.RequestedRotation()
	}
}

// takeKey puts the Secret's key into status, and decides what becomes of those
// before it: the one that a rotation replaces works for the overlap; one that
// is replaced without a request is dropped, and so is any before it, because
// that is how a key that has leaked is stopped.
func takeKey(key *v1alpha1.ApiKey, value string, now time.Time) {
	status := &key.Status
	if !isUsable(key, now) {
		status.Keys = nil
		return
	}
	keys := []v1alpha1.ApiKeyDigest{{
		Prefix: apikey.Prefix(value), SHA256: apikey.Digest(value), NotAfter: inSeconds(key.Spec.ExpiresAt),
	}}
	switch {
	case len(status.Keys) == 0:
	case status.Keys[0].SHA256 == keys[0].SHA256:
		keys = appendUntil(keys, status.Keys[1:], key.Spec.ExpiresAt, now)
	case rotationAsked(key):
		status.LastHandledRotation = key.RequestedRotation()
		older := status.Keys[0]
		older.NotAfter = &metav1.Time{Time: now.Add(key.Overlap())}
		keys = appendUntil(keys, []v1alpha1.ApiKeyDigest{older}, key.Spec.ExpiresAt, now)
	}
	status.Keys = keys
}

// appendUntil appends the older keys that have not ended. None outlives the
// ApiKey's expiry.
func appendUntil(keys, older []v1alpha1.ApiKeyDigest, expiry *metav1.Time, now time.Time) []v1alpha1.ApiKeyDigest {
	for _, digest := range older {
		if expiry != nil && (digest.NotAfter == nil || expiry.Before(digest.NotAfter)) {
			digest.NotAfter = expiry
		}
		digest.NotAfter = inSeconds(digest.NotAfter)
		if !expired(digest.NotAfter, now) {
			keys = append(keys, digest)
		}
	}
	return keys
}

// isUsable tells whether the ApiKey's keys work at all.
func isUsable(key *v1alpha1.ApiKey, now time.Time) bool {
	return !suspended(key.Spec.Suspend) && !expired(key.Spec.ExpiresAt, now)
}

// inSeconds returns a time as the API server keeps it.
func inSeconds(at *metav1.Time) *metav1.Time {
	if at == nil {
		return nil
	}
	return &metav1.Time{Time: at.Truncate(time.Second)}
}
