package dispatcher

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/guard"
	"postbus.dev/postbus/internal/kube"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/sqlite"
	"postbus.dev/postbus/internal/testkit"
)

var plane *testkit.ControlPlane

func TestMain(m *testing.M) {
	code := testkit.Run(m, func(p *testkit.ControlPlane) { plane = p })
	if err := stopPostgreSQL(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// patience is how long a test waits for what must happen; it fails then, and
// passes as soon as it does happen.
const patience = 30 * time.Second

// toReceivers lets callbacks point to receivers of tests.
var toReceivers = guard.Policies{Everywhere: guard.Policy{
	AllowedNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, AllowHTTP: true,
}}

// rig is a store, a namespace and a receiver that a dispatcher works with.
type rig struct {
	t         testing.TB
	namespace string
	store     store.Store
	// open opens the store as another process does.
	open     func() store.Store
	receiver *testkit.Receiver
	metrics  *prometheus.Registry
	log      lockedBuffer
	// verbosity is what is logged, 1 unless it is set before run.
	verbosity int
	options   Options // beside the usual ones
}

func newRig(t testing.TB) *rig {
	t.Helper()
	opened, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "postbus.db"))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return newRigOn(t, opened)
}

// newRigOn is newRig with a store, which is closed after the test.
func newRigOn(t testing.TB, opened store.Store) *rig {
	t.Helper()
	t.Cleanup(func() { NewWithT(t).Expect(opened.Close()).To(Succeed()) })
	return &rig{
		t: t, namespace: plane.Namespace(t), store: opened, open: func() store.Store { return opened },
		receiver: testkit.NewReceiver(t), verbosity: 1, options: Options{Guard: toReceivers},
	}
}

// run runs a dispatcher until the test ends or the returned function is called.
func (r *rig) run() (stop func()) {
	r.t.Helper()
	g := NewWithT(r.t)
	logger := funcr.New(func(prefix, line string) { r.log.write(prefix + line + "\n") }, funcr.Options{Verbosity: r.verbosity})
	ctx, cancel := context.WithCancel(logr.NewContext(context.WithoutCancel(r.t.Context()), logger))
	objects, err := kube.NewCacheOf(ctx, []string{r.namespace}, plane.Config, &v1alpha1.ContactList{}, &v1alpha1.WebhookSubscription{})
	g.Expect(err).NotTo(HaveOccurred())
	var parts sync.WaitGroup
	parts.Go(func() { g.Expect(objects.Start(ctx)).To(Succeed()) })
	r.metrics = prometheus.NewRegistry()
	options := r.options
	options.Objects, options.Secrets = objects, plane.Client
	if options.Store == nil {
		options.Store = r.store
	}
	options.LinkKeys = testkit.LinkKeys(r.t, r.store)
	options.Registerer, options.IdleInterval = r.metrics, time.Second
	if options.Version == "" {
		options.Version = "test"
	}
	if options.ShutdownTimeout == 0 {
		options.ShutdownTimeout = time.Second
	}
	parts.Go(func() { g.Expect(Run(ctx, options)).To(Succeed()) })
	stop = sync.OnceFunc(func() { cancel(); parts.Wait() })
	r.t.Cleanup(stop)
	return stop
}

// subscribe makes a subscription to the receiver and accepts it, as the
// controller does.
func (r *rig) subscribe(name string, edit func(*v1alpha1.WebhookSubscription)) *v1alpha1.WebhookSubscription {
	r.t.Helper()
	g := NewWithT(r.t)
	object := testkit.Subscription(r.namespace, name, r.receiver.URL()+"/"+name)
	object.Spec.Retry.Intervals = slices.Repeat([]metav1.Duration{{Duration: time.Second}}, 30)
	if edit != nil {
		edit(object)
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: object.SigningSecretName()},
		StringData: map[string]string{signature.SecretKey: signature.GenerateSecret(v1alpha1.SigningHMAC)},
	}
	g.Expect(client.IgnoreAlreadyExists(plane.Client.Create(r.t.Context(), secret))).To(Succeed())
	g.Expect(plane.Client.Create(r.t.Context(), object)).To(Succeed())
	object.Status.NamespaceUID = testkit.Bind(r.t, r.store, object)
	g.Expect(r.store.OpenDelivery(r.t.Context(), keyOf(object))).To(Succeed())
	r.accept(object)
	return object
}

