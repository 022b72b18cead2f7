package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/command"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/testkit"
)

// desk is where an operator of a running installation types.
type desk struct {
	Gomega
	t            *testing.T
	installation *installation
	receiver     *testkit.Receiver
	objects      declared
}

// newDesk runs an installation with the subscription crm, whose callback is
// deactivated by the first event that it does not take twice.
func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{Gomega: NewWithT(t), t: t, installation: newInstallation(t), receiver: testkit.NewReceiver(t)}
	d.objects = declare(t, d.receiver.URL())
	d.hire(d.objects.subscription.Namespace)
	patch := client.MergeFrom(d.objects.subscription.DeepCopy())
	d.objects.subscription.Spec.Retry.Intervals = []metav1.Duration{{Duration: time.Second}}
	d.Expect(plane.Client.Patch(t.Context(), d.objects.subscription, patch)).To(Succeed())
	d.installation.start()
	d.objects.waitUntilReady(t, d.installation)
	return d
}

// said is what became of a command.
type said struct {
	Out, Err string
	Code     int
}

// operatorUser is a user who has the rights of config/rbac/operator in the namespaces
// of desks.
const operatorUser = "operator"

// hire gives the operator the rights that the commands are said to need.
func (d *desk) hire(namespace string) {
	d.t.Helper()
	text, err := os.ReadFile(filepath.Join("config", "rbac", "operator", "role.yaml"))
	d.Expect(err).NotTo(HaveOccurred())
	role := &rbacv1.ClusterRole{}
	d.Expect(yaml.UnmarshalStrict(text, role)).To(Succeed())
	for _, object := range testkit.Kustomize(d.t, filepath.Join("config", "policies")) { // patch is the right to annotate
		d.Expect(client.IgnoreAlreadyExists(plane.Client.Create(d.t.Context(), object))).To(Succeed())
	}
	for _, object := range []client.Object{role, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: operatorUser},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: operatorUser}},
	}} {
		d.Expect(client.IgnoreAlreadyExists(plane.Client.Create(d.t.Context(), object))).To(Succeed())
	}
}

// types runs postbus in a process of its own, as the operator.
func (d *desk) types(arguments ...string) said {
	d.t.Helper()
	return d.run(os.Args[0], append(arguments, d.flags()...)...)
}

func (d *desk) flags() []string {
	return []string{"--namespace=" + d.objects.subscription.Namespace, "--kubeconfig=" + d.installation.kubeconfig, "--as=" + operatorUser}
}

func (d *desk) run(program string, arguments ...string) said {
	d.t.Helper()
	var out, errOut bytes.Buffer
	c := exec.CommandContext(d.t.Context(), program, arguments...)
	c.Env = append(os.Environ(), asPostbus+"=1")
	c.Stdout, c.Stderr = &out, &errOut
	_ = c.Run() // the exit code tells
	return said{Out: out.String(), Err: errOut.String(), Code: c.ProcessState.ExitCode()}
}

// post has ingress take contacts, and returns when they are counted.
func (d *desk) post(addresses ...string) {
	d.t.Helper()
	for _, address := range addresses {
		d.Expect(post(d.t, d.installation.ingress, d.objects.key, address)).To(BeTrue())
	}
}

func (d *desk) status() v1alpha1.WebhookSubscriptionStatus {
	d.t.Helper()
	subscription := &v1alpha1.WebhookSubscription{}
	d.Expect(plane.Client.Get(d.t.Context(), client.ObjectKeyFromObject(d.objects.subscription), subscription)).To(Succeed())
	return subscription.Status
}

const crm = "webhooksubscription.postbus.dev/crm"

func TestTestCommand(t *testing.T) {
	d := newDesk(t)
	done := d.types("test", "crm")
	d.Expect(done).To(And(HaveField("Code", command.ExitDone), HaveField("Err", BeEmpty())))
	d.Expect(done.Out).To(HavePrefix(crm + " tested: The callback took the test event (200)"))
	d.Expect(d.receiver.Calls()).To(HaveExactElements(HaveField("Header", HaveKeyWithValue("Postbus-Test", []string{"true"}))))

	d.receiver.Answer(http.StatusTeapot)
	failed := d.types("test", crm, "-o", "json")
	d.Expect(failed.Code).To(Equal(command.ExitNotDone))
	var told v1alpha1.WebhookSubscriptionStatus
	d.Expect(json.Unmarshal([]byte(failed.Out), &told)).To(Succeed(), failed.Out)
	d.Expect(told.Requests).To(HaveExactElements(And(
		HaveField("Type", v1alpha1.RequestTest), HaveField("Result", v1alpha1.RequestFailed), HaveField("Message", ContainSubstring("418")))))

	d.receiver.Answer(http.StatusOK)
	wide := d.types("test", "crm", "-o", "wide")
	d.Expect(strings.Fields(wide.Out)[:7]).To(HaveExactElements("TYPE", "RESULT", "TIME", "VALUE", "MESSAGE", "Test", "Done"))
	d.Expect(d.types("test", "crm", "-o", "name").Out).To(Equal(crm + "\n"))
}

