package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/testkit"
)

// kubectlUser is somebody who has kubectl, in one namespace.
type kubectlUser struct {
	WithT
	t           *testing.T
	environment []string
}

func newKubectlUser(t *testing.T, namespace string) *kubectlUser {
	o := &kubectlUser{WithT: *NewWithT(t), t: t}
	kubeconfig := writeKubeconfig(t, t.TempDir())
	config, err := clientcmd.LoadFromFile(kubeconfig)
	o.Expect(err).NotTo(HaveOccurred())
	config.Contexts[config.CurrentContext].Namespace = namespace
	o.Expect(clientcmd.WriteToFile(*config, kubeconfig)).To(Succeed())
	folder, err := filepath.Abs("bin")
	o.Expect(err).NotTo(HaveOccurred())
	if assets := os.Getenv("KUBEBUILDER_ASSETS"); assets != "" {
		folder = assets
	}
	o.environment = append(os.Environ(), "KUBECONFIG="+kubeconfig, "PATH="+folder+":"+os.Getenv("PATH"))
	return o
}

// types types a line into a shell, with an input if there is one, and returns what
// was printed.
func (o *kubectlUser) types(line, input string) string {
	o.t.Helper()
	shell := exec.CommandContext(o.t.Context(), "sh", "-c", line)
	shell.Env = o.environment
	shell.Stdin = strings.NewReader(input)
	printed, err := shell.CombinedOutput()
	o.Expect(err).NotTo(HaveOccurred(), "%s: %s", line, printed)
	return string(printed)
}

// printedCommand returns the command of the documentation that matches.
func printedCommand(t *testing.T, pattern string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("docs", "callbacks.md"))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	command := regexp.MustCompile(`(?m)^kubectl annotate .*` + pattern + `.*$`).FindString(string(text))
	NewWithT(t).Expect(command).NotTo(BeEmpty())
	return command
}

// TestDeactivatedAndReactivated goes through the life of a callback that is down
// as an operator does, with kubectl as the documentation prints it, beside a GitOps
// tool, with a process that is killed with -9 in each state.
func TestDeactivatedAndReactivated(t *testing.T) {
	i := newInstallation(t)
	receiver := testkit.NewReceiver(t)
	objects := declare(t, receiver.URL())
	crm := objects.subscription
	g := newKubectlUser(t, crm.Namespace)
	g.edit(crm, func() {
		crm.Spec.Retry.Intervals = []metav1.Duration{{Duration: time.Second}}
		crm.Spec.Replay.RequestsPerSecond = 2 // so that kubectl has time to end before the replay does
		crm.Spec.RateLimit.MaxInFlight = 2
	})
	process := i.start()
	objects.waitUntilReady(t, i)
	again := func() {
		process.signal(syscall.SIGKILL)
		process = i.start()
	}
	kept := 0
	post := func(count int) {
		for range count {
			kept++
			g.Expect(post(t, i.ingress, objects.key, fmt.Sprintf("ada.%d@example.com", kept))).To(BeTrue())
		}
	}

	receiver.Answer(http.StatusServiceUnavailable)
	post(5)
	g.types("kubectl wait --timeout=60s --for=jsonpath='{.status.state}'=Failed webhooksubscription/crm", "")
	before := receiver.Count()
	again()
	post(10)
	buffered := "kubectl wait --timeout=60s --for=jsonpath='{.status.buffer.events}'=15 webhooksubscription/crm"
	g.types(buffered, "")
	g.Expect(receiver.Count()).To(Equal(before), "nothing is sent to a callback that was deactivated")
	g.Expect(g.types("kubectl get webhooksubscriptions --field-selector status.state=Failed -o name", "")).To(ContainSubstring("/crm"))

	receiver.Answer(http.StatusOK)
	g.gitOps(crm)
	g.types(printedCommand(t, "reactivate="), "")
	g.gitOps(crm) // which does not know the annotation
	g.Eventually(receiver.Count, patience).Should(BeNumerically(">=", before+5))
	g.Expect(receiver.Count()).To(BeNumerically("<", before+15), "at the pace of the replay")
	again()
	g.types("kubectl wait --timeout=60s --for=jsonpath='{.status.replay.state}'=Completed webhooksubscription/crm", "")
	calls := &callBook{}
	g.Expect(calls.read(t, receiver)).To(Equal(kept))
	g.Expect(calls.conflicts).To(BeEmpty())
	taken := receiver.Calls()[before:]
	g.Expect(len(taken)).To(BeNumerically("<=", kept+2+5), "no more is repeated than was in flight, and answered within the second before")
	g.Expect(taken[0].Header.Get("Postbus-Replay")).To(Equal("true"))
	g.types("kubectl wait --timeout=60s --for=condition=Ready webhooksubscription/crm", "")

	// The same value is no new request; another is, and is answered though there
	// is nothing to do.
	g.types(`value=$(kubectl get webhooksubscription crm -o jsonpath='{.status.lastHandledReactivation}') &&
		kubectl annotate --overwrite webhooksubscription crm postbus.dev/reactivate="$value" postbus.dev/replay-events=false`, "")
	count := receiver.Count()
	g.types("kubectl annotate --overwrite webhooksubscription crm postbus.dev/reactivate=once-more", "")
	g.types(`kubectl wait --timeout=60s --for=jsonpath='{.status.requests[?(@.type=="Reactivate")].result}'=Refused webhooksubscription/crm`, "")
	g.Expect(g.types("kubectl get webhooksubscription crm -o jsonpath='{.status.requests[0].message}'", "")).To(ContainSubstring("not deactivated"))
	g.Expect(receiver.Count()).To(Equal(count))
	g.types("kubectl annotate webhooksubscription crm postbus.dev/test=now", "")
	g.types(`kubectl wait --timeout=60s --for=jsonpath='{.status.requests[?(@.type=="Test")].result}'=Done webhooksubscription/crm`, "")
	process.signal(syscall.SIGTERM)
	g.Expect(process.err).NotTo(HaveOccurred())
}

// edit changes an object.
func (o *kubectlUser) edit(object client.Object, change func()) {
	o.t.Helper()
	patch := client.MergeFrom(object.DeepCopyObject().(client.Object))
	change()
	o.Expect(plane.Client.Patch(o.t.Context(), object, patch)).To(Succeed())
}

// gitOps applies what is in Git, as Flux and Argo CD do: on the server, by a
// manager of its own.
func (o *kubectlUser) gitOps(subscription *v1alpha1.WebhookSubscription) {
	o.t.Helper()
	manifest, err := yaml.Marshal(map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "WebhookSubscription",
		"metadata": map[string]any{"name": subscription.Name, "namespace": subscription.Namespace},
		"spec":     subscription.Spec,
	})
	o.Expect(err).NotTo(HaveOccurred())
	o.types("kubectl apply --server-side --force-conflicts --field-manager=gitops -f -", string(manifest))
}
