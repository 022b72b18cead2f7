package main

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/kube"
	"postbus.dev/postbus/internal/testkit"
)

// scopedInstallation has the ServiceAccounts of config/default in a namespace of its own,
// with the rights that config/namespaced binds in some namespaces.
type scopedInstallation struct {
	Gomega
	t      *testing.T
	system string
}

func newScopedInstallation(t *testing.T, namespaces ...string) *scopedInstallation {
	t.Helper()
	s := &scopedInstallation{Gomega: NewWithT(t), t: t, system: plane.Namespace(t)}
	for _, component := range []string{"controller", "ingress", "dispatcher"} {
		s.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: s.system, Name: "postbus-" + component}})
	}
	for _, object := range testkit.Kustomize(t, filepath.Join("config", "rbac")) {
		if object.GetKind() == "Role" {
			object.SetNamespace(s.system)
		}
		s.create(object)
	}
	s.create(&rbacv1.RoleBinding{ // the Lease
		ObjectMeta: metav1.ObjectMeta{Namespace: s.system, Name: "postbus-controller"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "postbus-controller"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: s.system, Name: "postbus-controller"}},
	})
	for _, namespace := range namespaces {
		for _, object := range testkit.Kustomize(t, filepath.Join("config", "namespaced", "default")) {
			binding := &rbacv1.RoleBinding{}
			s.Expect(runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, binding)).To(Succeed())
			binding.Namespace, binding.Subjects[0].Namespace = namespace, s.system
			s.create(binding)
		}
	}
	return s
}

func (s *scopedInstallation) create(object client.Object) {
	s.t.Helper()
	s.Expect(client.IgnoreAlreadyExists(plane.Client.Create(s.t.Context(), object))).To(Succeed())
}

// token returns a token of a component's ServiceAccount.
func (s *scopedInstallation) token(component string) string {
	s.t.Helper()
	token := &authenticationv1.TokenRequest{}
	s.Expect(plane.Client.SubResource("token").Create(s.t.Context(),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: s.system, Name: "postbus-" + component}}, token)).To(Succeed())
	return token.Status.Token
}

// readSecret reads a Secret as a component.
func (s *scopedInstallation) readSecret(component, namespace, name string) error {
	s.t.Helper()
	access := rest.AnonymousClientConfig(plane.Config)
	access.BearerToken = s.token(component)
	caller, err := client.New(access, client.Options{Scheme: kube.NewScheme()})
	s.Expect(err).NotTo(HaveOccurred())
	return caller.Get(s.t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, &corev1.Secret{})
}

// TestNamespacesWithRolesAlone runs each component with rights in two namespaces and no
// others: contacts come and go there, and nothing happens elsewhere.
func TestNamespacesWithRolesAlone(t *testing.T) {
	receiver := testkit.NewReceiver(t)
	inside, outside := declare(t, receiver.URL()), declare(t, receiver.URL())
	in, out := inside.subscription.Namespace, outside.subscription.Namespace
	empty := plane.Namespace(t)
	s := newScopedInstallation(t, in, empty)
	i := &installation{t: t, ingress: freeAddress(t)}
	store := &cluster{installation: i, dsnFiles: map[string]string{}}
	store.migrate(testkit.NewPostgreSQL(t))
	callbacks := []string{"--allow-http-callbacks", "--allow-callback-networks=127.0.0.0/8"}
	processes := map[string]*child{}
	for component, more := range map[string][]string{
		"controller": append(callbacks, "--lease-namespace="+s.system),
		"ingress":    {"--ingress-address=" + i.ingress, "--allow-plain-http"},
		"dispatcher": callbacks,
	} {
		processes[component] = start(t, append([]string{
			component, "--kubeconfig=" + writeTokenKubeconfig(t, s.token(component)), "--store-dsn-file=" + store.dsnFiles[component],
			"--metrics-address=" + freeAddress(t), "--namespaces=" + in + "," + empty,
		}, more...)...)
	}
	i.waitUntilReady()
	inside.waitUntilReady(t, i)
	s.Expect(post(t, i.ingress, inside.key, "ada@example.com")).To(BeTrue())
	s.Eventually(receiver.Calls, patience).Should(HaveLen(1))

	s.Expect(post(t, i.ingress, outside.key, "eve@example.com")).To(BeFalse(), "the key is unknown")
	untouched := &v1alpha1.WebhookSubscription{}
	s.Expect(plane.Client.Get(t.Context(), client.ObjectKeyFromObject(outside.subscription), untouched)).To(Succeed())
	s.Expect(untouched.Generation).To(BeEquivalentTo(1))
	s.Expect(untouched.Finalizers).To(BeEmpty())
	s.Expect(untouched.Status.ObservedGeneration).To(BeZero())
	err := plane.Client.Get(t.Context(), client.ObjectKey{Namespace: out, Name: outside.subscription.SigningSecretName()}, &corev1.Secret{})
	s.Expect(apierrors.IsNotFound(err)).To(BeTrue(), "%v", err)
	for _, component := range []string{"controller", "dispatcher"} {
		s.Expect(s.readSecret(component, in, "website-form")).To(Succeed(), component)
		s.Expect(apierrors.IsForbidden(s.readSecret(component, out, "website-form"))).To(BeTrue(), component)
	}
	s.Expect(apierrors.IsForbidden(s.readSecret("ingress", in, "website-form"))).To(BeTrue())
	for component, process := range processes {
		s.Expect(process.output.String()).NotTo(ContainSubstring("forbidden"), component)
	}
	s.Expect(receiver.Calls()).To(HaveLen(1))
}

// TestNamespaceWithoutRights: a namespace that the process may not read keeps it from
// becoming ready, and the log says which right is missing.
func TestNamespaceWithoutRights(t *testing.T) {
	s := newScopedInstallation(t, plane.Namespace(t))
	folder := t.TempDir()
	metrics := freeAddress(t)
	process := start(t, "ingress", "--kubeconfig="+writeTokenKubeconfig(t, s.token("ingress")), "--store="+filepath.Join(folder, "postbus.db"),
		"--ingress-address="+freeAddress(t), "--allow-plain-http", "--metrics-address="+metrics, "--namespaces="+plane.Namespace(t))
	s.Eventually(process.output.String, patience).Should(And(ContainSubstring("forbidden"), ContainSubstring("postbus-ingress")))
	s.Expect(get(t, "http://"+metrics+"/readyz")).NotTo(Equal(http.StatusOK))
	s.Expect(strings.Contains(process.output.String(), s.token("ingress"))).To(BeFalse())
}