// The plugin's way, through the real kubectl.
func TestKubectlPlugin(t *testing.T) {
	d := newDesk(t)
	folder := t.TempDir()
	kubectl, err := filepath.Abs(filepath.Join("bin", "kubectl"))
	d.Expect(err).NotTo(HaveOccurred())
	if assets := os.Getenv("KUBEBUILDER_ASSETS"); assets != "" {
		kubectl = filepath.Join(assets, "kubectl")
	}
	program, err := filepath.Abs(os.Args[0])
	d.Expect(err).NotTo(HaveOccurred())
	d.Expect(os.Symlink(program, filepath.Join(folder, command.PluginFile))).To(Succeed())
	t.Setenv("PATH", folder+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("KUBECONFIG", d.installation.kubeconfig)
	d.Expect(d.run(kubectl, "plugin", "list").Out).To(ContainSubstring(command.PluginFile))

	done := d.run(kubectl, "postbus", "test", "crm", "--namespace", d.objects.subscription.Namespace)
	d.Expect(done).To(And(HaveField("Code", command.ExitDone), HaveField("Out", ContainSubstring("The callback took the test event"))), done.Err)
	d.Expect(d.run(kubectl, "postbus", "--help").Out).To(And(ContainSubstring("kubectl postbus [command]"), Not(ContainSubstring("standalone"))))
	d.Expect(d.run(kubectl, "postbus", "standalone")).To(And(
		HaveField("Code", command.ExitUsage), HaveField("Err", HavePrefix(`error: unknown command "standalone"`))))
	wrong := d.run(kubectl, "postbus", "replay", "crm")
	d.Expect(wrong.Err).To(HaveSuffix("See 'kubectl postbus replay --help' for usage.\n"))
}

func TestReactivateCommand(t *testing.T) {
	d := newDesk(t)
	refused := d.types("reactivate", "crm", "--replay-events=true")
	d.Expect(refused.Code).To(Equal(command.ExitNotDone), refused.Err)
	d.Expect(refused.Out).To(HavePrefix(crm + " refused: "))

	d.receiver.Answer(http.StatusServiceUnavailable)
	d.post("ada@example.com", "grace@example.com")
	d.Eventually(d.status, patience).Should(HaveField("State", v1alpha1.StateFailed))
	d.post("hedy@example.com")
	d.Eventually(d.status, patience).Should(HaveField("Buffer", HaveValue(HaveField("Events", HaveValue(BeEquivalentTo(3))))))
	d.receiver.Answer(http.StatusOK)
	before := d.receiver.Count()
	done := d.types("reactivate", "crm", "--replay-events=true", "--wait")
	d.Expect(done.Code).To(Equal(command.ExitDone), done.Out+done.Err)
	d.Expect(done.Out).To(HavePrefix(crm + " reactivated: "))
	d.Expect(done.Out).To(HaveSuffix(crm + " replay completed: 3 of 3 events sent\n"))
	d.Expect(d.receiver.Calls()[before:]).To(And(HaveLen(3), HaveEach(HaveField("Header", HaveKeyWithValue("Postbus-Replay", []string{"true"})))))

	d.receiver.Answer(http.StatusGone)
	d.post("joan@example.com")
	d.Eventually(d.status, patience).Should(HaveField("State", v1alpha1.StateFailed))
	d.receiver.Answer(http.StatusOK)
	before = d.receiver.Count()
	dropped := d.types("reactivate", "crm", "--replay-events=false", "-o", "yaml")
	d.Expect(dropped.Code).To(Equal(command.ExitDone), dropped.Err)
	var told v1alpha1.WebhookSubscriptionStatus
	d.Expect(yaml.UnmarshalStrict([]byte(dropped.Out), &told)).To(Succeed(), dropped.Out)
	d.Expect(told).To(And(HaveField("Replay", BeNil()), HaveField("Requests", HaveExactElements(HaveField("Result", v1alpha1.RequestDone)))))
	d.Eventually(d.status, patience).Should(HaveField("State", v1alpha1.StateActive))
	d.Expect(d.receiver.Count()).To(Equal(before), "what was kept is dropped")
}

func TestReplayCommand(t *testing.T) {
	d := newDesk(t)
	d.post("ada@example.com", "grace@example.com", "hedy@example.com")
	d.Eventually(d.receiver.Count, patience).Should(Equal(3))
	d.Eventually(d.status, patience).Should(HaveField("PendingEvents", HaveValue(BeZero())))
	id := d.receiver.Calls()[1].Header.Get(signature.HeaderID)
	sent := func(arguments ...string) (said, []string) {
		d.t.Helper()
		before := d.receiver.Count()
		done := d.types(append([]string{"replay", "crm", "--wait"}, arguments...)...)
		d.Expect(done.Code).To(Equal(command.ExitDone), done.Out+done.Err)
		var ids []string
		for _, call := range d.receiver.Calls()[before:] {
			d.Expect(call.Header.Get("Postbus-Replay")).To(Equal("true"))
			ids = append(ids, call.Header.Get(signature.HeaderID))
		}
		return done, ids
	}

	for range 2 { // the same event again is another request
		done, ids := sent("--event=" + id)
		d.Expect(ids).To(Equal([]string{id}))
		d.Expect(done.Out).To(And(HavePrefix(crm+" replaying: A replay of 1 events was begun."), HaveSuffix(crm+" replay completed: 1 of 1 events sent\n")))
	}
	_, ids := sent("--since=1h")
	d.Expect(ids).To(HaveLen(3))
	_, ids = sent("--since=5d", "--until=1h")
	d.Expect(ids).To(BeEmpty())
	_, ids = sent("--since=" + time.Now().Add(-time.Hour).Format(time.RFC3339))
	d.Expect(ids).To(HaveLen(3), "the end of the range before is not kept")

	done, ids := sent("--failed", "-o", "json")
	d.Expect(ids).To(BeEmpty())
	var told v1alpha1.WebhookSubscriptionStatus
	d.Expect(json.Unmarshal([]byte(done.Out), &told)).To(Succeed(), done.Out)
	d.Expect(told.Replay).To(HaveValue(And(HaveField("Of", v1alpha1.ReplayOfFailed), HaveField("State", v1alpha1.ReplayCompleted))))
	d.Expect(done.Err).To(ContainSubstring("replay completed"), "progress is not where a program reads")

	unknown := d.types("replay", "crm", "--event=evt_000000000A7_4SLZ7QWVEKXN2RZMXJ5YCG3UTA")
	d.Expect(unknown).To(And(HaveField("Code", command.ExitNotDone), HaveField("Out", Equal(crm+" refused: The log has no event of this id.\n"))))

	// One that fails again ends with another exit code.
	patch := client.MergeFrom(d.objects.subscription.DeepCopy())
	d.objects.subscription.Spec.Deactivation.Policy = v1alpha1.DeactivateNever
	d.Expect(plane.Client.Patch(t.Context(), d.objects.subscription, patch)).To(Succeed())
	d.Eventually(d.status, patience).Should(HaveField("ObservedGeneration", d.objects.subscription.Generation))
	d.receiver.Answer(http.StatusServiceUnavailable)
	failed := d.types("replay", "crm", "--event="+id, "--wait")
	d.Expect(failed.Code).To(Equal(command.ExitNotDone), failed.Out+failed.Err)
	d.Expect(failed.Out).To(HaveSuffix("0 of 1 events sent, 1 failed and set aside\n"))
}

func TestAttemptsCommand(t *testing.T) {
	d := newDesk(t)
	none := d.types("attempts", "crm")
	d.Expect(none).To(And(HaveField("Code", command.ExitDone), HaveField("Out", BeEmpty()), HaveField("Err", Equal("No attempts of crm yet.\n"))))

	watching := start(t, append([]string{"attempts", "crm", "--watch"}, d.flags()...)...)
	d.Eventually(watching.output.String, patience).Should(ContainSubstring("No attempts"))
	d.post("ada@example.com")
	d.Eventually(watching.output.String, patience).Should(MatchRegexp(`(?m)^AGE +EVENT +TYPE +ATTEMPT +OUTCOME +STATUS +DURATION *\n\S+ +evt_\w+ +Create +1 +Delivered +200 +\S+$`))
	d.receiver.Answer(http.StatusServiceUnavailable)
	d.Expect(d.types("test", "crm").Code).To(Equal(command.ExitNotDone))
	d.Eventually(watching.output.String, patience).Should(MatchRegexp(`(?m)^\S+ +test_\w+ +Create +1 +HTTPStatus +503 +\S+$`))
	d.Expect(strings.Count(watching.output.String(), "Delivered")).To(Equal(1), "each is printed once")
	d.Expect(strings.Count(watching.output.String(), "OUTCOME")).To(Equal(1))
	watching.signal(syscall.SIGINT)
	d.Expect(watching.cmd.ProcessState.ExitCode()).To(Equal(command.ExitInterrupted))

	type list struct {
		RecentAttempts []v1alpha1.Attempt `json:"recentAttempts"`
	}
	fits := HaveExactElements(
		And(HaveField("Test", Equal(ptr.To(true))), HaveField("Outcome", "HTTPStatus"), HaveField("HTTPStatus", HaveValue(BeEquivalentTo(503)))),
		And(HaveField("EventID", d.receiver.Calls()[0].Header.Get(signature.HeaderID)), HaveField("Outcome", "Delivered")))
	store := "--store=" + d.installation.store
	for _, more := range [][]string{{}, {store}} { // status, and the store beside the running process
		var fromJSON, fromYAML list
		printed := d.types(append([]string{"attempts", "crm", "-o", "json"}, more...)...)
		d.Expect(json.Unmarshal([]byte(printed.Out), &fromJSON)).To(Succeed(), printed.Out+printed.Err)
		d.Expect(fromJSON.RecentAttempts).To(fits)
		printed = d.types(append([]string{"attempts", "crm", "-o", "yaml"}, more...)...)
		d.Expect(yaml.UnmarshalStrict([]byte(printed.Out), &fromYAML)).To(Succeed(), printed.Out+printed.Err)
		d.Expect(fromYAML).To(Equal(fromJSON))
		wide := d.types(append([]string{"attempts", "crm", "-o", "wide"}, more...)...)
		d.Expect(wide.Out).To(MatchRegexp(`TIME +SENT BY\n.* -\n.* Test\n$`))
	}

	d.receiver.Answer(http.StatusOK)
	fromStore := start(t, "attempts", "crm", "--watch", "-o", "json", store, "--namespace="+d.objects.subscription.Namespace)
	d.Eventually(fromStore.output.String, patience).Should(ContainSubstring("503"))
	var addresses []string
	for n := range 30 {
		addresses = append(addresses, fmt.Sprintf("ada.%d@example.com", n))
	}
	d.post(addresses...)
	d.Eventually(func() int { return strings.Count(fromStore.output.String(), `"Delivered"`) }, patience).Should(Equal(31), "the store has all")
	d.Eventually(d.status, patience).Should(HaveField("RecentAttempts", And(HaveLen(10), HaveEach(HaveField("Outcome", "Delivered")))))
}

func TestVerbsThatFail(t *testing.T) {
	d := &desk{Gomega: NewWithT(t), t: t, installation: newInstallation(t)}
	d.objects.subscription = testkit.Subscription(plane.Namespace(t), "crm", "https://crm.example.com/")
	d.hire(d.objects.subscription.Namespace)
	for _, verb := range [][]string{{"test"}, {"attempts"}, {"replay", "--failed"}, {"reactivate", "--replay-events=false"}} {
		d.Expect(d.types(append(verb, "crm")...)).To(Equal(said{
			Err: "Error from server (NotFound): webhooksubscriptions.postbus.dev \"crm\" not found\n", Code: command.ExitNotDone,
		}))
	}
	d.Expect(d.run(os.Args[0], "test", "crm", "--kubeconfig="+d.installation.kubeconfig, "--as="+operatorUser)).To(HaveField("Err",
		HavePrefix(`Error from server (Forbidden): webhooksubscriptions.postbus.dev "crm" is forbidden: User "operator" cannot patch`)), "in another namespace")
	d.Expect(d.types("test", "crm", "--server=http://127.0.0.1:1")).To(HaveField("Err",
		Equal("The connection to the server 127.0.0.1:1 was refused - did you specify the right host or port?\n")))

	// Nobody is there to answer.
	d.Expect(plane.Client.Create(t.Context(), d.objects.subscription)).To(Succeed())
	late := d.types("test", "crm", "--timeout=200ms")
	d.Expect(late.Code).To(Equal(command.ExitTimeout), late.Err)
	d.Expect(late.Err).To(And(HavePrefix("error: timed out waiting for the request Test"), ContainSubstring("which stands")))
}
