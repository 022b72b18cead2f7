package controllers

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/gomega"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/yaml"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/apikey"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/testkit"
)

// soon is how long anything that the controller does may take on a busy machine.
const soon = 20 * time.Second

// debug is more than the program ever logs, and less than client-go logs bodies at.
const debug = 5

// logs are what a controller logged.
type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) write(prefix, arguments string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.WriteString(prefix + " " + arguments + "\n")
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// running is a controller that runs as it does in the program.
type running struct {
	logs *logs
	// stop ends it and returns what Run returned.
	stop func() error
}

// start runs a controller with the rights of config/rbac/controller until the
// test ends.
func start(t *testing.T, s Store, lease Lease) *running {
	t.Helper()
	return startWith(t, s, lease, func(*Options) {})
}

// startWith is start with other options.
func startWith(t *testing.T, s Store, lease Lease, edit func(*Options)) *running {
	t.Helper()
	lease.Duration, lease.RenewDeadline, lease.RetryPeriod = 10*time.Second, 8*time.Second, 200*time.Millisecond
	captured := &logs{}
	ctx, cancel := context.WithCancel(log.IntoContext(t.Context(), funcr.New(captured.write, funcr.Options{Verbosity: debug})))
	ended := make(chan error, 1)
	options := Options{
		Config: limited(t, lease.Namespace),
		Store:  s,
		Lease:  lease,
		Intervals: Intervals{
			Changes: 50 * time.Millisecond, Counters: 100 * time.Millisecond, Contacts: 100 * time.Millisecond,
			KeyUses: 100 * time.Millisecond,
		},
	}
	edit(&options)
	go func() { ended <- Run(ctx, options) }()
	stop := sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { NewWithT(t).Expect(stop()).To(Succeed()) })
	return &running{logs: captured, stop: stop}
}

// limited returns the access of a user who has the rights that are generated
// from this package's markers, and no others: those of the Role in a namespace that is
// called like the user.
func limited(t *testing.T, name string) *rest.Config {
	t.Helper()
	g := NewWithT(t)
	text, err := os.ReadFile(filepath.Join("..", "config", "rbac", "controller", "role.yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	documents := strings.Split(string(text), "---\n")[1:]
	g.Expect(documents).To(HaveLen(2))
	everywhere, inNamespace := &rbacv1.ClusterRole{}, &rbacv1.Role{}
	g.Expect(yaml.UnmarshalStrict([]byte(documents[0]), everywhere)).To(Succeed())
	g.Expect(yaml.UnmarshalStrict([]byte(documents[1]), inNamespace)).To(Succeed())
	everywhere.Name, inNamespace.Name, inNamespace.Namespace = name, name, name
	subjects := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}}
	for _, object := range []client.Object{everywhere, inNamespace, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects:   subjects,
	}, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects:   subjects,
	}} {
		g.Expect(client.IgnoreAlreadyExists(plane.Client.Create(t.Context(), object))).To(Succeed())
	}
	access := rest.CopyConfig(plane.Config)
	access.Impersonate = rest.ImpersonationConfig{UserName: name}
	return access
}

// conditionOf reads an object and returns a condition's status and reason, for
// Eventually.
func conditionOf(t *testing.T, object client.Object, condition string) func() string {
	return func() string {
		if err := plane.Client.Get(t.Context(), client.ObjectKeyFromObject(object), object); err != nil {
			return err.Error()
		}
		for _, found := range *statusOf(object).conditions {
			if found.Type == condition {
				return string(found.Status) + " " + found.Reason
			}
		}
		return ""
	}
}

func TestApiKeyHealsByItself(t *testing.T) {
	g := NewWithT(t)
	namespace := plane.Namespace(t)
	start(t, openStore(t), Lease{Namespace: namespace})
	key := testkit.ApiKey(namespace, "form", "newsletter")
	g.Expect(plane.Client.Create(t.Context(), key)).To(Succeed())
	ready := conditionOf(t, key, v1alpha1.ConditionReady)
	g.Eventually(ready, soon).Should(Equal("False ListNotFound"))

	list := testkit.List(namespace, "newsletter")
	g.Expect(plane.Client.Create(t.Context(), list)).To(Succeed())
	g.Eventually(ready, soon).Should(Equal("True Issued"))

	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "form"}}
	g.Expect(plane.Client.Get(t.Context(), client.ObjectKeyFromObject(secret), secret)).To(Succeed())
	secret.Data = nil
	g.Expect(plane.Client.Update(t.Context(), secret)).To(Succeed())
	g.Eventually(ready, soon).Should(Equal("False SecretNotFound"))

	secret.StringData = map[string]string{apikey.SecretKey: goodKey}
	g.Expect(plane.Client.Update(t.Context(), secret)).To(Succeed())
	g.Eventually(ready, soon).Should(Equal("True Issued"))
	g.Expect(key.Status.Keys[0].SHA256).To(Equal(apikey.Digest(goodKey)))

	g.Expect(plane.Client.Delete(t.Context(), secret)).To(Succeed())
	g.Eventually(func() string { ready(); return key.Status.Keys[0].Prefix }, soon).Should(HavePrefix("pb_"))

	g.Expect(plane.Client.Delete(t.Context(), list)).To(Succeed())
	g.Eventually(ready, soon).Should(Equal("False ListNotFound"))

	g.Expect(plane.Client.Delete(t.Context(), key)).To(Succeed())
	g.Eventually(func() bool {
		return apierrors.IsNotFound(plane.Client.Get(t.Context(), client.ObjectKeyFromObject(key), key))
	}, soon).Should(BeTrue())
	g.Expect(apierrors.IsNotFound(plane.Client.Get(t.Context(), client.ObjectKeyFromObject(secret), secret))).To(BeTrue())
}

