package dispatcher

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/guard"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/testkit"
)

// What is done for an object by what the controller has checked of it.
func TestTrustedSpecs(t *testing.T) {
	of := func(generation, checked int64, status metav1.ConditionStatus, suspend bool) *v1alpha1.WebhookSubscription {
		object := testkit.Subscription("marketing", "crm", "https://crm.example.com")
		object.UID, object.Generation = "1", generation
		object.Spec.Suspend = &suspend
		if checked > 0 {
			object.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionAccepted, Status: status, ObservedGeneration: checked}}
		}
		return object
	}
	accepted := of(1, 1, metav1.ConditionTrue, false)
	suspended := of(1, 1, metav1.ConditionTrue, true)
	stranger := of(7, 7, metav1.ConditionTrue, false)
	stranger.UID = "0"
	for name, row := range map[string]struct {
		object, last *v1alpha1.WebhookSubscription
		uses         *v1alpha1.WebhookSubscription
		held         bool
		accepted     bool
		unchecked    bool
		unproven     bool
	}{
		"accepted":                               {object: of(2, 2, metav1.ConditionTrue, false), last: accepted, accepted: true},
		"accepted and suspended":                 {object: of(2, 2, metav1.ConditionTrue, true), last: accepted, accepted: true, held: true},
		"newer than what was accepted":           {object: of(2, 1, metav1.ConditionTrue, false), last: accepted, uses: accepted, accepted: true, unchecked: true},
		"newer, and suspended":                   {object: of(2, 1, metav1.ConditionTrue, true), last: accepted, uses: accepted, accepted: true, unchecked: true, held: true},
		"newer, and resumed":                     {object: of(2, 1, metav1.ConditionTrue, false), last: suspended, uses: suspended, accepted: true, unchecked: true, held: true},
		"newer, nothing accepted was seen":       {object: of(2, 1, metav1.ConditionTrue, false), held: true, unchecked: true, unproven: true},
		"newer than what was refused":            {object: of(3, 2, metav1.ConditionFalse, false), last: accepted, uses: accepted, held: true, unchecked: true},
		"refused":                                {object: of(2, 2, metav1.ConditionFalse, false), last: accepted, uses: accepted, held: true},
		"refused, nothing accepted was seen":     {object: of(2, 2, metav1.ConditionFalse, false), held: true, unproven: true},
		"new":                                    {object: of(1, 0, "", false), held: true, unchecked: true, unproven: true},
		"new, under the name of another object":  {object: of(1, 0, "", false), last: stranger, held: true, unchecked: true, unproven: true},
		"accepted, under the name of another":    {object: of(1, 1, metav1.ConditionTrue, false), last: stranger, accepted: true},
		"of a status that is newer than a spec":  {object: of(1, 2, metav1.ConditionTrue, false), held: true, unchecked: true, unproven: true},
		"undecided, nothing accepted was seen":   {object: of(1, 1, metav1.ConditionUnknown, false), held: true, unproven: true},
		"undecided after a spec that was a good": {object: of(2, 2, metav1.ConditionUnknown, false), last: accepted, uses: accepted, held: true},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			uses := row.object
			uses.Spec.App = "current"
			if row.uses != nil {
				uses = row.uses
			}
			want := newSubscription(uses)
			want.held, want.accepted, want.unchecked, want.unproven = row.held, row.accepted, row.unchecked, row.unproven
			g.Expect(newTrusted(row.object, row.last)).To(Equal(want))
		})
	}
}

// move points a subscription to another path of the receiver, which no controller has checked.
func (r *rig) move(object *v1alpha1.WebhookSubscription, path string) {
	r.t.Helper()
	object.Spec.Callback.URL = r.receiver.URL() + path
	NewWithT(r.t).Expect(plane.Client.Update(r.t.Context(), object)).To(Succeed())
}

// state waits until the dispatcher has a subscription in a state.
func (r *rig) state(object *v1alpha1.WebhookSubscription, state v1alpha1.SubscriptionState) {
	r.t.Helper()
	NewWithT(r.t).Eventually(r.scrape, patience).Should(ContainSubstring(r.stateOf(object.Name, string(state))))
}

