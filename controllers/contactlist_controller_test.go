package controllers

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
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

// addContacts stores contacts as an import does.
func addContacts(t *testing.T, s store.Store, list contact.ListKey, count int) {
	t.Helper()
	changes := make([]store.Change, count)
	for n := range changes {
		changes[n] = imported(list, fmt.Sprintf("%d@example.com", n))
	}
	_, err := s.ChangeAll(t.Context(), changes)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
}

func TestContactsAreRemovedWithTheirList(t *testing.T) {
	b := newBench(t)
	list, other := testkit.List(b.namespace, "newsletter"), testkit.List(b.namespace, "other")
	for _, made := range []*v1alpha1.ContactList{list, other} {
		made.Spec.DeletionPolicy = v1alpha1.DeletionDelete
		b.create(made)
		b.pass(made)
		addContacts(t, b.store, listKey(made), 2*removedAtOnce+1)
	}
	key := listKey(list)
	for n := range removedAtOnce + 1 {
		addContact(t, b.store, key, fmt.Sprintf("%d@example.com", n), contact.PermissionNone)
	}
	addContact(t, b.store, listKey(other), "0@example.com", contact.PermissionNone)
	events := func(of contact.ListKey) (count int) {
		b.t.Helper()
		read, err := b.store.Read(t.Context(), store.Query{Filter: store.Filter{Namespace: of.Namespace, Lists: []string{of.Name}}, Limit: 10_000})
		b.Expect(err).NotTo(HaveOccurred())
		return len(read)
	}
	contacts := func() int64 {
		b.t.Helper()
		counts, err := b.store.Count(t.Context(), key)
		b.Expect(err).NotTo(HaveOccurred())
		return counts.Contacts
	}
	b.delete(list)
	b.read(list)
	b.now = list.DeletionTimestamp.Add(removalDelay - time.Second)
	b.Expect(b.pass(list)).To(Equal(reconcile.Result{RequeueAfter: time.Second}), "ingress may not have heard of it")
	b.Expect(contacts()).To(BeEquivalentTo(2*removedAtOnce + 1))

	b.now = list.DeletionTimestamp.Add(removalDelay)
	for _, left := range []int64{removedAtOnce + 1, 1} {
		b.Expect(b.pass(list)).To(Equal(reconcile.Result{RequeueAfter: removalPause}))
		b.Expect(contacts()).To(Equal(left))
	}
	b.Expect(b.pass(list)).To(Equal(reconcile.Result{RequeueAfter: removalPause}))
	b.Expect(contacts()).To(BeZero())
	b.Expect(events(key)).To(Equal(1), "events go with the contacts, a page at a time")
	b.Expect(b.pass(list)).To(BeZero())
	b.Expect(events(key)).To(BeZero())
	b.expectNoList(key)
	b.Expect(b.store.IsBound(t.Context(), string(list.UID))).To(BeFalse())
	b.Expect(b.store.Count(t.Context(), listKey(other))).To(HaveField("Contacts", BeEquivalentTo(2*removedAtOnce+1)))
	b.Expect(events(listKey(other))).To(Equal(1))
	told, err := b.store.Read(t.Context(), store.Query{Filter: store.Filter{Namespace: b.namespace, Types: []v1alpha1.EventType{contact.EventListRemoved}}})
	b.Expect(err).NotTo(HaveOccurred())
	b.Expect(told).To(ConsistOf(HaveField("Operation", HaveValue(Equal(contact.Operation{Kind: "ContactList", Name: "newsletter"})))))
}

func (b *bench) expectNoList(key contact.ListKey) {
	b.t.Helper()
	name := client.ObjectKey{Namespace: key.Namespace, Name: key.Name}
	b.Expect(apierrors.IsNotFound(plane.Client.Get(b.t.Context(), name, &v1alpha1.ContactList{}))).To(BeTrue())
}

// The controller has the rights for it, and hears of the deletion.
func TestListGoesWithItsContacts(t *testing.T) {
	g := NewWithT(t)
	namespace := plane.Namespace(t)
	s := openStore(t)
	startWith(t, s, Lease{Namespace: namespace}, func(options *Options) {
		options.Now = func() time.Time { return time.Now().Add(removalDelay) } // so that nobody waits for it
	})
	list := testkit.List(namespace, "newsletter")
	list.Spec.DeletionPolicy = v1alpha1.DeletionDelete
	g.Expect(plane.Client.Create(t.Context(), list)).To(Succeed())
	g.Eventually(conditionOf(t, list, v1alpha1.ConditionReady), soon).Should(Equal(valid))
	addContacts(t, s, listKey(list), removedAtOnce+1)
	g.Expect(plane.Client.Delete(t.Context(), list)).To(Succeed())
	g.Eventually(func() bool {
		return apierrors.IsNotFound(plane.Client.Get(t.Context(), client.ObjectKeyFromObject(list), &v1alpha1.ContactList{}))
	}, soon).Should(BeTrue())
	g.Expect(s.Count(t.Context(), contact.ListKey{Namespace: namespace, Name: "newsletter"})).To(Equal(contact.Counts{}))
}

