package controllers

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"postbus.dev/postbus/api/v1alpha1"
)

// step checks or brings about one thing of an object and records what it found
// in the object's status, in memory. It returns nil, a refusal, a wait, or an
// error to try again for.
type step[T client.Object] func(ctx context.Context, object T) error

// loop makes objects of one kind true. It knows no rule of any kind.
type loop[T client.Object] struct {
	client   client.Client
	recorder events.EventRecorder
	// empty returns an object to read into.
	empty func() T
	// steps run in order; the first error stops.
	steps []step[T]
	// conclude says what Ready is, given the status that the steps left and the
	// refusal that stopped them, if one did. It may set facts of its own.
	conclude func(object T, refused *refusal) finding
	// tell sends events of the kind's own about what a pass changed. May be nil.
	tell func(before, object T)
	// cleanup removes what must not outlive the object. Without it the kind has
	// no finalizer.
	cleanup func(ctx context.Context, object T) error
	// leaves tells of an object that there will be something to clean up after, which
	// needs a finalizer. Nil: of all.
	leaves func(object T) bool
	// gone is told of an object that does not exist. May be nil.
	gone func(name client.ObjectKey)
}

// Reconcile makes one object true.
func (l *loop[T]) Reconcile(ctx context.Context, request reconcile.Request) (result reconcile.Result, err error) {
	object := l.empty()
	if err := l.client.Get(ctx, request.NamespacedName, object); err != nil {
		if apierrors.IsNotFound(err) && l.gone != nil {
			l.gone(request.NamespacedName)
		}
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if !object.GetDeletionTimestamp().IsZero() {
		return outcome(l.remove(ctx, object))
	}
	if err := l.addFinalizer(ctx, object); err != nil {
		return outcome(err)
	}
	before := object.DeepCopyObject().(T)
	defer func() { result, err = l.finish(ctx, before, object, err) }()
	for _, run := range l.steps {
		if err := run(ctx, object); err != nil {
			return reconcile.Result{}, err
		}
	}
	return reconcile.Result{}, nil
}

func (l *loop[T]) addFinalizer(ctx context.Context, object T) error {
	before := object.DeepCopyObject().(T)
	if l.cleanup == nil || l.leaves != nil && !l.leaves(object) || !controllerutil.AddFinalizer(object, v1alpha1.Finalizer) {
		return nil
	}
	return l.client.Patch(ctx, object, onlyIfUnchanged(before))
}

func (l *loop[T]) remove(ctx context.Context, object T) error {
	before := object.DeepCopyObject().(T)
	if !controllerutil.RemoveFinalizer(object, v1alpha1.Finalizer) {
		return nil
	}
	if err := l.cleanup(ctx, before); err != nil {
		return err
	}
	return client.IgnoreNotFound(l.client.Patch(ctx, object, onlyIfUnchanged(before)))
}

// live reads what the API server itself has under an object's name; it is left without a
// UID where there is nothing. What the store keeps is found by name, and the cache of a
// controller that has just begun to act may be old: whoever makes or removes what is in
// the store looks first, as the object may have been made anew under its name.
func live(ctx context.Context, reader client.Reader, object, into client.Object) error {
	if err := client.IgnoreNotFound(reader.Get(ctx, client.ObjectKeyFromObject(object), into)); err != nil {
		return fmt.Errorf("read the object from the API server: %w", err)
	}
	return nil
}

// onlyIfUnchanged patches what differs from before, and conflicts when before
// is out of date: finalizers and conditions are lists, which a merge patch
// replaces as a whole.
func onlyIfUnchanged(before client.Object) client.Patch {
	return client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
}