// A spec takes effect once the controller has accepted it. Until then the one before stays in
// force, and a refusal holds events until a spec is accepted.
func TestUncheckedSpecIsNotUsed(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	crm := r.subscribe("crm", nil)
	marker := r.subscribe("marker", nil) // it is changed last, so what came before has been seen
	markers := 0
	seen := func() {
		markers++
		path := "/marker" + string(rune('a'+markers))
		r.move(marker, path)
		r.accept(marker)
		g.Eventually(func() []string { r.post("marker@example.com"); return r.ids(path) }, patience).ShouldNot(BeEmpty())
	}
	r.run()
	r.post("ada@example.com")
	g.Eventually(func() []string { return r.ids("/crm") }, patience).ShouldNot(BeEmpty())

	r.move(crm, "/second")
	seen()
	id := r.post("ada@example.com")
	g.Eventually(func() []string { return r.ids("/crm") }, patience).Should(ContainElement(id), "the accepted spec stays in force")
	g.Expect(r.ids("/second")).To(BeEmpty())
	r.accept(crm)
	g.Eventually(func() []string { r.post("ada@example.com"); return r.ids("/second") }, patience).ShouldNot(BeEmpty())

	r.move(crm, "/third")
	r.check(crm, metav1.ConditionFalse, v1alpha1.ReasonListNotFound)
	seen()
	id = r.post("ada@example.com")
	r.move(crm, "/fourth") // which does not lift the refusal
	seen()
	g.Expect(r.ids("/second")).NotTo(ContainElement(id))
	r.accept(crm)
	g.Eventually(func() []string { return r.ids("/fourth") }, patience).Should(ContainElement(id))
	g.Expect(r.ids("/third")).To(BeEmpty())
}

// A dispatcher that starts knows of no accepted spec but those that are accepted now.
func TestUncheckedSpecAfterAStart(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	crm := r.subscribe("crm", nil)
	r.subscribe("other", nil)
	r.move(crm, "/second")
	r.run()
	id := r.post("ada@example.com")
	g.Eventually(func() []string { return r.ids("/other") }, patience).Should(ContainElement(id))
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Behind", Not(BeZero())), "events wait in the log")
	g.Expect(r.receiver.Count()).To(Equal(len(r.ids("/other"))))
	r.accept(crm)
	g.Eventually(func() []string { return r.ids("/second") }, patience).Should(ContainElement(id))
	g.Expect(r.ids("/crm")).To(BeEmpty())
}

// To suspend takes effect at once, to resume once the controller has accepted it.
func TestSuspensionNeedsNoCheck(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	crm := r.subscribe("crm", nil)
	r.run()
	r.post("ada@example.com")
	g.Eventually(func() []string { return r.ids("/crm") }, patience).ShouldNot(BeEmpty())
	suspend := func(suspend bool) {
		crm.Spec.Suspend = ptr.To(suspend)
		g.Expect(plane.Client.Update(t.Context(), crm)).To(Succeed())
	}
	suspend(true)
	r.state(crm, v1alpha1.StateSuspended)
	id := r.post("ada@example.com")
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Behind", int64(1)))
	r.accept(crm)
	suspend(false)
	g.Consistently(func() []string { return r.ids("/crm") }, time.Second).ShouldNot(ContainElement(id))
	r.accept(crm)
	g.Eventually(func() []string { return r.ids("/crm") }, patience).Should(ContainElement(id))
}

// A test event is sent by a spec that is accepted, and by no other: postbus.dev/test is no way
// around a refusal.
func TestTestEventsNeedAnAcceptedSpec(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	refused := r.subscribe("refused", nil)
	r.check(refused, metav1.ConditionFalse, v1alpha1.ReasonSecretTaken)
	changed := r.subscribe("changed", nil)
	r.run()
	answer := r.ask(refused, store.Request{Type: v1alpha1.RequestTest, Value: "1"})
	g.Expect(answer.Result).To(Equal(v1alpha1.RequestRefused))
	g.Expect(answer.Message).To(ContainSubstring("see the condition Accepted"))
	g.Expect(r.receiver.Count()).To(BeZero())

	r.move(changed, "/changed-twice")
	g.Expect(r.store.PutRequest(t.Context(), store.Request{Key: keyOf(changed), Type: v1alpha1.RequestTest, Value: "1"})).To(Succeed())
	r.ask(refused, store.Request{Type: v1alpha1.RequestTest, Value: "2"}) // which comes later
	g.Expect(r.delivery(changed)().Life.Answers).To(BeEmpty(), "it waits for the spec that it is to try")
	r.accept(changed)
	g.Eventually(func() []string { return r.ids("/changed-twice") }, patience).Should(HaveLen(1))
	g.Expect(r.ids("/changed")).To(BeEmpty())
}

