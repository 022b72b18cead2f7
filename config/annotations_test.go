package config_test

import (
	"os/exec"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/kube"
	"postbus.dev/postbus/internal/testkit"
)

// bound returns the access of a user who has a ClusterRole of config/rbac in the namespace.
func (p *policed) bound(role string) *rest.Config {
	p.t.Helper()
	for _, object := range testkit.Kustomize(p.t, "rbac") {
		if object.GetKind() == "ClusterRole" && object.GetName() == role {
			p.Expect(apply(p.t, object)).To(Succeed())
		}
	}
	name := p.namespace + "-" + role
	p.Expect(plane.Client.Create(p.t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}},
	})).To(Succeed())
	access := rest.CopyConfig(plane.Config)
	access.Impersonate.UserName = name
	return access
}

func (p *policed) client(access *rest.Config) client.Client {
	p.t.Helper()
	caller, err := client.New(access, client.Options{Scheme: kube.NewScheme()})
	p.Expect(err).NotTo(HaveOccurred())
	return caller
}

// kubectl returns a function that runs kubectl as a user.
func (p *policed) kubectl(access *rest.Config) func(arguments ...string) (string, error) {
	p.t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["test"] = &clientcmdapi.Cluster{Server: access.Host, CertificateAuthorityData: access.CAData}
	config.AuthInfos["test"] = &clientcmdapi.AuthInfo{
		ClientCertificateData: access.CertData, ClientKeyData: access.KeyData, Impersonate: access.Impersonate.UserName,
	}
	config.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test", Namespace: p.namespace}
	config.CurrentContext = "test"
	file := filepath.Join(p.t.TempDir(), "kubeconfig")
	p.Expect(clientcmd.WriteToFile(*config, file)).To(Succeed())
	return func(arguments ...string) (string, error) {
		said, err := exec.CommandContext(p.t.Context(), testkit.Kubectl(p.t), append(arguments, "--kubeconfig="+file)...).CombinedOutput()
		return string(said), err
	}
}

// requests are the annotations that ask for something.
var requests = map[string][]string{
	"webhooksubscription": {
		v1alpha1.AnnotationReactivate, v1alpha1.AnnotationReplayEvents, v1alpha1.AnnotationReplaySince, v1alpha1.AnnotationReplayUntil,
		v1alpha1.AnnotationReplayEvent, v1alpha1.AnnotationReplayFailed, v1alpha1.AnnotationTest, v1alpha1.RotateSigningAnnotation,
	},
	"apikey": {v1alpha1.RotateAnnotation},
}

// TestOperatorAnnotates: the role postbus-operator asks for all that annotations ask for,
// and changes nothing else.
func TestOperatorAnnotates(t *testing.T) {
	p := police(t)
	objects := map[string]*unstructured.Unstructured{
		"webhooksubscription": p.declared("WebhookSubscription", "crm", rich),
		"apikey":              p.declared("ApiKey", "form", secretFields["ApiKey spec.secretRef"]),
	}
	access := p.bound("postbus-operator")
	operator, kubectl := p.client(access), p.kubectl(access)
	for resource, annotations := range requests {
		object := objects[resource]
		object.SetFinalizers([]string{v1alpha1.Finalizer})
		p.Expect(plane.Client.Create(t.Context(), object)).To(Succeed())
		for _, annotation := range annotations {
			for _, change := range []string{"=1", "=2", "-"} {
				said, err := kubectl("annotate", resource, object.GetName(), annotation+change, "--overwrite")
				p.Expect(err).NotTo(HaveOccurred(), said)
			}
		}
		for name, patch := range map[string]string{
			"spec":                    `{"spec":{"suspend":true}}`,
			"a label":                 `{"metadata":{"labels":{"a":"b"}}}`,
			"another annotation":      `{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{}"}}}`,
			"a prefix that is longer": `{"metadata":{"annotations":{"evil.postbus.dev/test":"1"}}}`,
			"an owner":                `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"a","uid":"b"}]}}`,
			"no finalizers":           `{"metadata":{"finalizers":null}}`,
			"both":                    `{"metadata":{"annotations":{"postbus.dev/test":"1"}},"spec":{"suspend":true}}`,
		} {
			p.Expect(operator.Patch(t.Context(), object.DeepCopy(), merge(patch))).To(
				MatchError(ContainSubstring("without the verb update on "+resource+"s you may change only annotations that begin with postbus.dev/")), name)
		}
		p.refusesOtherWays(operator, object)
	}
	said, err := kubectl("patch", "webhooksubscription", "crm", "--type=json", "-p", `[{"op":"replace","path":"/spec/callback/url","value":"https://evil.example.com"}]`)
	p.Expect(err).To(HaveOccurred())
	p.Expect(said).To(ContainSubstring("without the verb update"))
	said, err = kubectl("scale", "webhooksubscription", "crm", "--replicas=0")
	p.Expect(err).To(HaveOccurred(), said)
}

