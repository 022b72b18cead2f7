package controllers

import (
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/guard"
	"postbus.dev/postbus/internal/mailpolicy"
)

// +kubebuilder:rbac:groups=postbus.dev,resources=webhooksubscriptions,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=postbus.dev,resources=webhooksubscriptions/status,verbs=patch
// +kubebuilder:rbac:groups=postbus.dev,resources=webhooksubscriptions/finalizers,verbs=update
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch;create;patch;delete

// subscriptionWorkers is how many subscriptions are looked at at once, so that
// the status of thousands whose callbacks fail together is soon written.
const subscriptionWorkers = 8

// webhookSubscriptions makes WebhookSubscriptions true: the Secrets that they
// need exist, the store has a row that the dispatcher delivers from, and status
// tells what became of it.
type webhookSubscriptions struct {
	platform
	secrets    secrets
	store      DeliveryKeeper
	namespaces namespaces
	// guard says where callbacks may point.
	guard guard.Policies
	// mail says which addresses notices may go to.
	mail mailpolicy.Policy
}

func (w webhookSubscriptions) loop() *loop[*v1alpha1.WebhookSubscription] {
	return &loop[*v1alpha1.WebhookSubscription]{
		client:   w.client,
		recorder: w.recorder,
		empty:    func() *v1alpha1.WebhookSubscription { return &v1alpha1.WebhookSubscription{} },
		steps:    []step[*v1alpha1.WebhookSubscription]{w.bind, w.mirror, w.accept, w.awaitOverlap},
		conclude: concludeSubscription,
		tell:     w.tell,
		cleanup:  w.cleanup,
	}
}

// watch has the loop run when a subscription's spec, annotations, Secrets, lists
// or row in the store change.
func (w webhookSubscriptions) watch(m manager.Manager, deliveriesChanged changes) error {
	return builder.ControllerManagedBy(m).
		For(&v1alpha1.WebhookSubscription{}, builder.WithPredicates(
			predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}))).
		Watches(&v1alpha1.ContactList{}, referrers(w.client, &v1alpha1.WebhookSubscriptionList{}, listField),
			builder.WithPredicates(comesOrGoes)).
		WatchesMetadata(&corev1.Secret{}, referrers(w.client, &v1alpha1.WebhookSubscriptionList{}, secretField)).
		WatchesRawSource(source.Channel(deliveriesChanged, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: subscriptionWorkers}).
		Complete(w.loop())
}
