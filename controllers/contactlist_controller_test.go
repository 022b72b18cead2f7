package controllers

import (
	"context"
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/testkit"
)

func TestContactListIsValidAndCounted(t *testing.T) {
	b := newBench(t)
	list := testkit.List(b.namespace, "newsletter")
	b.create(list)
	b.pass(list)
	b.expect(list, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonValid)
	b.Expect(list.Status.ObservedGeneration).To(Equal(list.Generation))
	b.Expect(*list.Status.Contacts).To(BeZero())
	b.Expect(list.Finalizers).To(BeEmpty(), "there is nothing to clean up")

	key := contact.ListKey{Namespace: b.namespace, Name: "newsletter"}
	addContact(t, b.store, key, "a@example.com", contact.PermissionNone)
	addContact(t, b.store, key, "b@example.com", contact.PermissionSingleOptIn)
	addContact(t, b.store, contact.ListKey{Namespace: b.namespace, Name: "other"}, "c@example.com", contact.PermissionOther)
	b.pass(list)
	b.Expect(*list.Status.Contacts).To(BeEquivalentTo(2))
	b.Expect(*list.Status.Subscribed).To(BeEquivalentTo(1))
}

func TestPassWithoutChangeWritesNothing(t *testing.T) {
	b := newBench(t)
	for _, object := range []client.Object{
		testkit.List(b.namespace, "newsletter"),
		testkit.ApiKey(b.namespace, "form", "newsletter"),
		testkit.Subscription(b.namespace, "crm", "https://crm.example.com"),
	} {
		b.create(object)
		b.pass(object)
		version := object.GetResourceVersion()
		b.pass(object)
		b.Expect(object.GetResourceVersion()).To(Equal(version), "%T", object)
	}
	b.Expect(b.events.Events).To(HaveLen(3), "one event each")
}

func TestContactsAreLookedAtOnlyWhenTheLogGrew(t *testing.T) {
	b := newBench(t)
	b.create(testkit.List(b.namespace, "newsletter"))
	changed := make(changes, 1000)
	watch := &contactWatch{store: b.store, lists: client.NewNamespacedClient(plane.Client, b.namespace), head: -1, changed: changed}
	look := func() int {
		b.Expect(watch.look(t.Context())).To(Succeed())
		sent := len(changed)
		for range sent {
			<-changed
		}
		return sent
	}
	b.Expect(look()).To(Equal(1), "the first look")
	b.Expect(look()).To(BeZero(), "nothing happened")
	addContact(t, b.store, contact.ListKey{Namespace: b.namespace, Name: "newsletter"}, "a@example.com", contact.PermissionNone)
	b.Expect(look()).To(Equal(1), "a contact came")
	b.Expect(look()).To(BeZero(), "nothing happened since")
}

func TestSendEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	NewWithT(t).Expect(make(changes).send(ctx, &v1alpha1.ContactList{})).To(MatchError(context.Canceled))
}
