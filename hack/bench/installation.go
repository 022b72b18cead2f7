package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/hack/devenv/process"
	"postbus.dev/postbus/internal/apikey"
)

// listName is the list that contacts are posted to, and keyName its key.
const (
	listName = "newsletter"
	keyName  = "bench"
)

// installation is Postbus in one process, over a store of its own, with a list.
type installation struct {
	plane     *plane
	namespace string
	store     storePlace
	process   *process.Process
	// ingress and metrics are its URLs.
	ingress, metrics string
	key              string
}

func (p *plane) install(ctx context.Context, e engine) (_ *installation, err error) {
	i := &installation{plane: p, namespace: p.nextNamespace()}
	if i.store, err = p.newStore(ctx, e, "postbus"); err != nil {
		return nil, err
	}
	if err := i.start(ctx); err != nil {
		return nil, errors.Join(err, i.close())
	}
	return i, nil
}

func (i *installation) start(ctx context.Context) error {
	ingress, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	metrics, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	i.ingress, i.metrics = "http://"+ingress, "http://"+metrics
	i.process, err = i.plane.run(ctx, process.Command{
		Name: i.namespace, Path: i.plane.postbus,
		Args: []string{
			"standalone", "--kubeconfig=" + i.plane.kubeconfig(), i.store.flag(),
			"--ingress-address=" + ingress, "--metrics-address=" + metrics, "--lease-namespace=default",
			"--profiling", "--allow-plain-http", "--allow-http-callbacks", "--allow-callback-networks=127.0.0.0/8",
		},
	}, i.ingress+"/readyz")
	if err != nil {
		return err
	}
	return i.declare(ctx)
}

// declare applies a list and its key, and returns once both are ready.
func (i *installation) declare(ctx context.Context) error {
	i.key = apikey.Generate()
	list := &v1alpha1.ContactList{ObjectMeta: i.named(listName)}
	key := &v1alpha1.ApiKey{ObjectMeta: i.named(keyName), Spec: v1alpha1.ApiKeySpec{
		ListRef: v1alpha1.ListReference{Name: listName}, Scopes: []v1alpha1.ApiKeyScope{v1alpha1.ScopeContactsWrite},
	}}
	for _, object := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: i.namespace}},
		&corev1.Secret{ObjectMeta: i.named(keyName), StringData: map[string]string{apikey.SecretKey: i.key}},
		list, key,
	} {
		if err := i.plane.client.Create(ctx, object); err != nil {
			return fmt.Errorf("create %T %s: %w", object, object.GetName(), err)
		}
	}
	return i.await(ctx, key, func() bool { return meta.IsStatusConditionTrue(key.Status.Conditions, v1alpha1.ConditionReady) })
}

func (i *installation) named(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: i.namespace, Name: name}
}

// await returns once an object, read again and again, is as it should be.
func (i *installation) await(ctx context.Context, object client.Object, fits func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		if err := i.plane.client.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
			return fmt.Errorf("read %T %s: %w", object, object.GetName(), err)
		}
		if fits() {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%T %s does not become ready: %w", object, object.GetName(), ctx.Err())
		}
	}
}

// close removes everything: subscriptions and keys while there is a controller that
// lets them go.
func (i *installation) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), startPatience)
	defer cancel()
	var errs []error
	for _, kind := range []client.Object{&v1alpha1.WebhookSubscription{}, &v1alpha1.ApiKey{}, &v1alpha1.ContactList{}} {
		errs = append(errs, i.plane.client.DeleteAllOf(ctx, kind, client.InNamespace(i.namespace)))
	}
	errs = append(errs, i.awaitNoSubscriptions(ctx))
	if i.process != nil {
		errs = append(errs, i.process.Stop(stopPatience))
	}
	return errors.Join(errs...)
}

func (i *installation) awaitNoSubscriptions(ctx context.Context) error {
	for {
		var left v1alpha1.WebhookSubscriptionList
		if err := i.plane.client.List(ctx, &left, client.InNamespace(i.namespace)); err != nil || len(left.Items) == 0 {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%d subscriptions are not removed: %w", len(left.Items), ctx.Err())
		}
	}
}
