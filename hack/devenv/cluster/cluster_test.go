package cluster

import (
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const config = "../../../config"

// programs is the folder that has etcd and kube-apiserver.
func programs(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("KUBEBUILDER_ASSETS")
	if dir == "" {
		dir = "../../../bin"
	}
	if _, err := os.Stat(filepath.Join(dir, "kube-apiserver")); err != nil {
		t.Fatalf("no control plane to test with, run make controlplane first: %v", err)
	}
	return dir
}

func start(t *testing.T, options Options) (*Cluster, client.Client) {
	t.Helper()
	g := NewWithT(t)
	c, err := Start(t.Context(), options)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { g.Expect(c.Stop()).To(Succeed()) })
	direct, err := client.New(c.Config, client.Options{})
	g.Expect(err).NotTo(HaveOccurred())
	return c, direct
}

func options(t *testing.T) Options {
	t.Helper()
	dir := t.TempDir()
	return Options{
		Programs: programs(t), Dir: filepath.Join(dir, "cluster"), Logs: filepath.Join(dir, "logs"),
		Kubeconfig: filepath.Join(dir, "kubeconfig"),
	}
}

func TestEverySampleIsAccepted(t *testing.T) {
	g := NewWithT(t)
	_, direct := start(t, options(t))
	g.Expect(InstallCRDs(t.Context(), direct, filepath.Join(config, "crd"))).To(Succeed())

	samples, err := ReadFolder(filepath.Join(config, "samples"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(Apply(t.Context(), direct, samples)).To(Succeed())
	g.Expect(Apply(t.Context(), direct, samples)).To(Succeed(), "a second time changes nothing")

	files, err := filepath.Glob(filepath.Join(config, "samples", "*.yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(samples).To(HaveLen(len(files)-1), "each file but kustomization.yaml holds one sample and is listed there")

	wrong := samples[len(samples)-1].DeepCopy()
	g.Expect(unstructured.SetNestedField(wrong.Object, "x", "spec", "callbak")).To(Succeed())
	g.Expect(Apply(t.Context(), direct, []*unstructured.Unstructured{wrong})).
		To(MatchError(ContainSubstring("callbak")), "a field that is not in the schema is refused")
}

func TestObjectsAndKubeconfigSurviveARestart(t *testing.T) {
	g := NewWithT(t)
	where := options(t)
	namespace := &unstructured.Unstructured{}
	namespace.SetAPIVersion("v1")
	namespace.SetKind("Namespace")
	namespace.SetName("kept")

	first, direct := start(t, where)
	g.Expect(direct.Create(t.Context(), namespace)).To(Succeed())
	kubeconfig, err := os.ReadFile(where.Kubeconfig)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.Stat(where.Kubeconfig)).To(HaveField("Mode()", os.FileMode(0o600)))
	g.Expect(first.Stop()).To(Succeed())

	_, direct = start(t, where)
	g.Expect(direct.Get(t.Context(), client.ObjectKeyFromObject(namespace), namespace)).To(Succeed())
	g.Expect(os.ReadFile(where.Kubeconfig)).To(Equal(kubeconfig))
}

func TestEndedTellsOfAProcessThatDied(t *testing.T) {
	g := NewWithT(t)
	c, _ := start(t, options(t))
	g.Expect(c.apiserver.Kill()).To(Succeed())
	g.Eventually(c.Ended()).WithTimeout(stopGrace).Should(Receive(MatchError(ContainSubstring("kube-apiserver"))))
}

func TestStartSaysWhatIsMissing(t *testing.T) {
	g := NewWithT(t)
	where := options(t)
	where.Programs = t.TempDir()
	_, err := Start(t.Context(), where)
	g.Expect(err).To(MatchError(HavePrefix("start etcd: ")))
}

func TestExistingClusterIsCopied(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	authority := filepath.Join(dir, "ca.crt")
	g.Expect(os.WriteFile(authority, []byte("certificate"), 0o600)).To(Succeed())
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to", "kubeconfig")
	g.Expect(writeKubeconfig(from, &rest.Config{
		Host: "https://cluster.example", BearerToken: "token", TLSClientConfig: rest.TLSClientConfig{CAFile: authority},
	})).To(Succeed())

	used, err := UseExisting(from, to)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(used.Host).To(Equal("https://cluster.example"))
	copied, err := clientcmd.BuildConfigFromFlags("", to)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(copied.BearerToken).To(Equal("token"))
	g.Expect(copied.CAData).To(Equal([]byte("certificate")))

	_, err = UseExisting(filepath.Join(dir, "missing"), to)
	g.Expect(err).To(MatchError(ContainSubstring("missing")))
}