// accept accepts the spec of a subscription, with its Secrets as they are now, as the controller
// does.
func (r *rig) accept(object *v1alpha1.WebhookSubscription) {
	r.t.Helper()
	g := NewWithT(r.t)
	for _, name := range object.SecretNames() {
		var secret corev1.Secret
		g.Expect(client.IgnoreNotFound(plane.Client.Get(r.t.Context(), types.NamespacedName{Namespace: r.namespace, Name: name}, &secret))).To(Succeed())
		object.Status.SetSecretVersion(name, secret.ResourceVersion)
	}
	r.check(object, metav1.ConditionTrue, v1alpha1.ReasonValid)
}

// check writes what the controller finds of the spec of a subscription.
func (r *rig) check(object *v1alpha1.WebhookSubscription, status metav1.ConditionStatus, reason string) {
	r.t.Helper()
	meta.SetStatusCondition(&object.Status.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionAccepted, Status: status, Reason: reason, ObservedGeneration: object.Generation,
	})
	NewWithT(r.t).Expect(plane.Client.Status().Update(r.t.Context(), object)).To(Succeed())
}

func keyOf(object *v1alpha1.WebhookSubscription) store.SubscriptionKey {
	return store.SubscriptionKey{Namespace: object.Namespace, Name: object.Name}
}

// post stores a change of a contact and returns its event's id.
func (r *rig) post(address string) string {
	r.t.Helper()
	return r.postAt(address, time.Now())
}

// postAt is post at a time.
func (r *rig) postAt(address string, at time.Time) string {
	r.t.Helper()
	decision, err := r.store.Change(r.t.Context(), store.Change{
		List: contact.ListKey{Namespace: r.namespace, Name: "newsletter"}, Address: address,
		Apply: func(current *contact.Contact) contact.Decision {
			next := contact.Contact{Email: address, Permission: contact.PermissionSingleOptIn}
			kind := contact.EventSubscribe
			if current != nil {
				next, kind = *current, contact.EventChangeProfile
			}
			next.Revision++
			return contact.Decision{
				Contact: next, Changed: true,
				Events: []contact.Event{{Type: kind, Source: contact.SourceAPI, Time: at}},
			}
		},
	})
	NewWithT(r.t).Expect(err).NotTo(HaveOccurred())
	return decision.Events[0].ID
}

// forget removes a contact and what is known of it, and returns the event's id.
func (r *rig) forget(address string) string {
	r.t.Helper()
	removal := contact.Removal{Event: contact.EventDelete, EventSource: contact.SourceAPI, Time: time.Now(), Forget: true}
	decision, err := r.store.Change(r.t.Context(), store.Change{
		List: contact.ListKey{Namespace: r.namespace, Name: "newsletter"}, Address: address, Apply: removal.Decide,
	})
	NewWithT(r.t).Expect(err).NotTo(HaveOccurred())
	return decision.Events[0].ID
}

func (r *rig) postMany(prefix string, count int) (ids []string) {
	for n := range count {
		ids = append(ids, r.post(fmt.Sprintf("%s.%d@example.com", prefix, n)))
	}
	return ids
}

// ids returns the webhook-ids of the calls to a path that the receiver got.
func (r *rig) ids(path string) (all []string) {
	for _, call := range r.receiver.Calls() {
		if call.Path == path {
			all = append(all, call.Header.Get(signature.HeaderID))
		}
	}
	return all
}

// delivery returns what the store has of a subscription.
func (r *rig) delivery(object *v1alpha1.WebhookSubscription) func() store.Delivery {
	return func() store.Delivery {
		delivery, err := r.store.LoadDelivery(r.t.Context(), keyOf(object))
		NewWithT(r.t).Expect(err).NotTo(HaveOccurred())
		return delivery
	}
}

