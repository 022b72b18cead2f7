package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/singleflight"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get

// decisionInterval is how often a Namespace is read while an annotation on it must decide
// about the data of an earlier one. Namespaces are not watched, which would need the right
// to list them all.
const decisionInterval = 10 * time.Second

// NamespaceStore binds the store's data of namespaces to Namespace objects.
type NamespaceStore interface {
	// LoadNamespace returns the binding of a namespace, which is zero while there is none.
	LoadNamespace(ctx context.Context, name string) (store.Namespace, error)
	// AdoptNamespace binds a namespace to another UID and keeps its data.
	AdoptNamespace(ctx context.Context, name, from, to string) error
	// RenewNamespace binds a namespace to another UID and keeps none of its data.
	RenewNamespace(ctx context.Context, name, from, to string) error
	// BindObject notes that an object may use its namespace's data.
	BindObject(ctx context.Context, namespace, namespaceUID, object string) error
	// ReleaseObject revokes that.
	ReleaseObject(ctx context.Context, object string) error
	// IsBound reports whether an object may use its namespace's data.
	IsBound(ctx context.Context, object string) (bool, error)
	// RemoveEvents removes events of a list, or of a namespace, from the log.
	RemoveEvents(ctx context.Context, list contact.ListKey, limit int) (removed int, err error)
}

// namespaceData is what the store holds of a namespace.
type namespaceData interface {
	NamespaceStore
	ContactCounts
	ContactRemover
	DeliveryChanges
	// DropDelivery removes a subscription's delivery, if there is one.
	DropDelivery(ctx context.Context, key store.SubscriptionKey) error
}

// namespaces binds the store's data of each namespace to the Namespace object. A
// Namespace that is made under the name of an earlier one gets none of its data, unless
// an annotation on the Namespace says so: authors of our objects can't change it.
type namespaces struct {
	// reader reads from the API server.
	reader client.Reader
	store  namespaceData
	// flights has one decision about a namespace at a time, so that no removal of an
	// earlier Namespace's data runs into the data of the present one.
	flights *singleflight.Group
	now     func() time.Time
}

// binding is what a decision about a namespace found. One of the two is set.
type binding struct{ uid, former string }

// bind binds an object to its namespace and sets uid, which is in the object's status, if the store's data of the
// object's namespace belongs to the Namespace that the object is in. Otherwise it sets
// former to the UID of the Namespace that the data belongs to, and returns a refusal. The
// Namespace is read only until an object is bound.
func (n namespaces) bind(ctx context.Context, object client.Object, uid, former *string) error {
	bound, err := n.store.IsBound(ctx, string(object.GetUID()))
	if err != nil {
		return err
	}
	if bound && *uid != "" {
		return nil
	}
	found, err, _ := n.flights.Do(object.GetNamespace(), func() (any, error) { return n.decide(ctx, object.GetNamespace()) })
	if failed(err) {
		return err
	}
	decided := found.(binding)
	if err == nil {
		if err := n.store.BindObject(ctx, object.GetNamespace(), decided.uid, string(object.GetUID())); err != nil {
			return err
		}
	}
	*uid, *former = decided.uid, decided.former
	return err
}

// decide finds out whether the Namespace may use the store's data under its name.
func (n namespaces) decide(ctx context.Context, name string) (binding, error) {
	bound, err := n.store.LoadNamespace(ctx, name)
	if err != nil {
		return binding{}, err
	}
	space := &metav1.PartialObjectMetadata{}
	space.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	if err := n.reader.Get(ctx, client.ObjectKey{Name: name}, space); err != nil {
		return binding{}, fmt.Errorf("read the Namespace: %w", err)
	}
	uid := string(space.UID)
	var waiting wait
	switch err := n.apply(ctx, bound, space); {
	case err == nil:
		return binding{uid: uid}, nil
	case errors.Is(err, store.ErrBound):
		return binding{former: bound.UID}, errors.Join(namespaceReplaced(name, bound.UID), wait{decisionInterval})
	case errors.As(err, &waiting):
		return binding{former: bound.UID}, errors.Join(refuse(v1alpha1.ReasonNamespaceReplaced,
			"The store is being prepared: it holds data of an earlier Namespace %q.", name), waiting)
	default:
		return binding{}, err
	}
}

// apply does what is decided about the data of a namespace.
func (n namespaces) apply(ctx context.Context, bound store.Namespace, space *metav1.PartialObjectMetadata) error {
	uid := string(space.UID)
	switch {
	case bound.UID == uid:
		return nil
	case bound.UID == "" || space.Annotations[v1alpha1.AnnotationAdoptDataOf] == bound.UID:
		return n.store.AdoptNamespace(ctx, bound.Name, bound.UID, uid)
	}
	if left := removalDelay - n.now().Sub(space.CreationTimestamp.Time); left > 0 {
		return wait{left}
	}
	if space.Annotations[v1alpha1.AnnotationRemoveDataOf] == bound.UID {
		return n.replace(ctx, bound.Name, bound.UID, uid)
	}
	return n.store.RenewNamespace(ctx, bound.Name, bound.UID, uid)
}

func namespaceReplaced(name, former string) error {
	return refuse(v1alpha1.ReasonNamespaceReplaced,
		"The store holds contacts or subscriptions of an earlier Namespace %q with the UID %s. "+
			"To continue with them: kubectl annotate namespace %s %s=%s. To remove them: kubectl annotate namespace %s %s=%s.",
		name, former, name, v1alpha1.AnnotationAdoptDataOf, former, name, v1alpha1.AnnotationRemoveDataOf, former)
}

// replace removes the data of an earlier Namespace, a page at a time, and then binds the
// namespace to the present one.
func (n namespaces) replace(ctx context.Context, name, from, to string) error {
	counts, err := n.store.CountAll(ctx)
	if err != nil {
		return err
	}
	for list, count := range counts {
		if list.Namespace != name || count.Contacts == 0 {
			continue
		}
		if err := removeContacts(ctx, n.store, list); err != nil {
			return err
		}
	}
	if err := removeEvents(ctx, n.store, contact.ListKey{Namespace: name}); err != nil {
		return err
	}
	deliveries, err := n.store.DeliveriesSince(ctx, 0)
	if err != nil {
		return err
	}
	for i := range deliveries {
		if deliveries[i].Key.Namespace != name {
			continue
		}
		if err := n.store.DropDelivery(ctx, deliveries[i].Key); err != nil {
			return err
		}
	}
	return n.store.RenewNamespace(ctx, name, from, to)
}

// removeContacts removes contacts of a list, and waits while there are more.
func removeContacts(ctx context.Context, contacts ContactRemover, list contact.ListKey) error {
	page, next, err := contacts.ListContacts(ctx, list, "", removedAtOnce)
	if err != nil {
		return fmt.Errorf("list the contacts to remove: %w", err)
	}
	if len(page) == 0 {
		return nil
	}
	removals := make([]store.Change, len(page))
	for i := range page {
		removals[i] = store.Change{List: list, ContactID: page[i].ID, Apply: contact.EndWithList}
	}
	if _, err := contacts.ChangeAll(ctx, removals); err != nil {
		return fmt.Errorf("remove contacts: %w", err)
	}
	if next != "" {
		return wait{removalPause}
	}
	return nil
}

// removeEvents removes events of a list from the log, and waits while there may be more.
func removeEvents(ctx context.Context, log NamespaceStore, list contact.ListKey) error {
	removed, err := log.RemoveEvents(ctx, list, removedAtOnce)
	if err == nil && removed == removedAtOnce {
		err = wait{removalPause}
	}
	return err
}
