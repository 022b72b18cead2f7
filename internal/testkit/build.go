package testkit

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"postbus.dev/postbus/api/v1alpha1"
)

// List returns the smallest valid ContactList.
func List(namespace, name string) *v1alpha1.ContactList {
	return &v1alpha1.ContactList{ObjectMeta: meta(namespace, name)}
}

// ApiKey returns the smallest valid ApiKey: it may write to the named list.
func ApiKey(namespace, name, list string) *v1alpha1.ApiKey {
	return &v1alpha1.ApiKey{
		ObjectMeta: meta(namespace, name),
		Spec: v1alpha1.ApiKeySpec{
			ListRef: v1alpha1.ListReference{Name: list},
			Scopes:  []v1alpha1.ApiKeyScope{v1alpha1.ScopeContactsWrite},
			// Tests post faster than the default allows, some with a clock that stands still.
			RateLimit: v1alpha1.KeyRateLimit{RequestsPerSecond: 10000},
		},
	}
}

// Subscription returns the smallest valid WebhookSubscription: every event of
// the namespace goes to the URL.
func Subscription(namespace, name, url string) *v1alpha1.WebhookSubscription {
	return &v1alpha1.WebhookSubscription{
		ObjectMeta: meta(namespace, name),
		Spec:       v1alpha1.WebhookSubscriptionSpec{Callback: v1alpha1.Callback{URL: url}},
	}
}

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}
