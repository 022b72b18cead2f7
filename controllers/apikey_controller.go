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
)

// +kubebuilder:rbac:groups=postbus.dev,resources=apikeys,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=postbus.dev,resources=apikeys/status,verbs=patch
// +kubebuilder:rbac:groups=postbus.dev,resources=apikeys/finalizers,verbs=update
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch;create;patch;delete

// apiKeys makes ApiKeys true: their Secret exists, and status has its digest.
type apiKeys struct {
	platform
	secrets    secrets
	store      KeyUseKeeper
	operations OperationRaiser
	uses       *keyUses
}

func (a apiKeys) loop() *loop[*v1alpha1.ApiKey] {
	return &loop[*v1alpha1.ApiKey]{
		client:   a.client,
		recorder: a.recorder,
		empty:    func() *v1alpha1.ApiKey { return &v1alpha1.ApiKey{} },
		steps:    []step[*v1alpha1.ApiKey]{a.mirrorUse, a.accept, a.issue},
		conclude: a.conclude,
		tell:     a.tellExpiry,
		cleanup:  a.cleanup,
	}
}

// watch has the loop run when an ApiKey's spec, its annotations, its Secret or
// its list change, and when it was used.
func (a apiKeys) watch(m manager.Manager, used changes) error {
	asked := predicate.Or[client.Object](predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{})
	return builder.ControllerManagedBy(m).
		For(&v1alpha1.ApiKey{}, builder.WithPredicates(asked)).
		Watches(&v1alpha1.ContactList{}, referrers(a.client, &v1alpha1.ApiKeyList{}, listField),
			builder.WithPredicates(comesOrGoes)).
		WatchesMetadata(&corev1.Secret{}, referrers(a.client, &v1alpha1.ApiKeyList{}, secretField)).
		WatchesRawSource(source.Channel(used, &handler.EnqueueRequestForObject{})).
		Complete(a.loop())
}
