package ingress_test

import (
	"net/http"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/ingress"
	"postbus.dev/postbus/internal/apikey"
	"postbus.dev/postbus/internal/kube"
	"postbus.dev/postbus/internal/testkit"
)

const (
	noKey      = "'key' parameter not found or too many values."
	unknownKey = "no such api key"
)

func TestNotExactlyOneKey(t *testing.T) {
	f := start(t)
	for name, sent := range map[string]request{
		"no parameter at all":      {},
		"no key":                   {query: "email=max@example.com"},
		"an empty key":             {query: "key=&email=max@example.com"},
		"a key of spaces":          {query: "key=+&email=max@example.com"},
		"an empty one in the body": {query: "key=" + f.key, contentType: formType, body: "key="},
		"a null":                   {query: "key=" + f.key, contentType: jsonType, body: `{"key":null}`},
		"an array":                 {contentType: jsonType, body: `{"key":["` + f.key + `"]}`},
		"a broken escape":          {query: "key=" + f.key + "%zz"},
		"a key behind the error":   {contentType: jsonType, body: `{"a" 1,"key":"` + f.key + `"}`},
		"a key in another case":    {query: "KEY=" + f.key},
	} {
		t.Run(name, func(t *testing.T) {
			body := expectRefusal(t, f.send(t, sent), http.StatusUnauthorized, noKey)
			NewWithT(t).Expect(body.Error.Parameter).To(Equal("key"))
		})
	}
}

func TestKeysThatDoNotWorkAreAnsweredAlike(t *testing.T) {
	f := start(t)
	g := NewWithT(t)
	presented := map[string]string{
		"unknown":         apikey.Generate(),
		"much too long":   apikey.Generate() + string(make([]byte, 1000)),
		"a JSON number":   "42",
		"the digest":      apikey.Digest(f.key),
		"the decoy":       "0000000000000000000000000000000000000000000000000000000000000000",
		"expired by spec": f.issue(t, "expired", func(key *v1alpha1.ApiKey) { key.Spec.ExpiresAt = at(0) }),
		"expired by status": f.issue(t, "rotated", func(key *v1alpha1.ApiKey) {
			key.Status.Keys[0].NotAfter = at(-time.Second)
		}),
		"suspended": f.issue(t, "suspended", func(key *v1alpha1.ApiKey) { key.Spec.Suspend = new(true) }),
		"without list and suspended": f.issue(t, "listless", func(key *v1alpha1.ApiKey) {
			key.Spec.Suspend, key.Spec.ListRef.Name = new(true), "gone"
		}),
		"being deleted": f.issue(t, "deleted", func(key *v1alpha1.ApiKey) { key.Finalizers = []string{v1alpha1.Finalizer} }),
	}
	deleted := testkit.ApiKey(f.namespace, "deleted", "newsletter")
	g.Expect(plane.Client.Delete(t.Context(), deleted)).To(Succeed())
	f.awaitKeys(t, presented["being deleted"], ContainElement(HaveField("DeletionTimestamp", Not(BeNil()))))

	want := f.send(t, request{query: "email=max@example.com&key=never-seen"})
	expectRefusal(t, want, http.StatusUnauthorized, unknownKey)
	want.header.Del("Date")
	for name, key := range presented {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			got := f.send(t, forms["JSON"](map[string]string{"email": "max@example.com", "key": key}))
			got.header.Del("Date")
			g.Expect(got).To(Equal(want), "byte for byte")
		})
	}
	g.Expect(f.contact(t, "max@example.com")).To(BeNil())
}

func TestKeysThatWork(t *testing.T) {
	f := start(t)
	old := apikey.Generate()
	for name, key := range map[string]string{
		"expires later": f.issue(t, "later", func(key *v1alpha1.ApiKey) { key.Spec.ExpiresAt = at(time.Second) }),
		"not suspended": f.issue(t, "awake", func(key *v1alpha1.ApiKey) { key.Spec.Suspend = new(false) }),
		"the newer of two": f.issue(t, "rotating", func(key *v1alpha1.ApiKey) {
			key.Status.Keys = append(key.Status.Keys, v1alpha1.ApiKeyDigest{SHA256: apikey.Digest(old), NotAfter: at(time.Hour)})
		}),
		"the older of two": old,
	} {
		t.Run(name, func(t *testing.T) {
			got := f.send(t, request{query: "email=max@example.com&key=" + key})
			NewWithT(t).Expect(got.status).To(Equal(http.StatusOK), got.body)
		})
	}
}

