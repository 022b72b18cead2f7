package controllers

import (
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/mailpolicy"
)

// +kubebuilder:rbac:groups=postbus.dev,resources=contactlists,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=postbus.dev,resources=contactlists/status,verbs=patch
// +kubebuilder:rbac:groups=postbus.dev,resources=contactlists/finalizers,verbs=update
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=get;list;watch

// contactLists makes ContactLists true: their contacts are counted, and the
// templates that they name are checked and published. A list takes contacts as soon as it
// is bound to its namespace, whatever is wrong with its templates. Contacts outlive it,
// unless its policy says otherwise.
type contactLists struct {
	platform
	// reader reads from the API server: ConfigMaps, of which the cache has the metadata
	// only, as it is with Secrets, and lists whose contacts are to be removed.
	reader     client.Reader
	store      ListStore
	namespaces namespaces
	operations OperationRaiser
	inspected  *verdicts
	// mail says which senders mailings may have.
	mail mailpolicy.Policy
}

func (c contactLists) loop() *loop[*v1alpha1.ContactList] {
	return &loop[*v1alpha1.ContactList]{
		client:   c.client,
		recorder: c.recorder,
		empty:    func() *v1alpha1.ContactList { return &v1alpha1.ContactList{} },
		steps:    []step[*v1alpha1.ContactList]{c.bind, c.count, c.publish},
		leaves:   deletesContacts,
		cleanup:  c.cleanup,
		gone:     c.inspected.forget,
		conclude: func(_ *v1alpha1.ContactList, refused *refusal) finding {
			if refused != nil {
				return isFalse(refused.reason, refused.message)
			}
			return isTrue(v1alpha1.ReasonValid, "The list takes contacts.")
		},
	}
}

// watch has the loop run when a list's spec or a ConfigMap that it names
// changes, and when its contacts may have changed.
func (c contactLists) watch(m manager.Manager, contactsChanged changes) error {
	return builder.ControllerManagedBy(m).
		For(&v1alpha1.ContactList{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesMetadata(&corev1.ConfigMap{}, referrers(c.client, &v1alpha1.ContactListList{}, configMapField)).
		WatchesRawSource(source.Channel(contactsChanged, &handler.EnqueueRequestForObject{})).
		Complete(c.loop())
}
