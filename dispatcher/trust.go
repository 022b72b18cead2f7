package dispatcher

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
)

// What is in this file keeps the dispatcher from acting on a spec that the controller has not
// checked. An object and its status change in two steps: a user writes a spec, and the controller
// writes what it found. In between, the status is about another generation than the spec.

// trusted has the last version of each object of a kind that the controller found good, as far as
// this process has seen. These are the informer's own objects and are never changed. Its zero value
// is empty.
type trusted[T client.Object] struct {
	byName sync.Map // types.NamespacedName to T
}

// note keeps an object.
func (t *trusted[T]) note(object T) { t.byName.Store(client.ObjectKeyFromObject(object), object) }

// forget drops an object that was deleted.
func (t *trusted[T]) forget(name types.NamespacedName) { t.byName.Delete(name) }

// last returns the version that was kept of an object, and not that of another one which had its
// name before.
func (t *trusted[T]) last(object T) (kept T, has bool) {
	known, has := t.byName.Load(client.ObjectKeyFromObject(object))
	if !has || known.(T).GetUID() != object.GetUID() {
		return kept, false
	}
	return known.(T), true
}

// isCheckedList reports whether the controller has checked a list's spec as it is now. What it
// found wrong with a mailing holds up the mails of that mailing only.
func isCheckedList(list *v1alpha1.ContactList) bool {
	return list.Status.ObservedGeneration == list.Generation
}