func TestKeysThatMayNot(t *testing.T) {
	f := start(t)
	g := NewWithT(t)
	leaving := newsletter(f.namespace)
	leaving.Name, leaving.Finalizers = "leaving", []string{"postbus.dev/test"}
	g.Expect(plane.Client.Create(t.Context(), leaving)).To(Succeed())
	g.Expect(plane.Client.Delete(t.Context(), leaving)).To(Succeed())
	g.Eventually(func(g Gomega) {
		var seen v1alpha1.ContactList
		g.Expect(f.objects.Get(t.Context(), client.ObjectKeyFromObject(leaving), &seen)).To(Succeed())
		g.Expect(seen.DeletionTimestamp).NotTo(BeNil())
	}).Should(Succeed())

	const noList = "the scope ContactsWrite has no list: the contact list of the api key does not exist"
	for name, row := range map[string]struct {
		change  func(*v1alpha1.ApiKey)
		message string
	}{
		"another scope": {
			func(key *v1alpha1.ApiKey) {
				key.Spec.Scopes = []v1alpha1.ApiKeyScope{v1alpha1.ScopeContactsRead, v1alpha1.ScopeContactsRemove}
			},
			"the api key does not have the scope ContactsWrite",
		},
		"a list that is gone":    {func(key *v1alpha1.ApiKey) { key.Spec.ListRef.Name = "gone" }, noList},
		"a list that is leaving": {func(key *v1alpha1.ApiKey) { key.Spec.ListRef.Name = "leaving" }, noList},
	} {
		t.Run(name, func(t *testing.T) {
			key := f.issue(t, "may-not-"+randomName(), row.change)
			expectRefusal(t, f.send(t, request{query: "email=nobody&key=" + key}), http.StatusForbidden, row.message)
		})
	}
}

// TestKeyWritesToItsOwnListOnly uses one name for lists of two namespaces.
func TestKeyWritesToItsOwnListOnly(t *testing.T) {
	g := NewWithT(t)
	f := startEverywhere(t)
	other := &fixture{namespace: plane.Namespace(t), objects: f.objects, store: f.store}
	other.declare(t, newsletter(other.namespace))
	key := other.issue(t, "website-form", nil)
	g.Eventually(func() int {
		return f.send(t, request{query: "email=max@example.com&key=" + key}).status
	}).Should(Equal(http.StatusOK))
	g.Expect(f.contact(t, "max@example.com")).To(BeNil())
	g.Expect(other.contact(t, "max@example.com")).NotTo(BeNil())
}

// TestOldestOfTwoObjectsWithOneKey copies a key to another list.
func TestOldestOfTwoObjectsWithOneKey(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	list := newsletter(f.namespace)
	list.Name = "copied"
	g.Expect(plane.Client.Create(t.Context(), list)).To(Succeed())
	twin := testkit.ApiKey(f.namespace, "z-copy", "copied")
	g.Expect(plane.Client.Create(t.Context(), twin)).To(Succeed())
	twin.Status.Keys = []v1alpha1.ApiKeyDigest{{SHA256: apikey.Digest(f.key)}}
	g.Expect(plane.Client.Status().Update(t.Context(), twin)).To(Succeed())
	f.awaitKeys(t, f.key, HaveLen(2))
	got := f.send(t, request{query: encode(f.with("max@example.com"))})
	g.Expect(got.body).To(ContainSubstring(`"list":"newsletter"`))
}

func TestKeysCannotBeLookedUpYet(t *testing.T) {
	g := NewWithT(t)
	requirePlane(t)
	unstarted, err := kube.NewCache(t.Context(), plane.Config, &v1alpha1.ContactList{}, &v1alpha1.ApiKey{})
	g.Expect(err).NotTo(HaveOccurred())
	f := start(t, func(options *ingress.Options) { options.Objects = unstarted })
	got := f.send(t, request{query: encode(f.with("max@example.com"))})
	g.Expect(got.status).To(Equal(http.StatusServiceUnavailable))
	g.Expect(got.header.Get("Retry-After")).NotTo(BeEmpty())
}

func randomName() string { return apikey.Generate()[3:] }
