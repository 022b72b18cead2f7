package controllers

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
)

// +kubebuilder:rbac:groups=postbus.dev,resources=contactlists,verbs=get;list;watch
// +kubebuilder:rbac:groups=postbus.dev,resources=contactlists/status,verbs=patch

// contactLists makes ContactLists true. A list is true as soon as the API
// server took it; what is left is to count its contacts.
type contactLists struct {
	platform
	store ContactCounter
}

func (c contactLists) loop() *loop[*v1alpha1.ContactList] {
	return &loop[*v1alpha1.ContactList]{
		client:   c.client,
		recorder: c.recorder,
		empty:    func() *v1alpha1.ContactList { return &v1alpha1.ContactList{} },
		steps:    []step[*v1alpha1.ContactList]{c.count},
		conclude: func(*v1alpha1.ContactList, *refusal) finding {
			return isTrue(v1alpha1.ReasonValid, "The list takes contacts.")
		},
	}
}

// watch has the loop run when a list's spec changes, and when its contacts may
// have changed.
func (c contactLists) watch(m manager.Manager, contactsChanged changes) error {
	return builder.ControllerManagedBy(m).
		For(&v1alpha1.ContactList{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesRawSource(source.Channel(contactsChanged, &handler.EnqueueRequestForObject{})).
		Complete(c.loop())
}

// count counts the list's contacts.
func (c contactLists) count(ctx context.Context, list *v1alpha1.ContactList) error {
	counts, err := c.store.Count(ctx, contact.ListKey{Namespace: list.Namespace, Name: list.Name})
	if err != nil {
		return fmt.Errorf("count contacts: %w", err)
	}
	list.Status.Contacts = &counts.Contacts
	list.Status.Subscribed = &counts.Subscribed
	return nil
}
