package command

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/kube"
)

var (
	group    = v1alpha1.GroupVersion.Group
	kind     = v1alpha1.GroupVersion.WithKind("WebhookSubscription")
	resource = schema.GroupResource{Group: group, Resource: "webhooksubscriptions"}
)

// fieldManager is who the API server notes as the annotations' writer.
const fieldManager = "postbus"

// watchPause is the wait before a watch that was cut off is begun again.
const watchPause = time.Second

// target is the WebhookSubscription that a command is about.
type target struct {
	client client.WithWatch
	key    client.ObjectKey
}

// find returns the target. Whether it exists shows when it is used.
func (o *options) find() (*target, error) {
	namespace, err := o.namespace()
	if err != nil {
		return nil, err
	}
	config, err := o.config.ToRESTConfig()
	if err != nil {
		return nil, err
	}
	config.WarningHandler = rest.NewWarningWriter(o.streams.ErrOut, rest.WarningWriterOptions{Deduplicate: true})
	// There is one kind, so nobody has to be asked which there are.
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{v1alpha1.GroupVersion})
	mapper.Add(kind, meta.RESTScopeNamespace)
	made, err := client.NewWithWatch(config, client.Options{Scheme: kube.NewScheme(), Mapper: mapper})
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	return &target{client: made, key: client.ObjectKey{Namespace: namespace, Name: o.subscription}}, nil
}

// String is the name that kubectl prints.
func (t *target) String() string { return "webhooksubscription." + group + "/" + t.key.Name }

func (t *target) get(ctx context.Context) (*v1alpha1.WebhookSubscription, error) {
	subscription := &v1alpha1.WebhookSubscription{}
	err := t.client.Get(ctx, t.key, subscription)
	return subscription, err
}

// annotate sets annotations, and removes those that are nil. It touches nothing
// else.
func (t *target) annotate(ctx context.Context, annotations map[string]*string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
	if err != nil {
		return fmt.Errorf("encode the annotations: %w", err)
	}
	subscription := &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Namespace: t.key.Namespace, Name: t.key.Name}}
	return t.client.Patch(ctx, subscription, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(fieldManager))
}

// look is shown a subscription as it is now, and says whether it has seen enough.
type look func(*v1alpha1.WebhookSubscription) (enough bool, err error)

// follow shows the subscription now and with each change.
func (t *target) follow(ctx context.Context, show look) error {
	for {
		subscription, err := t.get(ctx)
		if err != nil {
			return err
		}
		if enough, err := show(subscription); enough || err != nil {
			return err
		}
		if enough, err := t.watchFrom(ctx, subscription.ResourceVersion, show); enough || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(watchPause):
		}
	}
}

// watchFrom shows the changes after a version until the API server ends the
// watch, as it does now and then.
func (t *target) watchFrom(ctx context.Context, version string, show look) (enough bool, err error) {
	changes, err := t.client.Watch(ctx, &v1alpha1.WebhookSubscriptionList{},
		client.InNamespace(t.key.Namespace), client.MatchingFields{"metadata.name": t.key.Name},
		&client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: version}})
	if err != nil {
		return false, err
	}
	defer changes.Stop()
	for change := range changes.ResultChan() {
		switch subscription, is := change.Object.(*v1alpha1.WebhookSubscription); {
		case change.Type == watch.Error:
			if err := apierrors.FromObject(change.Object); !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
				return false, err
			}
			return false, nil
		case change.Type == watch.Deleted:
			return false, apierrors.NewNotFound(resource, t.key.Name)
		case is:
			if enough, err := show(subscription); enough || err != nil {
				return enough, err
			}
		}
	}
	return false, ctx.Err()
}
