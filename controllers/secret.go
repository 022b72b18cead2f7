package controllers

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/secretowner"
)

// labelsOf labels the Secrets that are generated for an object: by its UID they are
// found without looking at those of thousands of others.
func labelsOf(owner client.Object) client.MatchingLabels {
	return client.MatchingLabels{"app.kubernetes.io/managed-by": "postbus", "postbus.dev/owner": string(owner.GetUID())}
}

// secrets reads and generates Secrets. The cache holds their metadata only, as
// a cluster may have many large ones that are none of our business; a value is
// read from the API server when it is needed, and not kept.
type secrets struct {
	// client reads metadata from the cache and writes to the API server.
	client client.Client
	// reader reads from the API server.
	reader client.Reader
}

// wanted is a Secret that an object needs.
type wanted struct {
	name string
	// key is the data key that holds the value.
	key string
	// generate makes a value when there is no such Secret. Nil where nobody but
	// the user can make one.
	generate func() string
	// previous is the data key that keeps the value before a renewed one. Empty
	// where it is dropped.
	previous string
	// marks are annotations that a Secret gets with each value that is generated.
	marks map[string]string
}

// held is what a Secret holds.
type held struct {
	value string
	// data has all data keys.
	data map[string][]byte
	// marks are the Secret's annotations.
	marks map[string]string
	// version is the Secret's resourceVersion.
	version string
	// generated tells that the Secret was generated for the object that asks.
	generated bool
}

// value returns what a Secret holds; it generates the Secret when there is none
// and that is wanted. Refusals are ReasonSecretTaken and ReasonSecretNotFound.
func (s secrets) value(ctx context.Context, owner client.Object, want wanted) (held, error) {
	secret := &corev1.Secret{}
	err := s.reader.Get(ctx, client.ObjectKey{Namespace: owner.GetNamespace(), Name: want.name}, secret)
	switch {
	case apierrors.IsNotFound(err) && want.generate == nil:
		return held{}, refuse(v1alpha1.ReasonSecretNotFound, "There is no Secret %q in this namespace.", want.name)
	case apierrors.IsNotFound(err):
		if secret, err = s.create(ctx, owner, want); err != nil {
			return held{}, err
		}
	case err != nil:
		return held{}, fmt.Errorf("read Secret %s: %w", want.name, err)
	}
	if other := secretowner.Other(secret, owner.GetUID()); other != nil {
		return held{}, refuse(v1alpha1.ReasonSecretTaken,
			"Secret %q was generated for %s %q: name another one.", want.name, other.Kind, other.Name)
	}
	if _, ok := secret.Data[want.key]; !ok {
		return held{}, refuse(v1alpha1.ReasonSecretNotFound,
			"Secret %q has no data key %q.", want.name, want.key)
	}
	return heldIn(secret, want, metav1.IsControlledBy(secret, owner)), nil
}

func heldIn(secret *corev1.Secret, want wanted, generated bool) held {
	return held{
		value: string(secret.Data[want.key]), data: secret.Data, marks: secret.Annotations,
		version: secret.ResourceVersion, generated: generated,
	}
}

// renew generates another value into a Secret that was generated before and was
// found like this. It conflicts when the Secret has changed since.
func (s secrets) renew(ctx context.Context, owner client.Object, want wanted, found held) (held, error) {
	return s.change(ctx, owner, want, found, func(secret *corev1.Secret) {
		if want.previous != "" {
			secret.Data[want.previous] = []byte(found.value)
		}
		secret.Data[want.key] = []byte(want.generate())
		for mark, value := range want.marks {
			metav1.SetMetaDataAnnotation(&secret.ObjectMeta, mark, value)
		}
	})
}

// dropPrevious removes the value before a renewed one from a Secret that was found
// like this. It conflicts when the Secret has changed since.
func (s secrets) dropPrevious(ctx context.Context, owner client.Object, want wanted, found held) (held, error) {
	return s.change(ctx, owner, want, found, func(secret *corev1.Secret) { delete(secret.Data, want.previous) })
}

func (s secrets) change(ctx context.Context, owner client.Object, want wanted, found held, edit func(*corev1.Secret)) (held, error) {
	before := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: owner.GetNamespace(), Name: want.name, ResourceVersion: found.version, Annotations: found.marks,
		},
		Data: found.data,
	}
	secret := before.DeepCopy()
	edit(secret)
	if err := s.client.Patch(ctx, secret, onlyIfUnchanged(before)); err != nil {
		return held{}, fmt.Errorf("change Secret %s: %w", want.name, err)
	}
	return heldIn(secret, want, true), nil
}

func (s secrets) create(ctx context.Context, owner client.Object, want wanted) (*corev1.Secret, error) {
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: owner.GetNamespace(), Name: want.name, Labels: labelsOf(owner), Annotations: want.marks},
		Type:       corev1.SecretTypeOpaque,
		Data:       map[string][]byte{want.key: []byte(want.generate())},
	}
	if err := controllerutil.SetControllerReference(owner, secret, s.client.Scheme()); err != nil {
		return nil, fmt.Errorf("own Secret %s: %w", want.name, err)
	}
	if err := s.client.Create(ctx, secret); err != nil {
		return nil, fmt.Errorf("create Secret %s: %w", want.name, err)
	}
	return secret, nil
}

// remove deletes the Secrets that were generated for an object. The garbage
// collector would do that too, but not every control plane runs one. The list
// is the API server's, since the cache may not have a new Secret yet.
func (s secrets) remove(ctx context.Context, owner client.Object) error {
	found := &metav1.PartialObjectMetadataList{}
	found.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("SecretList"))
	if err := s.reader.List(ctx, found, client.InNamespace(owner.GetNamespace()), labelsOf(owner)); err != nil {
		return fmt.Errorf("list generated Secrets: %w", err)
	}
	for i := range found.Items {
		secret := &found.Items[i]
		if !metav1.IsControlledBy(secret, owner) {
			continue
		}
		err := s.client.Delete(ctx, secret, client.Preconditions{UID: &secret.UID})
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete Secret %s: %w", secret.Name, err)
		}
	}
	return nil
}
