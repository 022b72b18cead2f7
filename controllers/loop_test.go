package controllers

import (
	"context"
	"testing"

	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/testkit"
)

// The cache may show an object as it was before our last write. A pass over
// such a copy must change nothing, be no failure, and come again.
func TestPassOverAnOldCopyChangesNothing(t *testing.T) {
	b := newBench(t)
	list := testkit.List(b.namespace, "newsletter")
	b.create(list)
	old := list.DeepCopy()
	list.Spec.DisplayName = "Changed"
	b.update(list)

	loop := b.lists().loop()
	result, err := loop.finish(t.Context(), old.DeepCopy(), old, nil)
	b.Expect(err).NotTo(HaveOccurred())
	b.Expect(result.RequeueAfter).To(Equal(conflictDelay))
	b.read(list)
	b.expectReadyUnknown(list)
	b.Expect(b.events.Events).To(BeEmpty())
}

func (b *bench) expectReadyUnknown(list *v1alpha1.ContactList) {
	b.t.Helper()
	b.Expect(list.Status.Conditions).To(HaveLen(1))
	b.Expect(list.Status.Conditions[0].Status).To(Equal(metav1.ConditionUnknown))
}

func TestFirstErrorStopsTheSteps(t *testing.T) {
	b := newBench(t)
	list := testkit.List(b.namespace, "newsletter")
	b.create(list)
	loop := b.lists().loop()
	var ran []string
	note := func(name string, err error) step[*v1alpha1.ContactList] {
		return func(context.Context, *v1alpha1.ContactList) error {
			ran = append(ran, name)
			return err
		}
	}
	loop.steps = []step[*v1alpha1.ContactList]{
		note("first", nil), note("second", refuse(v1alpha1.ReasonListNotFound, "no")), note("third", nil),
	}
	_, err := loop.Reconcile(t.Context(), requestFor(list))
	b.Expect(err).NotTo(HaveOccurred(), "a refusal is no failure")
	b.Expect(ran).To(Equal([]string{"first", "second"}))
}

func TestDeletionWaitsForTheCleanup(t *testing.T) {
	b := newBench(t)
	key := b.newKey()
	b.pass(key)
	b.delete(key)
	loop := b.keys().loop()
	loop.cleanup = func(context.Context, *v1alpha1.ApiKey) error { return context.DeadlineExceeded }
	_, err := loop.Reconcile(t.Context(), requestFor(key))
	b.Expect(err).To(MatchError(context.DeadlineExceeded))
	b.read(key)
	b.Expect(key.Finalizers).To(ConsistOf(v1alpha1.Finalizer))

	b.pass(key)
	err = plane.Client.Get(t.Context(), client.ObjectKeyFromObject(key), key)
	b.Expect(apierrors.IsNotFound(err)).To(BeTrue())
}

func requestFor(object client.Object) reconcile.Request {
	return reconcile.Request{NamespacedName: client.ObjectKeyFromObject(object)}
}
