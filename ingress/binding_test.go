package ingress_test

import (
	"net/http"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/link"
	"postbus.dev/postbus/internal/testkit"
)

// A list that is not bound to its namespace shows and changes nothing that the store has
// under its name, which may be another one's: neither to keys nor to links.
func TestListThatIsNotBound(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	ada := f.subscriber(t, "ada@example.com")
	bearer := map[string]string{"Authorization": "Bearer " + f.reader(t)}
	f.bind(t, "")
	before := f.state(t)
	for name, sent := range map[string]request{
		"write":  forms["form"](f.with("grace@example.com")),
		"read":   {method: http.MethodGet, path: "/v1/lists/newsletter/contacts/ada@example.com", header: bearer},
		"export": {method: http.MethodGet, path: "/v1/lists/newsletter/contacts", header: bearer},
	} {
		got := f.send(t, sent)
		g.Expect(got.status).To(Equal(http.StatusServiceUnavailable), name)
		g.Expect(got.body).To(ContainSubstring(`"code":"ListNotReady"`), name)
		g.Expect(got.header.Get("Retry-After")).To(Equal("5"), name)
	}
	for _, purpose := range []link.Purpose{link.Confirm, link.Unsubscribe, link.Profile} {
		expectPage(t, f.open(t, f.link(purpose, ada), "de"), http.StatusServiceUnavailable, "later")
		expectPage(t, f.press(t, f.link(purpose, ada), nil), http.StatusServiceUnavailable, "later")
	}
	g.Expect(f.state(t)).To(Equal(before))

	f.bind(t, "bound")
	g.Expect(f.send(t, forms["form"](f.with("grace@example.com"))).status).To(Equal(http.StatusOK))
}

// bind sets the UID in the list's status, and waits until ingress sees it.
func (f *fixture) bind(t *testing.T, uid string) {
	t.Helper()
	g := NewWithT(t)
	name := client.ObjectKey{Namespace: f.namespace, Name: "newsletter"}
	list := &v1alpha1.ContactList{}
	g.Expect(plane.Client.Get(t.Context(), name, list)).To(Succeed())
	list.Status.NamespaceUID = uid
	g.Expect(plane.Client.Status().Update(t.Context(), list)).To(Succeed())
	g.Eventually(func() (bool, error) {
		seen := &v1alpha1.ContactList{}
		err := f.objects.Get(t.Context(), name, seen)
		return seen.IsBound(), err
	}).WithTimeout(10 * time.Second).Should(Equal(uid != ""))
}

// Whoever may write the status of lists, as authors with a right on all resources of
// postbus.dev can, gets nothing by it: the store must have bound the list.
func TestStatusAloneBindsNoList(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	forged := testkit.List(f.namespace, "forged")
	g.Expect(plane.Client.Create(t.Context(), forged)).To(Succeed())
	forged.Status.NamespaceUID = "bound"
	g.Expect(plane.Client.Status().Update(t.Context(), forged)).To(Succeed())
	g.Eventually(func() (bool, error) {
		seen := &v1alpha1.ContactList{}
		err := f.objects.Get(t.Context(), client.ObjectKeyFromObject(forged), seen)
		return seen.IsBound(), client.IgnoreNotFound(err)
	}).WithTimeout(10 * time.Second).Should(BeTrue())
	key := f.issue(t, "thief", func(key *v1alpha1.ApiKey) {
		key.Spec.ListRef.Name, key.Spec.Scopes = forged.Name, []v1alpha1.ApiKeyScope{v1alpha1.ScopeContactsRead}
	})
	read := func() answer { return f.read(t, "/v1/lists/forged/contacts", key) }
	got := read()
	g.Expect(got.status).To(Equal(http.StatusServiceUnavailable))
	g.Expect(got.body).To(ContainSubstring(`"code":"ListNotReady"`))

	testkit.Bind(t, f.store, forged)
	g.Expect(read().status).To(Equal(http.StatusOK))
}