// Whoever changes their mind keeps what is there.
func TestContactsAreKeptByAPolicyThatChanges(t *testing.T) {
	b := newBench(t)
	list := testkit.List(b.namespace, "newsletter")
	list.Spec.DeletionPolicy = v1alpha1.DeletionDelete
	b.create(list)
	b.pass(list)
	key := listKey(list)
	addContacts(t, b.store, key, 3)
	b.delete(list)
	b.read(list)
	list.Spec.DeletionPolicy = v1alpha1.DeletionRetain
	b.update(list)
	b.now = list.DeletionTimestamp.Add(removalDelay)
	b.Expect(b.pass(list)).To(BeZero())
	b.expectNoList(key)
	b.Expect(b.store.Count(t.Context(), key)).To(HaveField("Contacts", BeEquivalentTo(3)))
}

// A controller that still knows a list as being deleted takes no contacts from the one
// that was made anew under its name.
func TestContactsOfAListThatWasMadeAnew(t *testing.T) {
	b := newBench(t)
	list := testkit.List(b.namespace, "newsletter")
	b.create(list)
	addContacts(t, b.store, listKey(list), 3)
	old := list.DeepCopy()
	old.UID, old.Spec.DeletionPolicy = "another", v1alpha1.DeletionDelete
	old.DeletionTimestamp = &metav1.Time{Time: b.now.Add(-time.Hour)}
	b.Expect(b.lists().cleanup(t.Context(), old)).To(Succeed())
	b.Expect(b.store.Count(t.Context(), listKey(list))).To(HaveField("Contacts", BeEquivalentTo(3)))
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

func TestListsAreSentWhoseContactsChanged(t *testing.T) {
	b := newBench(t)
	changed := make(changes, 10)
	watch := &contactWatch{store: b.store, changed: changed}
	look := func() (sent []string) {
		b.t.Helper()
		b.Expect(watch.look(t.Context())).To(Succeed())
		for range len(changed) {
			sent = append(sent, (<-changed).Object.GetName())
		}
		return sent
	}
	newsletter, other := contact.ListKey{Namespace: b.namespace, Name: "newsletter"}, contact.ListKey{Namespace: b.namespace, Name: "other"}
	addContact(t, b.store, newsletter, "a@example.com", contact.PermissionNone)
	addContact(t, b.store, other, "a@example.com", contact.PermissionNone)
	b.Expect(look()).To(ConsistOf("newsletter", "other"), "the first look")
	b.Expect(look()).To(BeEmpty(), "nothing happened")
	addContact(t, b.store, newsletter, "b@example.com", contact.PermissionNone)
	b.Expect(look()).To(ConsistOf("newsletter"), "a contact came")
	b.Expect(look()).To(BeEmpty(), "nothing happened since")
	importContact(t, b.store, other, "b@example.com")
	b.Expect(look()).To(ConsistOf("other"), "a contact came without an event")
}

// importContact stores a contact as an import does, which raises no events.
func importContact(t *testing.T, s store.Store, list contact.ListKey, email string) {
	t.Helper()
	_, err := s.ChangeAll(t.Context(), []store.Change{imported(list, email)})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
}

// imported is the change that makes a contact without events.
func imported(list contact.ListKey, email string) store.Change {
	return store.Change{List: list, Address: email, Apply: func(*contact.Contact) contact.Decision {
		return contact.Decision{
			Contact: contact.Contact{Email: email, Permission: contact.PermissionNone, Revision: 1}, Changed: true, Created: true,
		}
	}}
}

func TestSendEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	NewWithT(t).Expect(make(changes).send(ctx, &v1alpha1.ContactList{})).To(MatchError(context.Canceled))
}

// countedPasses counts the passes of lists: each counts contacts once.
type countedPasses struct {
	store.Store
	passes atomic.Int64
}

// Count implements Store.
func (c *countedPasses) Count(ctx context.Context, list contact.ListKey) (contact.Counts, error) {
	c.passes.Add(1)
	return c.Store.Count(ctx, list)
}

