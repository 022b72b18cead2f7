package ingress

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/apikey"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/kube"
)

// errLookUp: keys and lists can't be read now, because the cache has not been
// filled yet.
var errLookUp = errors.New("look up the api key")

// keyring finds the ApiKey of a presented key, and what it may write to.
type keyring struct {
	objects  client.Reader
	bindings *bindings
	now      func() time.Time
	uses     keyUses
	limits   rateLimits
}

// grant is what a presented key allows.
type grant struct {
	key  *v1alpha1.ApiKey
	list *v1alpha1.ContactList
}

// listKey returns how the store names the list.
func (g grant) listKey() contact.ListKey {
	return contact.ListKey{Namespace: g.list.Namespace, Name: g.list.Name}
}

// decoy is looked at where a key is unknown, so that an unknown key costs the
// same work as an expired one. No key has this digest.
var decoy = v1alpha1.ApiKey{Status: v1alpha1.ApiKeyStatus{
	Keys: []v1alpha1.ApiKeyDigest{{SHA256: strings.Repeat("0", 64)}},
}}

// grant returns what the presented key allows, if that covers the scope.
// Unknown, expired and suspended keys are one and the same error. A key that
// works is counted as used, and against its rate, whatever becomes of the call.
func (k *keyring) grant(ctx context.Context, presented string, scope v1alpha1.ApiKeyScope) (grant, error) {
	digest := apikey.Digest(presented)
	var found v1alpha1.ApiKeyList
	// The objects are the cache's own and only read here: a copy of what was
	// found would take time that an unknown key does not.
	err := k.objects.List(ctx, &found, client.MatchingFields{kube.DigestField: digest}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return grant{}, fmt.Errorf("%w: %w", errLookUp, err)
	}
	if len(found.Items) == 0 {
		found.Items = append(found.Items, decoy)
	}
	key := k.pick(found.Items, digest)
	if key == nil {
		return grant{}, errUnknownKey
	}
	now := k.now()
	k.uses.note(key, now)
	if err := k.limits.take(key, now); err != nil {
		return grant{}, err
	}
	if !slices.Contains(key.Spec.Scopes, scope) {
		return grant{}, noScope(scope)
	}
	list, err := k.list(ctx, key, scope)
	return grant{key: key, list: list}, err
}

// pick returns the key that works, or nil. Of several with the same digest the
// oldest counts: a copy made later can't turn a form's contacts to another list.
func (k *keyring) pick(keys []v1alpha1.ApiKey, digest string) *v1alpha1.ApiKey {
	now := k.now()
	var picked *v1alpha1.ApiKey
	for i := range keys {
		if works(&keys[i], digest, now) && (picked == nil || compareAge(&keys[i], picked) < 0) {
			picked = &keys[i]
		}
	}
	return picked
}

func compareAge(a, b *v1alpha1.ApiKey) int {
	if order := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); order != 0 {
		return order
	}
	return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
}

// works tells whether the digest is one of the key's and valid now. It looks at
// everything before it decides, so that the reason can't be told by the time.
func works(key *v1alpha1.ApiKey, digest string, now time.Time) bool {
	matches := 0
	for _, candidate := range key.Status.Keys {
		same := subtle.ConstantTimeCompare([]byte(candidate.SHA256), []byte(digest))
		matches |= same & bit(isBefore(now, candidate.NotAfter))
	}
	exists := bit(key.DeletionTimestamp == nil)
	wanted := bit(key.Spec.Suspend == nil || !*key.Spec.Suspend)
	return matches&exists&wanted&bit(isBefore(now, key.Spec.ExpiresAt)) == 1
}

func bit(condition bool) int {
	if condition {
		return 1
	}
	return 0
}

// isBefore tells whether the end has not come yet; nil never comes.
func isBefore(now time.Time, end *metav1.Time) bool {
	return end == nil || now.Before(end.Time)
}

// list returns the list that a key writes to.
func (k *keyring) list(ctx context.Context, key *v1alpha1.ApiKey, scope v1alpha1.ApiKeyScope) (*v1alpha1.ContactList, error) {
	list := &v1alpha1.ContactList{}
	name := client.ObjectKey{Namespace: key.Namespace, Name: key.Spec.ListRef.Name}
	err := k.objects.Get(ctx, name, list, client.UnsafeDisableDeepCopy)
	switch {
	case apierrors.IsNotFound(err):
		return nil, listGone(scope)
	case err != nil:
		return nil, fmt.Errorf("%w: read its contact list: %w", errLookUp, err)
	case list.DeletionTimestamp != nil:
		return nil, listGone(scope)
	}
	return list, k.bindings.check(ctx, list)
}
