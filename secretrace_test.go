package main

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/apikey"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/testkit"
)

// thief is a subscription whose author may change it and may read no Secret. It tries to have
// Secrets of the namespace sent to its callback that were generated for other objects.
type thief struct {
	*cluster
	declared
	receiver *testkit.Receiver
	key      *v1alpha1.ApiKey
	other    *v1alpha1.WebhookSubscription
}

// allowedValue is in the Secret that the thief may name.
const allowedValue = "a value that is the thief's own"

// startThief starts one process of each component, with a thief whose spec is accepted.
func startThief(t *testing.T) *thief {
	t.Helper()
	g := NewWithT(t)
	c := &cluster{installation: newInstallation(t), dsnFiles: map[string]string{}, processes: map[string]*child{}}
	c.migrate(testkit.NewPostgreSQL(t))
	c.ingresses = []string{c.ingress}
	receiver := testkit.NewReceiver(t)
	th := &thief{cluster: c, declared: declare(t, receiver.URL()), receiver: receiver}
	namespace := th.subscription.Namespace
	th.key = testkit.ApiKey(namespace, "crm-export", "newsletter")
	th.other = testkit.Subscription(namespace, "shop", receiver.URL()+"/shop")
	th.other.Spec.Suspend = ptr.To(true)
	for _, object := range []client.Object{th.key, th.other, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "own"}, StringData: map[string]string{"value": allowedValue},
	}} {
		g.Expect(plane.Client.Create(t.Context(), object)).To(Succeed())
	}
	dropFinalizers(t, th.key, th.other)
	c.startOne("controller", 0)
	c.startOne("ingress", 0)
	th.startDispatcher()
	c.waitUntilReady()
	th.waitUntilReady(t, c.installation)
	g.Eventually(func() bool { return th.value(th.key.SecretName()) && th.value(th.other.SigningSecretName()) }, patience).Should(BeTrue())
	th.patch(`{"spec":{"callback":{"timeout":"10s"},"rateLimit":{"maxInFlight":100},"replay":{"requestsPerSecond":2000}}}`)
	th.name("own", "value", "")
	th.awaitAccepted(metav1.ConditionTrue)
	return th
}

// startDispatcher starts a dispatcher whose metrics can be read.
func (th *thief) startDispatcher() {
	th.processes["dispatcher0"] = start(th.t, "dispatcher", "--kubeconfig="+th.kubeconfig, "--store-dsn-file="+th.dsnFiles["dispatcher"],
		"--metrics-address="+th.metrics, "--allow-http-callbacks", "--allow-callback-networks=127.0.0.0/8")
}

// value reports whether there is a Secret.
func (th *thief) value(name string) bool {
	key := client.ObjectKey{Namespace: th.subscription.Namespace, Name: name}
	return plane.Client.Get(th.t.Context(), key, &corev1.Secret{}) == nil
}