func TestSubscriptionFollowsItsEncryptionKey(t *testing.T) {
	g := NewWithT(t)
	namespace := plane.Namespace(t)
	start(t, openStore(t), Lease{Namespace: namespace})
	subscription := testkit.Subscription(namespace, "crm", callbackURL)
	encrypted(&subscription.Spec)
	g.Expect(plane.Client.Create(t.Context(), subscription)).To(Succeed())
	ready := conditionOf(t, subscription, v1alpha1.ConditionReady)
	g.Eventually(ready, soon).Should(Equal("False SecretNotFound"))

	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "crm-rc4"},
		StringData: map[string]string{"key": "myKey1234"},
	}
	g.Expect(plane.Client.Create(t.Context(), secret)).To(Succeed())
	g.Eventually(ready, soon).Should(Equal("True Active"))

	secret.StringData = map[string]string{"key": "another"}
	g.Expect(plane.Client.Update(t.Context(), secret)).To(Succeed())
	g.Eventually(func() string { ready(); return subscription.Status.SecretVersion(secret.Name) }, soon).Should(Equal(secret.ResourceVersion))
}

func TestApiKeyRotatesByItself(t *testing.T) {
	g := NewWithT(t)
	namespace := plane.Namespace(t)
	s := openStore(t)
	start(t, s, Lease{Namespace: namespace})
	key := testkit.ApiKey(namespace, "form", "newsletter")
	key.Spec.Rotation.Overlap = &metav1.Duration{Duration: 8 * time.Second} // long enough to be seen on a busy machine
	g.Expect(plane.Client.Create(t.Context(), testkit.List(namespace, "newsletter"))).To(Succeed())
	g.Expect(plane.Client.Create(t.Context(), key)).To(Succeed())
	ready := conditionOf(t, key, v1alpha1.ConditionReady)
	g.Eventually(ready, soon).Should(Equal("True Issued"))
	first := key.Status.Keys[0].SHA256

	annotate(t, key, "1")
	g.Eventually(ready, soon).Should(Equal("True Rotating"))
	g.Expect(key.Status.Keys).To(HaveLen(2))
	second := key.Status.Keys[0].SHA256
	g.Expect(key.Status.Keys[1].SHA256).To(Equal(first))
	g.Eventually(ready, soon).Should(Equal("True Issued"), "the overlap has ended")
	g.Expect(key.Status.Keys).To(HaveLen(1))
	g.Expect(key.Status.Keys[0].SHA256).To(Equal(second))

	used := time.Now()
	g.Expect(s.NoteKeyUse(t.Context(), map[store.KeyName]time.Time{keyName(key): used})).To(Succeed())
	g.Eventually(func() int64 {
		ready()
		if key.Status.LastUsedTime == nil {
			return 0
		}
		return key.Status.LastUsedTime.Unix()
	}, soon).Should(Equal(used.Unix()))
}

func annotate(t *testing.T, key *v1alpha1.ApiKey, request string) {
	t.Helper()
	before := key.DeepCopy()
	metav1.SetMetaDataAnnotation(&key.ObjectMeta, v1alpha1.RotateAnnotation, request)
	NewWithT(t).Expect(plane.Client.Patch(t.Context(), key, client.MergeFrom(before))).To(Succeed())
}

