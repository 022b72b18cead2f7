package main

import (
	"testing"

	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/testkit"
)

// The events of a list that was deleted with its contacts are replayed to nobody, nor
// once another list has its name.
func TestRemovedListIsNotReplayed(t *testing.T) {
	g := NewWithT(t)
	i, callback := newInstallation(t), testkit.NewReceiver(t)
	objects := declare(t, callback.URL()+"/crm")
	namespace := objects.subscription.Namespace
	list := testkit.List(namespace, "newsletter")
	g.Expect(plane.Client.Get(t.Context(), client.ObjectKeyFromObject(list), list)).To(Succeed())
	list.Spec.DeletionPolicy = v1alpha1.DeletionDelete
	g.Expect(plane.Client.Update(t.Context(), list)).To(Succeed())
	i.start()
	objects.waitUntilReady(t, i)
	for _, address := range []string{"ada@example.com", "grace@example.com", "joan@example.com"} {
		g.Expect(post(t, i.ingress, objects.key, address)).To(BeTrue())
	}
	g.Eventually(callback.Count, patience).Should(Equal(3))

	g.Expect(plane.Client.Delete(t.Context(), list)).To(Succeed())
	g.Eventually(func() bool {
		return apierrors.IsNotFound(plane.Client.Get(t.Context(), client.ObjectKeyFromObject(list), &v1alpha1.ContactList{}))
	}, patience).Should(BeTrue())
	expectEmptyReplay(t, namespace, "spy", callback)

	g.Expect(plane.Client.Create(t.Context(), testkit.List(namespace, "newsletter"))).To(Succeed())
	g.Eventually(func() bool { return post(t, i.ingress, objects.key, "ada@example.com") }, patience).Should(BeTrue())
	g.Eventually(func() []string { return pathsOf(callback) }, patience).Should(ContainElement("/spy"))
	g.Expect(plane.Client.Delete(t.Context(), testkit.List(namespace, "newsletter"))).To(Succeed())
	expectEmptyReplay(t, namespace, "late", callback)
	g.Expect(pathsOf(callback)).NotTo(ContainElement("/late"))
}

// expectEmptyReplay makes a subscription that asks for all that there was, and expects
// that nothing is replayed.
func expectEmptyReplay(t *testing.T, namespace, name string, callback *testkit.Receiver) {
	t.Helper()
	g := NewWithT(t)
	made := testkit.Subscription(namespace, name, callback.URL()+"/"+name)
	made.Annotations = map[string]string{v1alpha1.AnnotationReplaySince: "2026-01-01T00:00:00Z"}
	g.Expect(plane.Client.Create(t.Context(), made)).To(Succeed())
	dropFinalizers(t, made)
	g.Eventually(func() []v1alpha1.RequestStatus {
		g.Expect(plane.Client.Get(t.Context(), client.ObjectKeyFromObject(made), made)).To(Succeed())
		return made.Status.Requests
	}, patience).Should(ConsistOf(And(
		HaveField("Type", v1alpha1.RequestReplayRange), HaveField("Result", v1alpha1.RequestDone),
		HaveField("Message", "A replay of 0 events was begun."))))
	g.Expect(made.Status.Replay).To(HaveValue(HaveField("Total", HaveValue(BeZero()))))
	g.Expect(pathsOf(callback)).NotTo(ContainElement("/" + name))
}

func pathsOf(callback *testkit.Receiver) (paths []string) {
	for _, call := range callback.Calls() {
		paths = append(paths, call.Path)
	}
	return paths
}