func (th *thief) patch(patch string) {
	th.t.Helper()
	NewWithT(th.t).Expect(plane.Client.Patch(th.t.Context(), th.subscription, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
}

// name has the subscription name a Secret for its header, and asks for a replay of everything
// unless replay is empty.
func (th *thief) name(secret, key, replay string) {
	th.t.Helper()
	annotations := ""
	if replay != "" {
		annotations = fmt.Sprintf(`"metadata":{"annotations":{%q:%q}},`, v1alpha1.AnnotationReplaySince, "2026-01-01T00:00:00Z "+replay)
	}
	th.patch(fmt.Sprintf(`{%s"spec":{"callback":{"headers":[{"name":"X-Value","secretRef":{"name":%q,"key":%q}}]}}}`, annotations, secret, key))
}

// nameOther names a Secret that was generated for another object.
func (th *thief) nameOther(n int) {
	th.t.Helper()
	if n%2 == 0 {
		th.name(th.key.SecretName(), apikey.SecretKey, "")
		return
	}
	th.name(th.other.SigningSecretName(), signature.SecretKey, "")
}

// awaitAccepted waits until the controller has checked the spec as it is.
func (th *thief) awaitAccepted(status metav1.ConditionStatus) {
	th.t.Helper()
	g := NewWithT(th.t)
	g.Eventually(func() bool {
		g.Expect(plane.Client.Get(th.t.Context(), client.ObjectKeyFromObject(th.subscription), th.subscription)).To(Succeed())
		found := meta.FindStatusCondition(th.subscription.Status.Conditions, v1alpha1.ConditionAccepted)
		return found != nil && found.ObservedGeneration == th.subscription.Generation && found.Status == status
	}, patience, time.Millisecond).Should(BeTrue())
}

// post posts contacts.
func (th *thief) post(prefix string, count int) {
	th.t.Helper()
	var callers sync.WaitGroup
	for caller := range 8 {
		callers.Go(func() {
			for n := caller; n < count; n += 8 {
				NewWithT(th.t).Expect(post(th.t, th.ingress, th.declared.key, fmt.Sprintf("%s.%d@example.com", prefix, n))).To(BeTrue())
			}
		})
	}
	callers.Wait()
}

// stolen returns the calls that carried another value than the thief's own, by how many carried
// that.
func (th *thief) stolen() (stolen []testkit.Call, own int) {
	for _, call := range th.receiver.Calls() {
		switch call.Header.Get("X-Value") {
		case allowedValue:
			own++
		case "":
		default:
			stolen = append(stolen, call)
		}
	}
	return stolen, own
}

// scrape returns the dispatcher's metrics.
func (th *thief) scrape() string {
	request, err := http.NewRequestWithContext(th.t.Context(), http.MethodGet, "http://"+th.metrics+"/metrics", nil)
	NewWithT(th.t).Expect(err).NotTo(HaveOccurred())
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return ""
	}
	defer func() { _ = response.Body.Close() }()
	body, _ := io.ReadAll(response.Body)
	return string(body)
}

// TestNoCallCarriesARefusedSecret changes a subscription between a Secret that it may name and
// ones that were generated for an API key and for another subscription, under a running replay.
func TestNoCallCarriesARefusedSecret(t *testing.T) {
	g := NewWithT(t)
	const changes, contacts, each = 1000, 500, 20
	th := startThief(t)
	th.post("ada", contacts)
	g.Eventually(func() int { _, own := th.stolen(); return own }, patience).Should(BeNumerically(">=", contacts))
	for n := range changes / each {
		for step := range each / 2 {
			th.nameOther(n + step)
			th.name("own", "value", fmt.Sprint(n))
		}
		th.awaitAccepted(metav1.ConditionTrue) // so that the replay goes on
	}
	stolen, own := th.stolen()
	t.Logf("%d changes, %d calls with the subscription's own Secret", changes, own)
	g.Expect(len(stolen)).To(BeZero(), "calls that carry another value")
	g.Expect(own).To(BeNumerically(">", 2*contacts), "a replay has run meanwhile")

	// What the controller refuses is not sent by a test event either.
	th.nameOther(0)
	th.awaitAccepted(metav1.ConditionFalse)
	th.patch(fmt.Sprintf(`{"metadata":{"annotations":{%q:"1"}}}`, v1alpha1.AnnotationTest))
	g.Eventually(func() []v1alpha1.RequestStatus {
		g.Expect(plane.Client.Get(t.Context(), client.ObjectKeyFromObject(th.subscription), th.subscription)).To(Succeed())
		return th.subscription.Status.Requests
	}, patience).Should(ContainElement(And(HaveField("Type", v1alpha1.RequestTest), HaveField("Result", v1alpha1.RequestRefused))))
	stolen, _ = th.stolen()
	g.Expect(len(stolen)).To(BeZero(), "calls that carry another value")
}

// TestUncheckedSpecWithoutAController changes a subscription while the controller is away: neither
// the running dispatcher nor the next one acts on that.
func TestUncheckedSpecWithoutAController(t *testing.T) {
	g := NewWithT(t)
	const contacts = 50
	th := startThief(t)
	carried := func() int { _, own := th.stolen(); return own }
	th.post("before", contacts)
	g.Eventually(carried, patience).Should(Equal(contacts))
	th.processes["controller0"].signal(syscall.SIGTERM)
	th.nameOther(0)
	th.post("without", contacts)
	g.Eventually(carried, patience).Should(Equal(2*contacts), "what was accepted stays in force")

	th.processes["dispatcher0"].signal(syscall.SIGTERM)
	th.startDispatcher()
	g.Eventually(th.scrape, patience).Should(ContainSubstring(
		fmt.Sprintf("postbus_dispatcher_subscription_state{namespace=%q,state=%q,subscription=%q} 1\n", th.subscription.Namespace, v1alpha1.StatePending, "crm")))
	th.post("held", contacts)
	g.Eventually(th.scrape, patience).Should(ContainSubstring(
		fmt.Sprintf("postbus_dispatcher_subscription_pending_events{namespace=%q,subscription=%q} %d\n", th.subscription.Namespace, "crm", contacts)))
	g.Expect(th.receiver.Count()).To(Equal(2 * contacts))

	th.startOne("controller", 0)
	th.awaitAccepted(metav1.ConditionFalse)
	g.Expect(meta.FindStatusCondition(th.subscription.Status.Conditions, v1alpha1.ConditionAccepted).Reason).To(Equal(v1alpha1.ReasonSecretTaken))
	th.name("own", "value", "")
	g.Eventually(carried, patience).Should(Equal(3*contacts), "nothing was lost")
	stolen, _ := th.stolen()
	g.Expect(len(stolen)).To(BeZero(), "calls that carry another value")
}