// A Secret that has changed is used once the controller has checked it. Until then a value that
// was read before stays in use, and an attempt that needs to read it waits, which nobody holds
// against the callback.
func TestUncheckedSecretIsNotUsed(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	secret := r.secret("crm-auth", map[string]string{"key": "k-1"})
	crm := r.subscribe("crm", func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Callback.Headers = []v1alpha1.CallbackHeader{{Name: "X-Key", SecretRef: v1alpha1.SecretKeyReference{Name: "crm-auth", Key: "key"}}}
	})
	stop := r.run()
	r.post("ada@example.com")
	g.Eventually(r.lastHeader("X-Key"), patience).Should(Equal("k-1"))
	secret.StringData = map[string]string{"key": "k-2"}
	g.Expect(plane.Client.Update(t.Context(), secret)).To(Succeed())
	id := r.post("ada@example.com")
	g.Eventually(func() []string { return r.ids("/crm") }, patience).Should(ContainElement(id))
	g.Expect(r.lastHeader("X-Key")()).To(Equal("k-1"), "the controller has checked that one")

	stop()
	r.run()
	r.subscribe("other", nil)
	id = r.post("ada@example.com")
	g.Eventually(func() []string { return r.ids("/other") }, patience).Should(ContainElement(id))
	g.Eventually(r.log.String, patience).Should(ContainSubstring("Waiting for the controller"))
	g.Expect(r.ids("/crm")).NotTo(ContainElement(id))
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Open", HaveExactElements(HaveField("Attempts", BeZero()))))
	g.Expect(r.delivery(crm)().Health.FailingSince).To(BeZero())
	r.accept(crm)
	g.Eventually(func() []string { return r.ids("/crm") }, patience).Should(ContainElement(id))
	g.Expect(r.lastHeader("X-Key")()).To(Equal("k-2"))
	g.Expect(r.delivery(crm)().Health.LastFailure).To(BeNil())
}

// Mails are made from the newest spec of a list that the controller has checked.
func TestUncheckedListIsNotUsed(t *testing.T) {
	g := NewWithT(t)
	server := testkit.NewMailServer(t, testkit.MailServerOptions{})
	r := newMailRig(t, server, nil)
	list := &v1alpha1.ContactList{}
	g.Expect(plane.Client.Get(t.Context(), client.ObjectKey{Namespace: r.namespace, Name: "newsletter"}, list)).To(Succeed())
	change := func(from string) {
		list.Spec.OptIn.Mailings = []v1alpha1.OptInMailing{{Key: "welcome", From: from}}
		g.Expect(plane.Client.Update(t.Context(), list)).To(Succeed())
	}
	change("first@example.com")
	r.checkList(list)
	stop := r.run()
	welcome := func(c *contact.Contact) { c.OptIn.Mailing = "welcome" }
	r.optIn("ada@example.com", welcome)
	g.Eventually(senders(server), patience).Should(Equal([]string{"first@example.com"}))

	change("bank@example.com")
	r.optIn("grace@example.com", welcome)
	g.Eventually(senders(server), patience).Should(Equal([]string{"first@example.com", "first@example.com"}))
	list.Spec.OptIn.Mailings = append(list.Spec.OptIn.Mailings, v1alpha1.OptInMailing{Key: "late", From: "late@example.com"})
	g.Expect(plane.Client.Update(t.Context(), list)).To(Succeed())
	r.optIn("hedy@example.com", func(c *contact.Contact) { c.OptIn.Mailing = "late" })
	g.Eventually(r.log.String, patience).Should(ContainSubstring("the controller has not checked the list's spec"))
	stop()

	r.run() // which knows of no checked spec
	r.optIn("joan@example.com", welcome)
	r.declareList("other", nil)
	r.optInTo("other", "other@example.com")
	g.Eventually(senders(server), patience).Should(Equal([]string{"first@example.com", "first@example.com", "news@example.com"}))
	r.checkList(list)
	g.Eventually(senders(server), patience).Should(ConsistOf(
		"first@example.com", "first@example.com", "news@example.com", "late@example.com", "bank@example.com"))
}