func (r *rig) suspend(object *v1alpha1.WebhookSubscription, suspend bool) {
	r.t.Helper()
	patch := client.MergeFrom(object.DeepCopy())
	object.Spec.Suspend = ptr.To(suspend)
	NewWithT(r.t).Expect(plane.Client.Patch(r.t.Context(), object, patch)).To(Succeed())
	r.accept(object)
}

type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) write(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buffer.WriteString(text)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func TestDelivers(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	crm := r.subscribe("crm", nil)
	stop := r.run()
	sent := r.post("ada@example.com")
	g.Eventually(r.receiver.Count, patience).Should(Equal(1))

	call := r.receiver.Calls()[0]
	g.Expect(call.Method).To(Equal(http.MethodPost))
	g.Expect(call.Path).To(Equal("/crm"))
	g.Expect(call.Header.Get(signature.HeaderID)).To(Equal(sent))
	g.Expect(call.Header.Get("Postbus-Attempt")).To(Equal("1"))
	g.Expect(call.Header.Get(guard.HeaderHops)).To(Equal("1"))
	g.Expect(call.Header.Get("User-Agent")).To(Equal("postbus/test"))
	g.Expect(json.Valid(call.Body)).To(BeTrue())
	var secret corev1.Secret
	g.Expect(plane.Client.Get(t.Context(), types.NamespacedName{Namespace: r.namespace, Name: crm.SigningSecretName()}, &secret)).To(Succeed())
	judge, err := standardwebhooks.NewWebhook(string(secret.Data[signature.SecretKey]))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(judge.Verify(call.Body, call.Header)).To(Succeed())

	g.Eventually(r.delivery(crm), patience).Should(And(
		HaveField("Open", BeEmpty()), HaveField("Health.LastSuccess", Not(BeZero()))))
	stop()
	g.Expect(r.log.String()).To(And(ContainSubstring(sent), Not(ContainSubstring("ada@example.com")),
		Not(ContainSubstring(string(secret.Data[signature.SecretKey]))), Not(ContainSubstring("/crm"))))
}

func TestFilter(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	other := newRig(t) // another tenant with the same store
	other.store = r.store
	r.subscribe("all", nil)
	r.subscribe("changes", func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Events = []v1alpha1.EventType{contact.EventChangeProfile}
	})
	r.subscribe("another-list", func(s *v1alpha1.WebhookSubscription) { s.Spec.Lists = []string{"shop"} })
	r.subscribe("recipients", func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Sources = []v1alpha1.EventSource{contact.SourceRecipient}
	})
	r.subscribe("mailingwork", func(s *v1alpha1.WebhookSubscription) { s.Spec.Payload.Format = v1alpha1.FormatMailingwork })
	r.run()
	one := r.post("ada@example.com")
	other.post("ada@example.com")
	two := r.post("ada@example.com")
	g.Eventually(func() []string { return r.ids("/all") }, patience).Should(Equal([]string{one, two}))
	g.Eventually(func() []string { return r.ids("/changes") }, patience).Should(Equal([]string{two}))
	g.Eventually(func() []string { return r.ids("/mailingwork") }, patience).Should(Equal([]string{one}), "a change by API does not exist there")
	g.Expect(r.ids("/another-list")).To(BeEmpty())
	g.Expect(r.ids("/recipients")).To(BeEmpty())
	g.Expect(other.receiver.Count()).To(BeZero(), "a tenant sees its own lists only")
}

func TestRetriesUntilTheCallbackIsBack(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	crm := r.subscribe("crm", nil)
	r.run()
	r.receiver.Answer(http.StatusInternalServerError)
	id := r.post("ada@example.com")
	g.Eventually(r.delivery(crm), patience).Should(And(
		HaveField("Health.FailingSince", Not(BeZero())),
		HaveField("Health.LastFailure", HaveValue(And(
			HaveField("Reason", v1alpha1.FailureHTTPStatus), HaveField("HTTPStatus", 500)))),
		HaveField("Open", HaveLen(1))))
	g.Eventually(r.receiver.Count, patience).Should(BeNumerically(">=", 2))
	r.receiver.Answer(http.StatusOK)
	g.Eventually(r.delivery(crm), patience).Should(And(
		HaveField("Health.FailingSince", BeZero()), HaveField("Open", BeEmpty())))
	for n, call := range r.receiver.Calls() {
		g.Expect(call.Header.Get(signature.HeaderID)).To(Equal(id))
		g.Expect(call.Header.Get("Postbus-Attempt")).To(Equal(fmt.Sprint(n + 1)))
	}
}

