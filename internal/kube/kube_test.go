package kube_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/kube"
	"postbus.dev/postbus/internal/testkit"
)

var plane *testkit.ControlPlane

func TestMain(m *testing.M) {
	os.Exit(testkit.Run(m, func(p *testkit.ControlPlane) { plane = p }))
}

// patience is how long the API server may take to serve what was installed.
const patience = 30 * time.Second

// TestInNamespaces: objects of other namespaces do not exist for the cache, rather than fail
// to be read, since the store may hold rows of them.
func TestInNamespaces(t *testing.T) {
	g := NewWithT(t)
	in, out := plane.Namespace(t), plane.Namespace(t)
	for _, namespace := range []string{in, out} {
		g.Expect(plane.Client.Create(t.Context(), testkit.List(namespace, "newsletter"))).To(Succeed())
	}
	ctx, stop := context.WithCancel(t.Context())
	objects, err := kube.NewCacheOf(ctx, []string{in}, plane.Config, &v1alpha1.ContactList{})
	g.Expect(err).NotTo(HaveOccurred())
	ended := make(chan error, 1)
	go func() { ended <- objects.Start(ctx) }()
	defer func() { stop(); g.Expect(<-ended).To(Succeed()) }()
	g.Expect(objects.WaitForCacheSync(ctx)).To(BeTrue())
	read := func(namespace string) error {
		return objects.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "newsletter"}, &v1alpha1.ContactList{})
	}
	g.Expect(read(in)).To(Succeed())
	g.Expect(apierrors.IsNotFound(read(out))).To(BeTrue())
	var all v1alpha1.ContactListList
	g.Expect(objects.List(ctx, &all)).To(Succeed())
	g.Expect(all.Items).To(HaveExactElements(HaveField("Namespace", in)))
}

// TestCheckVersion takes the definitions away one by one, and installs those of
// another version in the end.
func TestCheckVersion(t *testing.T) {
	g := NewWithT(t)
	g.Expect(apiextensions.AddToScheme(plane.Client.Scheme())).To(Succeed())
	check := func() error { return kube.CheckVersion(plane.Config) }
	g.Expect(check()).To(Succeed())

	var installed apiextensions.CustomResourceDefinitionList
	g.Expect(plane.Client.List(t.Context(), &installed)).To(Succeed())
	g.Expect(installed.Items).To(HaveLen(3))
	for i := range installed.Items {
		g.Expect(plane.Client.Delete(t.Context(), &installed.Items[i])).To(Succeed())
		if i == 0 {
			g.Eventually(check, patience).Should(MatchError(And(
				ContainSubstring("does not serve "+installed.Items[0].Spec.Names.Plural),
				ContainSubstring("apply the config/crd of this version"))))
		}
	}
	g.Eventually(check, patience).Should(MatchError(ContainSubstring("does not know the group postbus.dev; apply config/crd first")))

	other := apiextensions.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: installed.Items[0].Name},
		Spec:       installed.Items[0].Spec,
	}
	other.Spec.Versions[0].Name = "v1beta1"
	g.Eventually(func() error { return client.IgnoreAlreadyExists(plane.Client.Create(t.Context(), &other)) }, patience).Should(Succeed())
	g.Eventually(check, patience).Should(MatchError(
		ContainSubstring("the cluster serves postbus.dev/v1beta1, this program needs postbus.dev/v1alpha1")))
	g.Expect(check()).To(MatchError(kube.ErrCRDMissing))
}

// An API server that can't answer now says nothing about what it serves.
func TestCheckVersionOfAServerThatFails(t *testing.T) {
	g := NewWithT(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api":
			w.WriteHeader(http.StatusNotFound)
			return
		case "/apis":
		default:
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"kind":"APIGroupList","apiVersion":"v1","groups":[{"name":"postbus.dev",`+
			`"versions":[{"groupVersion":"postbus.dev/v1alpha1","version":"v1alpha1"}],`+
			`"preferredVersion":{"groupVersion":"postbus.dev/v1alpha1","version":"v1alpha1"}}]}`)
	}))
	defer server.Close()
	err := kube.CheckVersion(&rest.Config{Host: server.URL})
	g.Expect(err).To(MatchError(HavePrefix("ask the API server for the kinds of postbus.dev/v1alpha1: ")))
	g.Expect(err).NotTo(MatchError(kube.ErrCRDMissing))
}