// senders returns who sent the mails.
func senders(server *testkit.MailServer) func() []string {
	return func() (all []string) {
		for _, mail := range server.Mails() {
			all = append(all, mail.From)
		}
		return all
	}
}

// heldReader reads when it is told to.
type heldReader struct {
	client.Reader
	reads atomic.Int64
	goOn  chan struct{}
}

func (r *heldReader) Get(ctx context.Context, name client.ObjectKey, object client.Object, options ...client.GetOption) error {
	r.reads.Add(1)
	select {
	case <-r.goOn:
		return r.Reader.Get(ctx, name, object, options...)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func textSecret(reader client.Reader) *keptSecret[string] {
	return &keptSecret[string]{title: "text", reader: reader, parse: ofOneKey(func(value []byte) (string, error) { return string(value), nil })}
}

// Which Secrets are used, and which versions.
func TestWhichSecretsAreUsed(t *testing.T) {
	namespace := plane.Namespace(t)
	own := testkit.Subscription(namespace, "crm", "https://crm.example.com")
	other := testkit.Subscription(namespace, "shop", "https://shop.example.com")
	key := testkit.ApiKey(namespace, "crm", "newsletter")
	for _, object := range []client.Object{own, other, key} {
		NewWithT(t).Expect(plane.Client.Create(t.Context(), object)).To(Succeed())
	}
	for name, row := range map[string]struct {
		owner   client.Object
		version func(now string) string
		err     error
	}{
		"of-users":                  {},
		"of-the-subscription":       {owner: own},
		"of-another-subscription":   {owner: other, err: errOtherOwner},
		"of-an-api-key":             {owner: key, err: errOtherOwner},
		"of-a-version-not-checked":  {version: func(string) string { return "1" }, err: errNotChecked},
		"of-no-version-checked":     {version: func(string) string { return "" }, err: errNotChecked},
		"of-another-but-no-version": {owner: key, version: func(string) string { return "" }, err: errNotChecked},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, StringData: map[string]string{"key": secretValue}}
			if row.owner != nil {
				g.Expect(controllerutil.SetControllerReference(row.owner, secret, plane.Client.Scheme())).To(Succeed())
			}
			g.Expect(plane.Client.Create(t.Context(), secret)).To(Succeed())
			place := secretPlace{name: name, key: "key", version: secret.ResourceVersion}
			if row.version != nil {
				place.version = row.version(secret.ResourceVersion)
			}
			value, err := textSecret(plane.Client).get(t.Context(), &subscription{key: keyOf(own), uid: own.UID}, place)
			if row.err == nil {
				g.Expect(value, err).To(Equal(secretValue))
				return
			}
			g.Expect(err).To(MatchError(row.err))
			g.Expect(value).To(BeEmpty())
			g.Expect(err.Error()).NotTo(ContainSubstring(secretValue))
			want := outcome{verdict: hindered, reason: v1alpha1.FailureSecret}
			if errors.Is(row.err, errNotChecked) {
				want = outcome{verdict: postponed}
			}
			o, _ := ofSecret(t.Context(), v1alpha1.FailureSecret, err)
			g.Expect(o).To(Equal(want))
		})
	}
}