// One contact's events wait for each other, and for nothing else.
func TestOrderPerContact(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	r.subscribe("crm", nil)
	r.run()
	first := r.post("ada@example.com")
	g.Eventually(func() []string { return r.ids("/crm") }, patience).Should(Equal([]string{first}))
	var refused atomic.Value // the second event, known to the receiver before it is to the test
	r.receiver.AnswerWith(func(w http.ResponseWriter, call *http.Request) {
		id := call.Header.Get(signature.HeaderID)
		if id != first {
			refused.CompareAndSwap(nil, id)
		}
		if id == refused.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	blocked := r.post("ada@example.com")
	behind := []string{r.post("ada@example.com"), r.post("ada@example.com")}
	others := r.postMany("others", 20)
	g.Eventually(func() []string { return r.ids("/crm") }, patience).Should(ContainElements(others))
	g.Expect(r.ids("/crm")).NotTo(ContainElement(BeElementOf(behind)))
	r.receiver.Answer(http.StatusOK)
	g.Eventually(func() []string { return r.ids("/crm") }, patience).Should(ContainElements(behind))
	all := r.ids("/crm")
	g.Expect(all[len(all)-3:]).To(Equal(append([]string{blocked}, behind...)))
}

func TestSuspendedEventsWait(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	r.options.ShutdownTimeout = patience
	crm := r.subscribe("crm", func(s *v1alpha1.WebhookSubscription) { s.Spec.Suspend = ptr.To(true) })
	shop := r.subscribe("shop", nil)
	stop := r.run()
	ids := r.postMany("ada", 5)
	g.Eventually(func() []string { return r.ids("/shop") }, patience).Should(ConsistOf(ids))
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Behind", int64(5)))
	g.Expect(r.ids("/crm")).To(BeEmpty())

	r.suspend(crm, false)
	g.Eventually(func() []string { return r.ids("/crm") }, patience).Should(ConsistOf(ids))
	g.Eventually(r.delivery(crm), patience).Should(And(HaveField("Behind", BeZero()), HaveField("Open", BeEmpty())))

	// Suspended in the middle of the stream, and over a restart.
	r.suspend(shop, true)
	g.Eventually(func() int { r.post("probe@example.com"); return len(r.ids("/crm")) }, patience).Should(BeNumerically(">=", 10))
	stop()
	r.run()
	late := r.postMany("late", 3)
	g.Eventually(func() []string { return r.ids("/crm") }, patience).Should(ContainElements(late))
	g.Expect(r.ids("/shop")).NotTo(ContainElement(BeElementOf(late)))
	r.suspend(shop, false)
	g.Eventually(func() []string { return r.ids("/shop") }, patience).Should(ContainElements(late))
	g.Eventually(func(g Gomega) {
		g.Expect(r.ids("/shop")).To(ConsistOf(r.ids("/crm")), "each once")
	}, patience).Should(Succeed())
}

// A callback that is down costs a bounded ledger; the rest waits in the log.
func TestBacklogIsBounded(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	crm := r.subscribe("crm", func(s *v1alpha1.WebhookSubscription) { // not deactivated, however long posting takes
		s.Spec.Retry.Intervals = slices.Repeat([]metav1.Duration{{Duration: 5 * time.Second}}, 30)
	})
	r.receiver.Answer(http.StatusBadGateway)
	r.run()
	const count = maxOpen + 300
	ids := r.postMany("ada", count)
	// One that fell behind the tail reads the log when there is room for a page.
	open := func(d store.Delivery) int { return len(d.Open) }
	all := func(d store.Delivery) int64 { return int64(len(d.Open)) + d.Behind }
	g.Eventually(r.delivery(crm), patience).Should(And(
		WithTransform(open, And(BeNumerically(">", maxOpen-catchUpRoom), BeNumerically("<=", maxOpen))), WithTransform(all, BeEquivalentTo(count))))
	r.receiver.Answer(http.StatusOK)
	g.Eventually(r.delivery(crm), patience).Should(And(HaveField("Open", BeEmpty()), HaveField("Behind", BeZero())))
	arrived := map[string]bool{}
	for _, id := range r.ids("/crm") {
		arrived[id] = true
	}
	for _, id := range ids {
		g.Expect(arrived).To(HaveKey(id))
	}
}

// A dispatcher that stops in order and starts again repeats nothing; attempts
// under way are finished first.
func TestRestart(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	r.options.ShutdownTimeout = patience
	crm := r.subscribe("crm", nil)
	stop := r.run()
	first := r.postMany("first", 50)
	g.Eventually(func() []string { return r.ids("/crm") }, patience).ShouldNot(BeEmpty())
	stop()
	between := r.postMany("between", 10)
	r.run()
	g.Eventually(func() []string { return r.ids("/crm") }, patience).Should(ConsistOf(append(first, between...)))
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Open", BeEmpty()))
}

func TestDeletedAndMadeAgain(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	r.options.ShutdownTimeout = patience // so that what was called is not called again
	remake := func(crm *v1alpha1.WebhookSubscription, between func()) *v1alpha1.WebhookSubscription {
		g.Expect(plane.Client.Delete(t.Context(), crm)).To(Succeed())
		g.Expect(r.store.DropDelivery(t.Context(), keyOf(crm))).To(Succeed())
		between()
		return r.subscribe("crm", nil)
	}
	crm := r.subscribe("crm", nil)
	stop := r.run()
	before := r.post("ada@example.com")
	g.Eventually(func() []string { return r.ids("/crm") }, patience).Should(Equal([]string{before}))
	stop()
	crm = remake(crm, func() { r.post("nobody@example.com") })
	after := r.post("grace@example.com")
	r.run()
	g.Eventually(func() []string { return r.ids("/crm") }, patience).Should(Equal([]string{before, after}), "not what came between")

	// While a dispatcher runs, whose runner can't write the row of another.
	crm = remake(crm, func() {})
	last := r.post("hedy@example.com")
	g.Eventually(func() []string { return r.ids("/crm") }, patience).Should(ContainElement(last))
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Health.LastSuccess", Not(BeZero())))
}

// Nobody waits for a callback that hangs.
func TestHangingNeighbour(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	hanging := testkit.NewReceiver(t)
	hanging.AnswerWith(func(_ http.ResponseWriter, call *http.Request) { <-call.Context().Done() })
	r.subscribe("hanging", func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Callback.URL = hanging.URL()
		s.Spec.Callback.Timeout = &metav1.Duration{Duration: 30 * time.Second}
	})
	r.subscribe("crm", nil)
	ids := r.postMany("ada", 200) // before the first call hangs, which it does for 30 s at most
	r.run()
	g.Eventually(func() []string { return r.ids("/crm") }, patience).Should(ConsistOf(ids))
	g.Eventually(hanging.Count, patience).Should(Equal(defaultMaxInFlight))
	g.Consistently(hanging.Count, time.Second).Should(Equal(defaultMaxInFlight), "no more at once than maxInFlight")
}

// A person who is forgotten while the callback is down: what waited is dropped,
// the Delete event arrives, and then the log knows nothing of them.
func TestForget(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	crm := r.subscribe("crm", nil)
	deletions := r.subscribe("deletions", func(s *v1alpha1.WebhookSubscription) { s.Spec.Events = []v1alpha1.EventType{contact.EventDelete} })
	suspended := r.subscribe("suspended", func(s *v1alpha1.WebhookSubscription) { s.Spec.Suspend = ptr.To(true) })
	r.receiver.Answer(http.StatusBadGateway)
	r.run()
	dropped := []string{r.post("ada@example.com"), r.post("ada@example.com")}
	other := r.post("grace@example.com")
	g.Eventually(r.delivery(crm), patience).Should(And(HaveField("Open", HaveLen(3)), HaveField("Health.FailingSince", Not(BeZero()))))

	told := r.forget("ada@example.com")
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Open", HaveLen(2)), "grace's event and the deletion")
	r.receiver.Answer(http.StatusOK)
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Open", BeEmpty()))
	g.Eventually(r.delivery(deletions), patience).Should(HaveField("Open", BeEmpty()))
	g.Expect(r.ids("/deletions")).To(ContainElement(told))
	afterwards := r.ids("/crm")[len(r.ids("/crm"))-2:]
	g.Expect(afterwards).To(ConsistOf(other, told))
	g.Expect(afterwards).NotTo(ContainElement(BeElementOf(dropped)))

	logText := func() string {
		events, err := r.store.Read(t.Context(), store.Query{})
		g.Expect(err).NotTo(HaveOccurred())
		return fmt.Sprintf("%+v", events)
	}
	g.Expect(logText()).To(ContainSubstring("ada@example.com"), "one subscription is held and has not been told")
	r.suspend(suspended, false)
	g.Eventually(func() []string { return r.ids("/suspended") }, patience).Should(ConsistOf(other, told))
	g.Eventually(logText, patience).ShouldNot(ContainSubstring("ada@example.com"))
}

// The controller tells of a new signing secret by its version in status.
func TestSigningSecretChanges(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	crm := r.subscribe("crm", nil)
	r.run()
	r.post("ada@example.com")
	g.Eventually(r.receiver.Count, patience).Should(Equal(1))

	var secret corev1.Secret
	g.Expect(plane.Client.Get(t.Context(), types.NamespacedName{Namespace: r.namespace, Name: crm.SigningSecretName()}, &secret)).To(Succeed())
	older, newer := string(secret.Data[signature.SecretKey]), signature.GenerateSecret(v1alpha1.SigningHMAC)
	verified := func(by string) func() error {
		judge, err := standardwebhooks.NewWebhook(by)
		g.Expect(err).NotTo(HaveOccurred())
		return func() error {
			r.post("ada@example.com")
			calls := r.receiver.Calls()
			last := calls[len(calls)-1]
			return judge.Verify(last.Body, last.Header)
		}
	}
	change := func(data map[string][]byte) {
		secret.Data = data
		g.Expect(plane.Client.Update(t.Context(), &secret)).To(Succeed())
		crm.Status.SetSecretVersion(secret.Name, secret.ResourceVersion)
		g.Expect(plane.Client.Status().Update(t.Context(), crm)).To(Succeed())
	}
	change(map[string][]byte{signature.SecretKey: []byte(newer), signature.PreviousKey: []byte(older)})
	g.Eventually(verified(newer), patience, 50*time.Millisecond).Should(Succeed())
	g.Expect(verified(older)()).To(Succeed(), "both sign")

	change(map[string][]byte{signature.SecretKey: []byte(newer)})
	g.Eventually(verified(older), patience, 50*time.Millisecond).ShouldNot(Succeed())
	g.Expect(verified(newer)()).To(Succeed())
}

// A page that was asked for before somebody was forgotten is not taken after.
func TestForgetWhileAPageIsRead(t *testing.T) {
	g := NewWithT(t)
	page := []contact.Event{*event(1, 1)}
	page[0].Address, page[0].Type = "ada@example.com", contact.EventCreate
	follower := &tail{position: 1}
	r := &runner{
		tail: follower, clock: clock.RealClock{}, wake: make(chan struct{}, 1), ledger: perContact(),
		sub: &subscription{format: standard{}, ordering: v1alpha1.OrderingPerContact},
	}
	s, query := r.nextPage()
	deletion := event(2, 1)
	deletion.Address = "ada@example.com"
	r.forget(deletion)
	r.takePage(s, page, query)
	g.Expect(r.ledger.open).To(BeEmpty())
	g.Expect(r.ledger.cursor).To(BeZero(), "it is read again")
	s, query = r.nextPage()
	r.takePage(s, nil, query)
	g.Expect(r.ledger.cursor).To(Equal(int64(1)))
}
