package controllers

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/kube"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/testkit"
)

// namespaceUID returns the UID that the bench's Namespace has now.
func (b *bench) namespaceUID() string {
	b.t.Helper()
	space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: b.namespace}}
	b.Expect(plane.Client.Get(b.t.Context(), client.ObjectKeyFromObject(space), space)).To(Succeed())
	return string(space.UID)
}

// replaceNamespace removes the bench's Namespace with the objects in it, without letting
// the controller clean up, and creates one of the same name.
func (b *bench) replaceNamespace(objects ...client.Object) {
	b.t.Helper()
	for _, object := range objects {
		b.read(object)
		object.SetFinalizers(nil)
		b.update(object)
		b.delete(object)
	}
	b.Expect(plane.Client.DeleteAllOf(b.t.Context(), &corev1.Secret{}, client.InNamespace(b.namespace))).To(Succeed())
	space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: b.namespace}}
	b.delete(space)
	b.read(space)
	space.Spec.Finalizers = nil // as the namespace controller does, which does not run here
	b.Expect(plane.Client.SubResource("finalize").Update(b.t.Context(), space)).To(Succeed())
	b.Eventually(func() error {
		return plane.Client.Create(b.t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: b.namespace}})
	}, soon).Should(Succeed())
}

// createSoon creates objects in a namespace that was replaced, which the API server notices
// after a moment.
func (b *bench) createSoon(objects ...client.Object) {
	b.t.Helper()
	for _, object := range objects {
		b.Eventually(func() error { return plane.Client.Create(b.t.Context(), object) }, soon).Should(Succeed())
	}
}

// annotateNamespace sets an annotation on the bench's Namespace.
func (b *bench) annotateNamespace(name string, value string) {
	b.t.Helper()
	space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: b.namespace}}
	b.read(space)
	metav1.SetMetaDataAnnotation(&space.ObjectMeta, name, value)
	b.update(space)
}

// binding returns the store's binding of the bench's namespace.
func (b *bench) binding() store.Namespace {
	b.t.Helper()
	bound, err := b.store.LoadNamespace(b.t.Context(), b.namespace)
	b.Expect(err).NotTo(HaveOccurred())
	return bound
}

func (b *bench) head() int64 {
	b.t.Helper()
	head, err := b.store.Head(b.t.Context())
	b.Expect(err).NotTo(HaveOccurred())
	return head
}

// replaced returns a bench whose namespace was replaced while the store had a contact and
// a subscription of it, with a list and a subscription of the same names in the new one.
func replaced(t *testing.T, policy v1alpha1.DeletionPolicy) (b *bench, former string, list *v1alpha1.ContactList, crm *v1alpha1.WebhookSubscription) {
	t.Helper()
	b = newBench(t)
	declare := func() {
		list, crm = testkit.List(b.namespace, "newsletter"), testkit.Subscription(b.namespace, "crm", "https://crm.example.com")
		list.Spec.DeletionPolicy = policy
	}
	declare()
	b.create(list, crm)
	b.pass(list)
	b.pass(crm)
	former = b.namespaceUID()
	b.Expect(list.Status.NamespaceUID).To(Equal(former))
	b.Expect(crm.Status.NamespaceUID).To(Equal(former))
	for _, object := range []client.Object{list, crm} {
		b.Expect(b.store.IsBound(t.Context(), string(object.GetUID()))).To(BeTrue())
	}
	b.Expect(b.binding()).To(Equal(store.Namespace{Name: b.namespace, UID: former}))
	addContact(t, b.store, listKey(list), "ada@example.com", contact.PermissionSingleOptIn)
	b.replaceNamespace(list, crm)
	declare()
	b.createSoon(list, crm)
	b.now = time.Now().Add(time.Hour)
	return b, former, list, crm
}