// Attempts that need the same Secret share a read, none waits for the read of another Secret, and
// an attempt that ends takes the read from no other.
func TestReadsOfSecretsHoldUpNobody(t *testing.T) {
	g := NewWithT(t)
	signing := signingSecret(t)
	s := &subscription{key: store.SubscriptionKey{Namespace: signing.Namespace, Name: "crm"}}
	place := secretPlace{name: signing.Name, key: signature.SecretKey, version: signing.ResourceVersion}
	reader := &heldReader{Reader: plane.Client, goOn: make(chan struct{})}
	kept := textSecret(reader)
	known := secretPlace{name: "known", key: "key", version: "1"}
	kept.kept = map[secretPlace]keptValue[string]{{name: "known", key: "key"}: {version: "1", value: "at once"}}

	leaving, leave := context.WithCancel(t.Context())
	var attempts sync.WaitGroup
	attempts.Go(func() {
		_, err := kept.get(leaving, s, place)
		g.Expect(err).To(MatchError(context.Canceled))
	})
	g.Eventually(reader.reads.Load, patience).Should(Equal(int64(1)))
	for range 20 {
		attempts.Go(func() {
			value, err := kept.get(t.Context(), s, place)
			g.Expect(value, err).To(Equal(string(signing.Data[signature.SecretKey])))
		})
	}
	g.Expect(kept.get(t.Context(), s, known)).To(Equal("at once"), "while the API server is asked for another")
	leave()
	close(reader.goOn)
	attempts.Wait()
	g.Expect(reader.reads.Load()).To(BeNumerically("<=", 3))
}

// What is allowed to one namespace is refused to the others, by URL and by each address that is
// dialled.
func TestGuardOfNamespaces(t *testing.T) {
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	for name, policies := range map[string]func(namespace string) guard.Policies{
		"by network": func(namespace string) guard.Policies {
			return guard.Policies{Everywhere: guard.Policy{AllowHTTP: true}, Namespaces: map[string]guard.Allowance{namespace: {Networks: loopback}}}
		},
		"by host": func(namespace string) guard.Policies {
			return guard.Policies{Everywhere: guard.Policy{AllowHTTP: true}, Namespaces: map[string]guard.Allowance{namespace: {Hosts: []string{"crm.example.com"}}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			names, receiver := newNameServer(t), testkit.NewReceiver(t)
			names.says("127.0.0.1")
			secret := signingSecret(t)
			attempt := func(allowed string) (outcome, error) {
				c := newTestCaller(t, Options{Secrets: plane.Client, Guard: policies(allowed), Resolver: names.resolver()})
				return c.attempt(t.Context(), checked(t, &subscription{
					key: store.SubscriptionKey{Namespace: secret.Namespace, Name: "crm"}, format: standard{},
					url: named(t, receiver), method: http.MethodPost, timeout: patience,
					signingSecret: secretPlace{name: secret.Name, key: signature.SecretKey},
				}), aCall())
			}
			o, err := attempt("another")
			g.Expect(o).To(Equal(forbiddenCall))
			g.Expect(err).To(MatchError(ContainSubstring("--allow-callback-networks=" + secret.Namespace + "/127.0.0.1/32 can allow it")))
			g.Expect(names.count()).NotTo(BeZero(), "its address was looked at when it was dialled")
			g.Expect(receiver.Count()).To(BeZero())
			o, err = attempt(secret.Namespace)
			g.Expect(o, err).To(Equal(outcome{verdict: delivered, status: http.StatusOK}))
		})
	}
}

// An attempt that is postponed changes nothing about its event and its callback, and has the
// subscription wait.
func TestPostponedAttempt(t *testing.T) {
	g := NewWithT(t)
	r := &runner{
		life: newLife(time.Now()), wake: make(chan struct{}, 1), ledger: perContact(), clock: clock.RealClock{}, calls: &sharedCalls{most: 10},
		sub: &subscription{accepted: true, rules: *mailRules, maxInFlight: 10}, tail: &tail{},
	}
	r.ledger.take(event(1, 1), start)
	r.ledger.take(event(2, 2), start)
	now := r.clock.Now()
	first := r.begin(now)
	g.Expect(r.settle(first, attempted{outcome: outcome{verdict: postponed}, ended: now, cause: errNotChecked})).To(BeNil(), "the other one waits too")
	g.Expect(r.dirty.Load()).To(BeFalse())
	g.Expect(r.ledger.open).To(HaveLen(2))
	g.Expect(r.ledger.health).To(BeZero())
	g.Expect(first.of.attempts).To(BeZero())
	g.Expect(r.start(t.Context())).To(BeTemporally("==", now.Add(postponement)))
	g.Expect(r.begin(now.Add(postponement - 1))).To(BeNil())
	g.Expect(r.begin(now.Add(postponement)).of).To(Equal(first.of), "in its place")

	r.update(&subscription{accepted: true, rules: *mailRules, maxInFlight: 11})
	g.Expect(r.begin(now)).NotTo(BeNil(), "status has changed")
}
