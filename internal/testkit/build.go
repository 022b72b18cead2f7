package testkit

import (
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/store"
)

// List returns the smallest valid ContactList.
func List(namespace, name string) *v1alpha1.ContactList {
	return &v1alpha1.ContactList{ObjectMeta: meta(namespace, name)}
}

// CreateBound creates a list and binds it to its namespace, as the controller does.
func CreateBound(t testing.TB, writer client.Client, bindings store.Namespaces, list *v1alpha1.ContactList) {
	t.Helper()
	g := NewWithT(t)
	g.Expect(writer.Create(t.Context(), list)).To(Succeed())
	list.Status.NamespaceUID = Bind(t, bindings, list)
	g.Expect(writer.Status().Update(t.Context(), list)).To(Succeed())
}

// Bind binds an object to its namespace in the store, and returns the namespace's UID.
func Bind(t testing.TB, bindings store.Namespaces, object client.Object) (uid string) {
	t.Helper()
	g := NewWithT(t)
	bound, err := bindings.LoadNamespace(t.Context(), object.GetNamespace())
	g.Expect(err).NotTo(HaveOccurred())
	if bound.UID == "" {
		bound.UID = "bound"
		g.Expect(bindings.AdoptNamespace(t.Context(), bound.Name, "", bound.UID)).To(Succeed())
	}
	g.Expect(bindings.BindObject(t.Context(), bound.Name, bound.UID, string(object.GetUID()))).To(Succeed())
	return bound.UID
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
