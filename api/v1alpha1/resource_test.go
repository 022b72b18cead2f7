package v1alpha1_test

import (
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/testkit"
)

func TestListOfAnApiKeyCannotChange(t *testing.T) {
	g := NewWithT(t)
	key := testkit.ApiKey(plane.Namespace(t), "form", "newsletter")
	g.Expect(plane.Client.Create(t.Context(), key)).To(Succeed())

	suspend := true
	key.Spec.Suspend = &suspend
	g.Expect(plane.Client.Update(t.Context(), key)).To(Succeed(), "other fields can change")

	key.Spec.ListRef.Name = "other"
	g.Expect(plane.Client.Update(t.Context(), key)).To(
		MatchError(ContainSubstring("spec.listRef can't be changed: make another ApiKey")))
}

func TestDefaults(t *testing.T) {
	g := NewWithT(t)
	namespace := plane.Namespace(t)
	key := testkit.ApiKey(namespace, "form", "newsletter")
	subscription := testkit.Subscription(namespace, "crm", "https://crm.example.com")
	g.Expect(plane.Client.Create(t.Context(), key)).To(Succeed())
	g.Expect(plane.Client.Create(t.Context(), subscription)).To(Succeed())

	g.Expect(key.Spec.Source).To(BeEquivalentTo("API"))
	g.Expect(subscription.Spec.Callback.Timeout).To(BeNil(), "what it is then depends on the format")
	g.Expect(subscription.Spec.Ordering).To(Equal(v1alpha1.OrderingPerContact))
}

func TestConditionsAreUnknownUntilAControllerLooks(t *testing.T) {
	g := NewWithT(t)
	namespace := plane.Namespace(t)
	for _, object := range []interface {
		client.Object
		GetConditions() []metav1.Condition
	}{
		testkit.List(namespace, "newsletter"),
		testkit.ApiKey(namespace, "form", "newsletter"),
		testkit.Subscription(namespace, "crm", "https://crm.example.com"),
	} {
		g.Expect(plane.Client.Create(t.Context(), object)).To(Succeed())
		g.Expect(plane.Client.Get(t.Context(), client.ObjectKeyFromObject(object), object)).To(Succeed())
		ready := meta.FindStatusCondition(object.GetConditions(), v1alpha1.ConditionReady)
		g.Expect(ready).NotTo(BeNil(), "%T", object)
		g.Expect(ready.Status).To(Equal(metav1.ConditionUnknown))
		g.Expect(ready.Reason).To(Equal(v1alpha1.ReasonProgressing))
	}
}

func TestSelectableFieldsOfApiKeys(t *testing.T) {
	g := NewWithT(t)
	namespace := plane.Namespace(t)
	first, second := testkit.ApiKey(namespace, "first", "newsletter"), testkit.ApiKey(namespace, "second", "other")
	g.Expect(plane.Client.Create(t.Context(), first)).To(Succeed())
	g.Expect(plane.Client.Create(t.Context(), second)).To(Succeed())
	second.Status.Ready = metav1.ConditionFalse
	g.Expect(plane.Client.Status().Update(t.Context(), second)).To(Succeed())

	for selector, want := range map[string]string{
		"spec.listRef.name=newsletter": "first",
		"spec.listRef.name=other":      "second",
		"status.ready=False":           "second",
	} {
		found := &v1alpha1.ApiKeyList{}
		g.Expect(plane.Client.List(t.Context(), found, selecting(g, namespace, selector))).To(Succeed())
		g.Expect(found.Items).To(HaveLen(1), selector)
		g.Expect(found.Items[0].Name).To(Equal(want), selector)
	}
}

func TestSelectableFieldsOfWebhookSubscriptions(t *testing.T) {
	g := NewWithT(t)
	namespace := plane.Namespace(t)
	suspend := true
	first := testkit.Subscription(namespace, "first", "https://crm.example.com")
	first.Spec.App = "crm"
	second := testkit.Subscription(namespace, "second", "https://shop.example.com")
	second.Spec.App = "shop"
	second.Spec.Suspend = &suspend
	g.Expect(plane.Client.Create(t.Context(), first)).To(Succeed())
	g.Expect(plane.Client.Create(t.Context(), second)).To(Succeed())
	first.Status.State = v1alpha1.StateFailing
	g.Expect(plane.Client.Status().Update(t.Context(), first)).To(Succeed())

	for selector, want := range map[string]string{
		"spec.app=crm":         "first",
		"spec.suspend=true":    "second",
		"status.state=Failing": "first",
	} {
		found := &v1alpha1.WebhookSubscriptionList{}
		g.Expect(plane.Client.List(t.Context(), found, selecting(g, namespace, selector))).To(Succeed())
		g.Expect(found.Items).To(HaveLen(1), selector)
		g.Expect(found.Items[0].Name).To(Equal(want), selector)
	}
}

func selecting(g *WithT, namespace, selector string) client.ListOption {
	parsed, err := fields.ParseSelector(selector)
	g.Expect(err).NotTo(HaveOccurred())
	return &client.ListOptions{Namespace: namespace, FieldSelector: parsed}
}

// kubectl get postbus lists all kinds.
func TestCategory(t *testing.T) {
	g := NewWithT(t)
	server, err := discovery.NewDiscoveryClientForConfig(plane.Config)
	g.Expect(err).NotTo(HaveOccurred())
	resources, err := server.ServerResourcesForGroupVersion(v1alpha1.GroupVersion.String())
	g.Expect(err).NotTo(HaveOccurred())
	var kinds []string
	for _, resource := range resources.APIResources {
		for _, category := range resource.Categories {
			if category == "postbus" {
				kinds = append(kinds, resource.Name)
			}
		}
	}
	g.Expect(kinds).To(ConsistOf("contactlists", "apikeys", "webhooksubscriptions"))
}
