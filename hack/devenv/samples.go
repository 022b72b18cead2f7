package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/hack/devenv/cluster"
	"postbus.dev/postbus/internal/apikey"
)

// The objects of config/samples that the story is about.
var (
	sampleKey          = client.ObjectKey{Namespace: "marketing", Name: "website-form"}
	sampleSubscription = client.ObjectKey{Namespace: "marketing", Name: "crm"}
)

// sampleReceiver is the host that the samples' callbacks name.
const sampleReceiver = "127.0.0.1:9000"

// samplesTimeout bounds how long the controller may take to make them Ready.
// It waits for the lease of a controller that was killed before.
const samplesTimeout = time.Minute

// applySamples applies config/samples, waits until the key and the
// subscription are Ready, and writes the key to the key file.
func (e *environment) applySamples(ctx context.Context) error {
	samples, err := cluster.ReadFolder(filepath.Join(e.settings.config, "samples"))
	if err != nil {
		return err
	}
	for _, sample := range samples {
		if err := errors.Join(retarget(sample, e.settings.called()), unlimit(sample)); err != nil {
			return err
		}
	}
	if err := cluster.Apply(ctx, e.client, samples); err != nil {
		return err
	}
	for name, object := range map[client.ObjectKey]withConditions{
		sampleKey: &v1alpha1.ApiKey{}, sampleSubscription: &v1alpha1.WebhookSubscription{},
	} {
		if err := eventually(ctx, samplesTimeout, func(ctx context.Context) error { return e.ready(ctx, name, object) }); err != nil {
			return fmt.Errorf("wait until the %T %s is Ready: %w", object, name, err)
		}
	}
	return e.writeKey(ctx)
}

// retarget lets a callback that names the samples' receiver name another one.
func retarget(sample *unstructured.Unstructured, receiver string) error {
	address, found, err := unstructured.NestedString(sample.Object, "spec", "callback", "url")
	if err != nil {
		return fmt.Errorf("read the callback of %s: %w", sample.GetName(), err)
	}
	if !found {
		return nil
	}
	callback, err := url.Parse(address)
	if err != nil {
		return fmt.Errorf("read the callback of %s: %w", sample.GetName(), err)
	}
	if callback.Host != sampleReceiver {
		return nil
	}
	callback.Host = receiver
	return unstructured.SetNestedField(sample.Object, callback.String(), "spec", "callback", "url")
}

// unlimit lets a key be used as often as the story's burst needs.
func unlimit(sample *unstructured.Unstructured) error {
	if sample.GetKind() != "ApiKey" {
		return nil
	}
	return unstructured.SetNestedField(sample.Object, int64(10000), "spec", "rateLimit", "requestsPerSecond")
}

// withConditions is an object whose status has conditions.
type withConditions interface {
	client.Object
	GetConditions() []metav1.Condition
}

// ready returns nil when the object is Ready as its present spec says.
func (e *environment) ready(ctx context.Context, name client.ObjectKey, object withConditions) error {
	if err := e.client.Get(ctx, name, object); err != nil {
		return err
	}
	condition := meta.FindStatusCondition(object.GetConditions(), v1alpha1.ConditionReady)
	switch {
	case condition == nil:
		return errors.New("no controller has looked at it")
	case condition.ObservedGeneration != object.GetGeneration():
		return errors.New("the controller has not looked at this generation")
	case condition.Status != metav1.ConditionTrue:
		return fmt.Errorf("%s: %s", condition.Reason, condition.Message)
	}
	return nil
}

// writeKey copies the API key from its Secret to a file that the user alone
// can read.
func (e *environment) writeKey(ctx context.Context) error {
	key := &v1alpha1.ApiKey{}
	if err := e.client.Get(ctx, sampleKey, key); err != nil {
		return fmt.Errorf("get the api key: %w", err)
	}
	text, err := e.secret(ctx, key.SecretName(), apikey.SecretKey)
	if err != nil {
		return err
	}
	if err := os.WriteFile(e.settings.keyFile, text, 0o600); err != nil {
		return fmt.Errorf("write the api key: %w", err)
	}
	return nil
}

// secret returns what a Secret of the samples' namespace has under a data key.
func (e *environment) secret(ctx context.Context, name, dataKey string) ([]byte, error) {
	secret := &corev1.Secret{}
	if err := e.client.Get(ctx, client.ObjectKey{Namespace: sampleKey.Namespace, Name: name}, secret); err != nil {
		return nil, fmt.Errorf("get the secret %s: %w", name, err)
	}
	value := secret.Data[dataKey]
	if len(value) == 0 {
		return nil, fmt.Errorf("get the secret %s: it has no data key %q", name, dataKey)
	}
	return value, nil
}