func TestStateAndCountsReachStatus(t *testing.T) {
	g := NewWithT(t)
	namespace := plane.Namespace(t)
	s := openStore(t)
	start(t, s, Lease{Namespace: namespace})
	list := testkit.List(namespace, "newsletter")
	subscription := testkit.Subscription(namespace, "crm", callbackURL)
	subscription.Spec.Lists = []string{"newsletter"}
	g.Expect(plane.Client.Create(t.Context(), subscription)).To(Succeed())
	ready := conditionOf(t, subscription, v1alpha1.ConditionReady)
	g.Eventually(ready, soon).Should(Equal("False ListNotFound"))
	g.Expect(plane.Client.Create(t.Context(), list)).To(Succeed())
	g.Eventually(ready, soon).Should(Equal("True Active"))

	addContact(t, s, contact.ListKey{Namespace: namespace, Name: "newsletter"}, "a@example.com", contact.PermissionOther)
	g.Eventually(func() int64 {
		conditionOf(t, list, v1alpha1.ConditionReady)()
		if list.Status.Subscribed == nil {
			return -1
		}
		return *list.Status.Subscribed
	}, soon).Should(BeEquivalentTo(1))

	since := time.Now()
	checkpoint(t, s, keyOf(subscription), func(row *store.Delivery) {
		row.Open = []store.OpenEvent{{Position: 1, Attempts: 1}}
		row.Health.FailingSince = since
		row.Health.LastFailure = &store.Failure{Time: since, Reason: v1alpha1.FailureConnectionRefused, Attempts: 1}
	})
	g.Eventually(ready, soon).Should(Equal("False Failing"))
	checkpoint(t, s, keyOf(subscription), func(row *store.Delivery) { row.Open[0].Attempts, row.Behind = 2, 41 })
	g.Eventually(func() int64 { ready(); return *subscription.Status.PendingEvents }, soon).Should(BeEquivalentTo(42))

	g.Eventually(func() []string { return eventReasons(t, namespace, "crm") }, soon).
		Should(ContainElements("ListNotFound", "Active", "Failing"))
}

func eventReasons(t *testing.T, namespace, name string) []string {
	found := &eventsv1.EventList{}
	if err := plane.Client.List(t.Context(), found, client.InNamespace(namespace)); err != nil {
		return []string{err.Error()}
	}
	var reasons []string
	for _, event := range found.Items {
		if event.Regarding.Name == name {
			reasons = append(reasons, event.Reason)
		}
	}
	return reasons
}

func TestSecondControllerWaitsForTheLease(t *testing.T) {
	g := NewWithT(t)
	namespace := plane.Namespace(t)
	s := openStore(t)
	long := func(options *Options) {
		options.Lease.Duration, options.Lease.RenewDeadline = 5*time.Minute, 4*time.Minute
	}
	first := startWith(t, s, Lease{Namespace: namespace, Identity: "first"}, long)
	g.Eventually(first.logs.String, soon).Should(ContainSubstring("Controller acts"))

	second := startWith(t, s, Lease{Namespace: namespace, Identity: "second"}, long)
	g.Eventually(second.logs.String, soon).Should(ContainSubstring(`"msg"="Waiting for the lease: another controller holds it"`))
	g.Expect(second.logs.String()).To(ContainSubstring(`"holder"="first"`))
	g.Expect(second.logs.String()).NotTo(ContainSubstring("Controller acts"))

	g.Expect(first.stop()).To(Succeed())
	g.Eventually(second.logs.String, soon).Should(ContainSubstring("Controller acts"),
		"the first gave the lease back: nobody has to wait until it runs out")
	list := testkit.List(namespace, "newsletter")
	g.Expect(plane.Client.Create(t.Context(), list)).To(Succeed())
	g.Eventually(conditionOf(t, list, v1alpha1.ConditionReady), soon).Should(Equal("True Valid"))
}

func TestKilledControllerHasItsLeaseAgainAtOnce(t *testing.T) {
	g := NewWithT(t)
	namespace := plane.Namespace(t)
	identity, hour, now := "standalone-1", int32(3600), metav1.NowMicro()
	g.Expect(plane.Client.Create(t.Context(), &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: leaseName},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: &identity, LeaseDurationSeconds: &hour, AcquireTime: &now, RenewTime: &now,
		},
	})).To(Succeed())
	again := start(t, openStore(t), Lease{Namespace: namespace, Identity: identity})
	g.Eventually(again.logs.String, soon).Should(ContainSubstring("Controller acts"))
	g.Expect(again.logs.String()).NotTo(ContainSubstring("Waiting for the lease"))
}

func TestRunNeedsALeaseNamespace(t *testing.T) {
	err := Run(t.Context(), Options{Config: plane.Config, Store: openStore(t)})
	NewWithT(t).Expect(err).To(MatchError(ContainSubstring("namespace is not set")))
}