// refusesOtherWays tries what is no patch of the object itself.
func (p *policed) refusesOtherWays(operator client.Client, object *unstructured.Unstructured) {
	p.t.Helper()
	ctx := p.t.Context()
	applied := p.declared(object.GetKind(), object.GetName(), "suspend: true")
	p.Expect(operator.Apply(ctx, client.ApplyConfigurationFromUnstructured(applied), client.FieldOwner("a"), client.ForceOwnership)).
		To(MatchError(ContainSubstring("without the verb update")))
	changed := object.DeepCopy()
	changed.SetLabels(map[string]string{"a": "b"})
	p.Expect(operator.Update(ctx, changed)).NotTo(Succeed())
	p.Expect(operator.Delete(ctx, object)).NotTo(Succeed())
	p.Expect(operator.Status().Patch(ctx, object.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"status":{"observedGeneration":7}}`)))).
		NotTo(Succeed())
}

// TestEditorEdits: the role postbus-editor has the verb update, which server-side apply of
// GitOps tools and kubectl edit need here; it still names no Secret that it may not get.
func TestEditorEdits(t *testing.T) {
	p := police(t)
	editor := p.client(p.bound("postbus-editor"))
	bare := p.declared("WebhookSubscription", "crm", "callback: {url: 'https://example.com'}")
	apply := func(object *unstructured.Unstructured) error {
		return editor.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(object), client.FieldOwner("flux"))
	}
	p.Expect(apply(bare.DeepCopy())).To(Succeed())
	suspended := p.declared("WebhookSubscription", "crm", "{callback: {url: 'https://example.com'}, suspend: true}")
	suspended.SetLabels(map[string]string{"a": "b"})
	p.Expect(apply(suspended)).To(Succeed())
	p.Expect(apply(p.declared("WebhookSubscription", "erp", rich))).To(MatchError(ContainSubstring("you must be allowed to get the Secret")))
	p.Expect(editor.Status().Patch(t.Context(), bare, merge(`{"status":{"observedGeneration":7}}`))).NotTo(Succeed())
	p.Expect(editor.Delete(t.Context(), bare)).To(Succeed())
}

// TestControllerUnderPolicies: the controller's rights suffice for finalizers and status of
// objects that name Secrets.
func TestControllerUnderPolicies(t *testing.T) {
	p := police(t)
	controller := p.client(p.bound("postbus-controller"))
	for _, object := range []*unstructured.Unstructured{
		p.declared("WebhookSubscription", "crm", rich),
		p.declared("ApiKey", "form", secretFields["ApiKey spec.secretRef"]),
		p.declared("ContactList", "newsletter", "{}"),
	} {
		p.Expect(plane.Client.Create(t.Context(), object)).To(Succeed())
		for _, finalizers := range []string{`["postbus.dev/cleanup"]`, `null`} {
			p.Expect(controller.Patch(t.Context(), object.DeepCopy(), merge(`{"metadata":{"finalizers":`+finalizers+`}}`))).To(Succeed(), object.GetKind())
		}
		p.Expect(controller.Status().Patch(t.Context(), object.DeepCopy(), merge(`{"status":{"observedGeneration":1}}`))).To(Succeed(), object.GetKind())
		p.Expect(controller.Patch(t.Context(), object.DeepCopy(), merge(`{"metadata":{"labels":{"a":"b"}}}`))).NotTo(Succeed(), object.GetKind())
	}
}