// expectHeld expects that nothing of the store can be used in the namespace.
func (b *bench) expectHeld(former string, list *v1alpha1.ContactList, crm *v1alpha1.WebhookSubscription) {
	b.t.Helper()
	b.Expect(b.pass(list)).To(Equal(reconcile.Result{RequeueAfter: decisionInterval}))
	message := b.expect(list, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonNamespaceReplaced)
	b.Expect(message).To(And(
		ContainSubstring("kubectl annotate namespace %s postbus.dev/adopt-data-of=%s", b.namespace, former),
		ContainSubstring("kubectl annotate namespace %s postbus.dev/remove-data-of=%s", b.namespace, former)))
	b.Expect(list.IsBound()).To(BeFalse())
	b.Expect(b.store.IsBound(b.t.Context(), string(list.UID))).To(BeFalse())
	b.Expect(list.Status.FormerNamespaceUID).To(Equal(former))
	b.Expect(list.Status.Contacts).To(BeNil(), "how many there were is not for everybody")

	b.Expect(b.pass(crm)).To(Equal(reconcile.Result{RequeueAfter: decisionInterval}))
	b.expect(crm, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonNamespaceReplaced)
	b.expect(crm, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonNamespaceReplaced)
	b.Expect(crm.Status.State).To(Equal(v1alpha1.StatePending))
	b.Expect(crm.Status.NamespaceUID).To(BeEmpty())
	b.Expect(b.store.IsBound(b.t.Context(), string(crm.UID))).To(BeFalse())
	b.Expect(crm.Status.FormerNamespaceUID).To(Equal(former))
	b.Expect(crm.Status.PendingEvents).To(BeNil())
}

// Somebody who gets a namespace of a name that was used before gets none of its contacts,
// and removes none by deleting objects. Whoever may annotate the Namespace decides.
func TestNamespaceOfAnEarlierName(t *testing.T) {
	b, former, list, crm := replaced(t, v1alpha1.DeletionDelete)
	b.expectHeld(former, list, crm)
	for _, object := range []client.Object{list, crm} {
		metav1.SetMetaDataAnnotation(metaOf(object), v1alpha1.AnnotationAdoptDataOf, former)
		b.update(object)
	}
	b.annotateNamespace(v1alpha1.AnnotationAdoptDataOf, "another")
	b.annotateNamespace(v1alpha1.AnnotationRemoveDataOf, "another")
	b.expectHeld(former, list, crm)

	for _, object := range []client.Object{list, crm} {
		b.delete(object)
		b.Expect(b.pass(object)).To(BeZero())
		b.Expect(apierrors.IsNotFound(plane.Client.Get(t.Context(), client.ObjectKeyFromObject(object), object))).To(BeTrue())
	}
	b.Expect(b.store.Count(t.Context(), listKey(list))).To(HaveField("Contacts", BeEquivalentTo(1)))
	b.Expect(b.head()).To(BeEquivalentTo(1))
	_, err := b.store.LoadDelivery(t.Context(), keyOf(crm))
	b.Expect(err).NotTo(HaveOccurred())
	b.Expect(b.binding()).To(Equal(store.Namespace{Name: b.namespace, UID: former}))
}

func metaOf(object client.Object) *metav1.ObjectMeta {
	if list, isList := object.(*v1alpha1.ContactList); isList {
		return &list.ObjectMeta
	}
	return &object.(*v1alpha1.WebhookSubscription).ObjectMeta
}

// A cluster that was restored from a backup continues with what the store has.
func TestNamespaceIsAdopted(t *testing.T) {
	b, former, list, crm := replaced(t, v1alpha1.DeletionRetain)
	b.expectHeld(former, list, crm)
	before, err := b.store.LoadDelivery(t.Context(), keyOf(crm))
	b.Expect(err).NotTo(HaveOccurred())
	b.annotateNamespace(v1alpha1.AnnotationAdoptDataOf, former)
	b.Expect(b.pass(list)).To(BeZero())
	b.expect(list, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonValid)
	b.Expect(list.Status.NamespaceUID).To(Equal(b.namespaceUID()))
	b.Expect(list.Status.FormerNamespaceUID).To(BeEmpty())
	b.Expect(*list.Status.Contacts).To(BeEquivalentTo(1))
	b.pass(crm)
	b.expect(crm, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonValid)
	b.Expect(b.store.LoadDelivery(t.Context(), keyOf(crm))).To(Equal(before))
	b.Expect(b.binding()).To(Equal(store.Namespace{Name: b.namespace, UID: b.namespaceUID()}))
}

