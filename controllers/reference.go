package controllers

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"postbus.dev/postbus/api/v1alpha1"
)

// The cache indexes that lead from an object to those that name it.
const (
	listField      = "postbus.listNames"
	secretField    = "postbus.secretName"
	configMapField = "postbus.configMapNames"
)

// indexReferences makes the indexes. It is called before the cache starts.
func indexReferences(ctx context.Context, indexer client.FieldIndexer) error {
	for _, index := range []struct {
		object  client.Object
		field   string
		extract client.IndexerFunc
	}{
		{&v1alpha1.ContactList{}, configMapField, func(object client.Object) []string {
			return configMapsOf(object.(*v1alpha1.ContactList))
		}},
		{&v1alpha1.ApiKey{}, listField, func(object client.Object) []string {
			return []string{object.(*v1alpha1.ApiKey).Spec.ListRef.Name}
		}},
		{&v1alpha1.ApiKey{}, secretField, func(object client.Object) []string {
			return []string{object.(*v1alpha1.ApiKey).SecretName()}
		}},
		{&v1alpha1.WebhookSubscription{}, listField, func(object client.Object) []string {
			return object.(*v1alpha1.WebhookSubscription).Spec.Lists
		}},
		{&v1alpha1.WebhookSubscription{}, secretField, func(object client.Object) []string {
			return object.(*v1alpha1.WebhookSubscription).SecretNames()
		}},
	} {
		if err := indexer.IndexField(ctx, index.object, index.field, index.extract); err != nil {
			return fmt.Errorf("index %T by %s: %w", index.object, index.field, err)
		}
	}
	return nil
}

// referrers enqueues the objects, of the kind of list, that name the changed
// object in an indexed field.
func referrers(reader client.Reader, list client.ObjectList, field string) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, changed client.Object) []reconcile.Request {
		found := list.DeepCopyObject().(client.ObjectList)
		err := reader.List(ctx, found,
			client.InNamespace(changed.GetNamespace()), client.MatchingFields{field: changed.GetName()})
		if err != nil {
			log.FromContext(ctx).Error(err, "List the objects that name a changed one", "name", changed.GetName())
			return nil
		}
		return requestsFor(found)
	})
}

func requestsFor(list client.ObjectList) []reconcile.Request {
	var requests []reconcile.Request
	_ = meta.EachListItem(list, func(item runtime.Object) error {
		object := item.(client.Object)
		requests = append(requests, reconcile.Request{
			NamespacedName: types.NamespacedName{Namespace: object.GetNamespace(), Name: object.GetName()},
		})
		return nil
	})
	return requests
}

// comesOrGoes passes what changes whether an object exists.
var comesOrGoes = predicate.Funcs{
	UpdateFunc: func(update event.UpdateEvent) bool {
		return update.ObjectOld.GetUID() != update.ObjectNew.GetUID()
	},
}

// versionOf returns the resourceVersion of a Secret or a ConfigMap, empty when
// there is none. Reader is the cache, which has the metadata of both kinds only.
func versionOf(ctx context.Context, reader client.Reader, kind string, name client.ObjectKey) (string, error) {
	found := &metav1.PartialObjectMetadata{}
	found.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind))
	err := reader.Get(ctx, name, found)
	if client.IgnoreNotFound(err) != nil {
		return "", fmt.Errorf("read metadata of %s %s: %w", kind, name.Name, err)
	}
	return found.ResourceVersion, nil
}

// nameOnly strips the metadata of Secrets and ConfigMaps for the cache down to
// name and version, which is all that is read there: an annotation of kubectl
// apply holds the whole Secret.
func nameOnly(object any) (any, error) {
	stripped, ok := object.(metav1.Object)
	if !ok {
		return object, nil // the mark of a deletion that was missed
	}
	stripped.SetAnnotations(nil)
	stripped.SetLabels(nil)
	stripped.SetManagedFields(nil)
	stripped.SetOwnerReferences(nil)
	return object, nil
}

// checkList refuses an object that names a ContactList, in this field of its
// spec, that does not exist in the namespace.
func checkList(ctx context.Context, reader client.Reader, list client.ObjectKey, field string) error {
	err := reader.Get(ctx, list, &v1alpha1.ContactList{})
	switch {
	case apierrors.IsNotFound(err):
		return refuse(v1alpha1.ReasonListNotFound, "%s: there is no ContactList %q in this namespace.", field, list.Name)
	case err != nil:
		return fmt.Errorf("read ContactList %s: %w", list.Name, err)
	}
	return nil
}