func TestTemplatesArePublishedWhenTheyChange(t *testing.T) {
	g := NewWithT(t)
	namespace := plane.Namespace(t)
	s := &countedPasses{Store: openStore(t)}
	start(t, s, Lease{Namespace: namespace})
	list := testkit.List(namespace, "newsletter")
	list.Spec.OptIn.Mailings = []v1alpha1.OptInMailing{mailing("welcome", "doi-mail")}
	g.Expect(plane.Client.Create(t.Context(), list)).To(Succeed())
	ready := conditionOf(t, list, v1alpha1.ConditionReady)
	g.Eventually(ready, soon).Should(Equal("False TemplateNotFound"))

	published := func() string {
		texts, err := s.LoadTexts(t.Context(), contact.ListKey{Namespace: namespace, Name: "newsletter"})
		g.Expect(err).NotTo(HaveOccurred())
		return texts.Mailings["welcome"]["mail.txt"]
	}
	mails := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "doi-mail"}, Data: map[string]string{"mail.txt": goodMail},
	}
	put := func(text string) {
		mails.Data["mail.txt"] = text
		g.Expect(plane.Client.Update(t.Context(), mails)).To(Succeed())
	}
	g.Expect(plane.Client.Create(t.Context(), mails)).To(Succeed())
	g.Eventually(ready, soon).Should(Equal(valid))
	g.Expect(published()).To(Equal(goodMail))
	put(badMail)
	g.Eventually(ready, soon).Should(Equal("False TemplateInvalid"))
	g.Expect(published()).To(Equal(goodMail))
	put("Mended: {{.ConfirmURL}}")
	g.Eventually(ready, soon).Should(Equal(valid))
	g.Expect(published()).To(Equal("Mended: {{.ConfirmURL}}"))

	var before int64
	g.Eventually(func(g Gomega) { // a pass whose copy of the list was old is made again
		before = s.passes.Load()
		g.Consistently(s.passes.Load, 3*conflictDelay).Should(Equal(before))
	}, soon).Should(Succeed())
	unnamed := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "other"}, Data: map[string]string{"mail.txt": badMail}}
	g.Expect(plane.Client.Create(t.Context(), unnamed)).To(Succeed())
	put("Again: {{.ConfirmURL}}")
	g.Eventually(published, soon).Should(Equal("Again: {{.ConfirmURL}}"))
	g.Expect(s.passes.Load()).To(Equal(before+1), "a ConfigMap that nobody names causes nothing")

	g.Expect(plane.Client.Delete(t.Context(), mails)).To(Succeed())
	g.Eventually(ready, soon).Should(Equal("False TemplateNotFound"))
	list.Spec.OptIn.Mailings[0].TemplateRef.Name = "no/name of anything"
	g.Expect(plane.Client.Update(t.Context(), list)).To(Succeed())
	g.Eventually(func() int64 { ready(); return list.Status.ObservedGeneration }, soon).Should(Equal(list.Generation))
	g.Expect(ready()).To(Equal("False TemplateNotFound"))
	g.Expect(published()).To(Equal("Again: {{.ConfirmURL}}"))
	g.Eventually(func() []string { return eventReasons(t, namespace, "newsletter") }, soon).
		Should(ContainElements("TemplateNotFound", "TemplateInvalid", "Valid"))
}

func TestControllerMayOnlyReadConfigMaps(t *testing.T) {
	g := NewWithT(t)
	namespace := plane.Namespace(t)
	limited, err := client.New(limited(t, namespace), client.Options{Scheme: plane.Client.Scheme()})
	g.Expect(err).NotTo(HaveOccurred())
	mails := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "doi-mail"}}
	g.Expect(plane.Client.Create(t.Context(), mails)).To(Succeed())
	g.Expect(limited.Get(t.Context(), client.ObjectKeyFromObject(mails), mails)).To(Succeed())
	g.Expect(limited.List(t.Context(), &corev1.ConfigMapList{})).To(Succeed())
	for verb, do := range map[string]func() error{
		"create": func() error {
			return limited.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "a"}})
		},
		"update": func() error { return limited.Update(t.Context(), mails) },
		"patch":  func() error { return limited.Patch(t.Context(), mails, client.MergeFrom(mails.DeepCopy())) },
		"delete": func() error { return limited.Delete(t.Context(), mails) },
	} {
		g.Expect(apierrors.IsForbidden(do())).To(BeTrue(), verb)
	}
}