func TestFormerNamespaceIsRemoved(t *testing.T) {
	b, former, list, crm := replaced(t, v1alpha1.DeletionRetain)
	addContacts(t, b.store, contact.ListKey{Namespace: b.namespace, Name: "other"}, 2*removedAtOnce+1)
	b.expectHeld(former, list, crm)
	b.annotateNamespace(v1alpha1.AnnotationRemoveDataOf, former)
	for _, object := range []client.Object{list, crm} {
		b.Expect(b.pass(object)).To(Equal(reconcile.Result{RequeueAfter: removalPause}))
		message := b.expect(object, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonNamespaceReplaced)
		b.Expect(message).To(ContainSubstring("is being prepared"))
		b.Expect(list.IsBound()).To(BeFalse())
		b.Expect(b.binding().UID).To(Equal(former))
	}
	b.Eventually(func() reconcile.Result { return b.pass(list) }).Should(BeZero())
	b.expect(list, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonValid)
	b.Expect(*list.Status.Contacts).To(BeZero())
	b.Expect(b.store.CountAll(t.Context())).To(BeEmpty())
	b.Expect(b.store.Read(t.Context(), store.Query{Filter: store.Filter{Types: contact.LogTypes}})).To(BeEmpty())
	b.Expect(b.binding()).To(Equal(store.Namespace{Name: b.namespace, UID: b.namespaceUID(), Begins: b.head()}))
	_, err := b.store.LoadDelivery(t.Context(), keyOf(crm))
	b.Expect(err).To(MatchError(store.ErrNotFound))
	b.pass(crm)
	b.expect(crm, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonValid)
	b.Expect(b.store.LoadDelivery(t.Context(), keyOf(crm))).To(HaveField("Cursor", b.head()))
}

// Where nothing but events is left of an earlier Namespace nobody has to decide: they are
// behind where the new one's begin.
func TestNamespaceOfWhichEventsAreLeft(t *testing.T) {
	b := newBench(t)
	list := testkit.List(b.namespace, "newsletter")
	b.create(list)
	b.pass(list)
	addContact(t, b.store, listKey(list), "ada@example.com", contact.PermissionSingleOptIn)
	_, err := b.store.Change(t.Context(), store.Change{List: listKey(list), Address: "ada@example.com", Apply: contact.EndWithList})
	b.Expect(err).NotTo(HaveOccurred())
	b.replaceNamespace(list)
	list = testkit.List(b.namespace, "newsletter")
	b.createSoon(list)
	created := list.CreationTimestamp // that of the Namespace, or a little later
	b.now = created.Add(removalDelay - 3*time.Second)
	b.Expect(b.pass(list)).NotTo(BeZero(), "ingress may still take contacts for the earlier list")
	b.expect(list, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonNamespaceReplaced)
	b.Expect(list.IsBound()).To(BeFalse())
	b.now = created.Add(removalDelay)
	b.Expect(b.pass(list)).To(BeZero())
	b.expect(list, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonValid)
	b.Expect(b.binding()).To(Equal(store.Namespace{Name: b.namespace, UID: b.namespaceUID(), Begins: 1}))
}

// A Namespace that can't be read decides nothing.
func TestNamespaceThatCannotBeRead(t *testing.T) {
	b, former, list, crm := replaced(t, v1alpha1.DeletionRetain)
	b.annotateNamespace(v1alpha1.AnnotationRemoveDataOf, former)
	access := rest.CopyConfig(plane.Config)
	access.Impersonate = rest.ImpersonationConfig{UserName: "nobody"}
	reader, err := client.New(access, client.Options{Scheme: kube.NewScheme()})
	b.Expect(err).NotTo(HaveOccurred())
	spaces := b.namespaces()
	spaces.reader = reader
	b.Expect(apierrors.IsForbidden(spaces.bind(t.Context(), list, &list.Status.NamespaceUID, &list.Status.FormerNamespaceUID))).To(BeTrue())
	b.Expect(list.Status.NamespaceUID).To(BeEmpty())
	b.Expect(b.store.Count(t.Context(), listKey(list))).To(HaveField("Contacts", BeEquivalentTo(1)))
	_, err = b.store.LoadDelivery(t.Context(), keyOf(crm))
	b.Expect(err).NotTo(HaveOccurred())
}