// Known secrets go in wherever people may put them, in good and in bad form;
// none may come out in status, events or logs.
func TestNothingLeaks(t *testing.T) {
	g := NewWithT(t)
	namespace := plane.Namespace(t)
	weakKey, badSecret, badEncryptionKey, pathToken := "weak-but-secret", "whsec_bad-but-secret", "myKey1234", "T0K3N-in-the-path"
	const ahead = 55 * time.Minute // of the keys' time, so that nobody waits for them to expire
	controller := startWith(t, openStore(t), Lease{Namespace: namespace}, func(options *Options) {
		options.Now = func() time.Time { return time.Now().Add(ahead) }
	})
	put := func(name, key, value string) {
		g.Expect(plane.Client.Create(t.Context(), &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			StringData: map[string]string{key: value},
		})).To(Succeed())
	}
	put("good-key", apikey.SecretKey, goodKey)
	put("weak-key", apikey.SecretKey, weakKey)
	put("good-signing", signature.SecretKey, goodSecret)
	put("bad-signing", signature.SecretKey, badSecret)
	put("crm-rc4", "key", badEncryptionKey+"\n")

	expected := map[client.Object]string{testkit.List(namespace, "newsletter"): "True Valid"}
	for name, ready := range map[string]string{"good-key": "True Issued", "weak-key": "False KeyTooWeak", "generated": "True Issued"} {
		expected[testkit.ApiKey(namespace, name, "newsletter")] = ready
	}
	for name, ready := range map[string]string{"good": "True Active", "bad": "False SecretInvalid"} {
		expected[testkit.Subscription(namespace, name, callbackURL)] = ready
	}
	invalid := testkit.Subscription(namespace, "port", "https://crm.example.com:0/"+pathToken)
	expected[invalid] = "False CallbackInvalid"
	withKey := testkit.Subscription(namespace, "encrypted", callbackURL)
	encrypted(&withKey.Spec)
	expected[withKey] = "False SecretInvalid"
	for name, row := range map[string]struct {
		lives time.Duration
		ready string
	}{"expiring": {time.Hour, "True Issued"}, "expired": {time.Minute, "False Expired"}} {
		key := testkit.ApiKey(namespace, name, "newsletter")
		key.Spec.ExpiresAt = &metav1.Time{Time: time.Now().Add(row.lives)}
		expected[key] = row.ready
	}
	for object := range expected {
		g.Expect(plane.Client.Create(t.Context(), object)).To(Succeed())
	}
	var shown strings.Builder
	for object, ready := range expected {
		g.Eventually(conditionOf(t, object, v1alpha1.ConditionReady), soon).Should(Equal(ready), object.GetName())
		g.Eventually(func() []string { return eventReasons(t, namespace, object.GetName()) }, soon).ShouldNot(BeEmpty())
		g.Expect(json.NewEncoder(&shown).Encode(statusJSON(object))).To(Succeed())
	}
	g.Eventually(func() []string { return eventReasons(t, namespace, "expiring") }, soon).Should(ContainElement("Expiring"))
	older := keyIn(t, namespace, "generated")
	rotating := testkit.ApiKey(namespace, "generated", "newsletter")
	g.Expect(plane.Client.Get(t.Context(), client.ObjectKeyFromObject(rotating), rotating)).To(Succeed())
	annotate(t, rotating, "1")
	g.Eventually(conditionOf(t, rotating, v1alpha1.ConditionReady), soon).Should(Equal("True Rotating"))
	g.Eventually(func() []string { return eventReasons(t, namespace, "generated") }, soon).Should(ContainElement("Rotating"))
	g.Expect(json.NewEncoder(&shown).Encode(rotating.Status)).To(Succeed())
	events := &eventsv1.EventList{}
	g.Expect(plane.Client.List(t.Context(), events, client.InNamespace(namespace))).To(Succeed())
	g.Expect(json.NewEncoder(&shown).Encode(events)).To(Succeed())
	g.Expect(controller.stop()).To(Succeed())
	shown.WriteString(controller.logs.String())

	newer := keyIn(t, namespace, "generated")
	g.Expect(newer).NotTo(Equal(older))
	for _, secret := range []string{goodKey, weakKey, goodSecret, badSecret, badEncryptionKey, pathToken, older, newer, keyIn(t, namespace, "expiring"), keyIn(t, namespace, "expired")} {
		g.Expect(shown.String()).NotTo(ContainSubstring(secret))
	}
	g.Expect(shown.String()).To(ContainSubstring("KeyTooWeak"), "the search looks at the right text")
}

// keyIn reads the key in a Secret.
func keyIn(t *testing.T, namespace, name string) string {
	t.Helper()
	secret := &corev1.Secret{}
	NewWithT(t).Expect(plane.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, secret)).To(Succeed())
	return string(secret.Data[apikey.SecretKey])
}

func statusJSON(object client.Object) any {
	switch object := object.(type) {
	case *v1alpha1.ContactList:
		return object.Status
	case *v1alpha1.ApiKey:
		return object.Status
	case *v1alpha1.WebhookSubscription:
		return object.Status
	}
	return nil
}
