package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
)

// objectMetrics tells at each scrape of the objects that there are then, as the cache
// has them. Whether a controller acts, and how its loops do, controller-runtime tells
// in metrics of its own.
type objectMetrics struct {
	// census counts the objects.
	census func() (census, error)

	objects, keyExpiry *prometheus.Desc
}

// census is what the metrics tell of.
type census struct {
	// ready counts objects by kind and by what their condition Ready is.
	ready map[string]map[metav1.ConditionStatus]int
	// expiries are those of the keys that expire.
	expiries map[client.ObjectKey]time.Time
}

// RegisterMetrics registers the controller's metrics, each label value at zero, for
// the reference of metrics. Run registers its own.
func RegisterMetrics(registerer prometheus.Registerer) error {
	objects := newObjectMetrics(func() (census, error) {
		example := newCensus()
		example.expiries[client.ObjectKey{Namespace: "…", Name: "…"}] = time.Unix(1, 0)
		return example, nil
	})
	return errors.Join(registerer.Register(objects), registerer.Register(newRemovedEvents()), registerer.Register(newRetentionGauge(0)))
}

func newObjectMetrics(count func() (census, error)) *objectMetrics {
	return &objectMetrics{
		census: count,
		objects: prometheus.NewDesc("postbus_controller_objects",
			"Objects, by kind and by their condition Ready; Unknown: no controller has looked at them yet.", []string{"kind", "ready"}, nil),
		keyExpiry: prometheus.NewDesc("postbus_controller_apikey_expiry_timestamp_seconds",
			"When an API key expires, in seconds since 1970; missing for keys that don't expire.", []string{"namespace", "apikey"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (o *objectMetrics) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- o.objects
	descriptions <- o.keyExpiry
}

// Collect implements prometheus.Collector. While the cache is not filled there is
// nothing to tell.
func (o *objectMetrics) Collect(metrics chan<- prometheus.Metric) {
	counted, err := o.census()
	if err != nil {
		return
	}
	gauge := func(description *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(description, prometheus.GaugeValue, value, labels...)
	}
	for kind, ready := range counted.ready {
		for status, objects := range ready {
			gauge(o.objects, float64(objects), kind, string(status))
		}
	}
	for key, expiry := range counted.expiries {
		gauge(o.keyExpiry, float64(expiry.Unix()), key.Namespace, key.Name)
	}
}

const (
	kindContactList         = "ContactList"
	kindApiKey              = "ApiKey"
	kindWebhookSubscription = "WebhookSubscription"
)

func newCensus() census {
	made := census{ready: map[string]map[metav1.ConditionStatus]int{}, expiries: map[client.ObjectKey]time.Time{}}
	for _, kind := range []string{kindContactList, kindApiKey, kindWebhookSubscription} {
		made.ready[kind] = map[metav1.ConditionStatus]int{metav1.ConditionTrue: 0, metav1.ConditionFalse: 0, metav1.ConditionUnknown: 0}
	}
	return made
}

// count counts an object.
func (c census) count(kind string, object interface{ GetConditions() []metav1.Condition }) {
	status := metav1.ConditionUnknown
	if ready := meta.FindStatusCondition(object.GetConditions(), v1alpha1.ConditionReady); ready != nil {
		status = ready.Status
	}
	c.ready[kind][status]++
}

// censusTimeout bounds a look at the cache, which takes long only while it is filled.
const censusTimeout = 2 * time.Second

// takeCensus counts the objects of a cache. Nothing of them is changed, so none is
// copied.
func takeCensus(ctx context.Context, objects client.Reader) (census, error) {
	ctx, cancel := context.WithTimeout(ctx, censusTimeout)
	defer cancel()
	var (
		counted       = newCensus()
		lists         v1alpha1.ContactListList
		keys          v1alpha1.ApiKeyList
		subscriptions v1alpha1.WebhookSubscriptionList
	)
	for _, list := range []client.ObjectList{&lists, &keys, &subscriptions} {
		if err := objects.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return counted, fmt.Errorf("list %T: %w", list, err)
		}
	}
	for i := range lists.Items {
		counted.count(kindContactList, &lists.Items[i])
	}
	for i := range subscriptions.Items {
		counted.count(kindWebhookSubscription, &subscriptions.Items[i])
	}
	for i := range keys.Items {
		key := &keys.Items[i]
		counted.count(kindApiKey, key)
		if key.Spec.ExpiresAt != nil {
			counted.expiries[client.ObjectKeyFromObject(key)] = key.Spec.ExpiresAt.Time
		}
	}
	return counted, nil
}
