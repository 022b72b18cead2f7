package controllers

import (
	"context"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/guard"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/sqlite"
	"postbus.dev/postbus/internal/testkit"
)

const callbackURL = "https://crm.example.com:8443/hooks/T0K3N-in-the-path"

// newSubscription makes a WebhookSubscription called crm.
func (b *bench) newSubscription() *v1alpha1.WebhookSubscription {
	b.t.Helper()
	subscription := testkit.Subscription(b.namespace, "crm", callbackURL)
	b.create(subscription)
	return subscription
}

func TestSubscriptionIsAccepted(t *testing.T) {
	b := newBench(t)
	addContact(t, b.store, contact.ListKey{Namespace: b.namespace, Name: "newsletter"}, "a@example.com", contact.PermissionNone)
	subscription := b.newSubscription()
	b.pass(subscription)
	b.expect(subscription, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonActive)
	b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonValid)
	b.expect(subscription, v1alpha1.ConditionReachable, metav1.ConditionUnknown, v1alpha1.ReasonNotCalled)
	b.Expect(subscription.Status.State).To(Equal(v1alpha1.StateActive))
	b.Expect(subscription.Status.CallbackHost).To(Equal("crm.example.com:8443"))
	b.Expect(*subscription.Status.PendingEvents).To(BeZero(), "events from before don't count")
	b.Expect(<-b.events.Events).To(HavePrefix("Normal Active"))

	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: "crm-signing"}}
	b.read(secret)
	_, err := signature.ParseSecret(string(secret.Data["secret"]))
	b.Expect(err).NotTo(HaveOccurred())
	b.Expect(subscription.Status.SecretVersion("crm-signing")).To(Equal(secret.ResourceVersion))
}

// encrypted makes a subscription one whose calls are encrypted with RC4.
func encrypted(spec *v1alpha1.WebhookSubscriptionSpec) {
	spec.Payload = v1alpha1.Payload{
		Format:     v1alpha1.FormatMailUp,
		Parameters: []v1alpha1.PayloadParameter{{Name: "customerEmail", Value: "[Email]"}},
		Encryption: v1alpha1.Encryption{
			Algorithm:    v1alpha1.EncryptionRC4,
			KeySecretRef: v1alpha1.SecretKeyReference{Name: "crm-rc4", Key: "key"},
		},
	}
}

// rendered makes a subscription one whose calls have a template's result.
func rendered(template string) func(*v1alpha1.WebhookSubscriptionSpec) {
	return func(spec *v1alpha1.WebhookSubscriptionSpec) {
		spec.Payload = v1alpha1.Payload{Format: v1alpha1.FormatTemplate, Template: template}
	}
}

func TestSubscriptionWithExpressionsIsAccepted(t *testing.T) {
	b := newBench(t)
	subscription := testkit.Subscription(b.namespace, "crm", callbackURL)
	rendered(`{"mail": event.contact.email}`)(&subscription.Spec)
	subscription.Spec.Filter = `event.contact.standardFields.COUNTRY == "DE"`
	b.create(subscription)
	b.pass(subscription)
	b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonValid)
	subscription.Spec.Filter = `nothing`
	b.update(subscription)
	b.pass(subscription)
	b.expect(subscription, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonFilterInvalid)
}

// encryptedByJWE makes a subscription one whose calls are encrypted by JWE.
func encryptedByJWE(spec *v1alpha1.WebhookSubscriptionSpec) {
	spec.Payload.Encryption = v1alpha1.Encryption{
		Algorithm:    v1alpha1.EncryptionJWE,
		KeySecretRef: v1alpha1.SecretKeyReference{Name: "crm-jwe", Key: "key"},
	}
}

func TestSubscriptionWithJWEIsAccepted(t *testing.T) {
	b := newBench(t)
	b.secret("crm-jwe", "key", "an example of 32 bytes, no more.")
	subscription := testkit.Subscription(b.namespace, "crm", callbackURL)
	encryptedByJWE(&subscription.Spec)
	b.create(subscription)
	b.pass(subscription)
	message := b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonValid)
	b.Expect(message).NotTo(ContainSubstring("Warning"))
	b.Expect(subscription.Status.SecretVersion("crm-jwe")).NotTo(BeEmpty())
}

func TestSubscriptionRefusals(t *testing.T) {
	for name, row := range map[string]struct {
		spec    func(*v1alpha1.WebhookSubscriptionSpec)
		prepare func(*bench)
		reason  string
		message string
	}{
		"a list is not there": {
			spec:    func(spec *v1alpha1.WebhookSubscriptionSpec) { spec.Lists = []string{"newsletter", "gone"} },
			prepare: func(b *bench) { b.create(testkit.List(b.namespace, "newsletter")) },
			reason:  v1alpha1.ReasonListNotFound,
			message: `spec.lists: there is no ContactList "gone"`,
		},
		"the port does not exist": {
			spec: func(spec *v1alpha1.WebhookSubscriptionSpec) {
				spec.Callback.URL = "https://crm.example.com:70000/"
			},
			reason:  v1alpha1.ReasonCallbackInvalid,
			message: "port outside 1 to 65535",
		},
		"the host is too long": {
			spec: func(spec *v1alpha1.WebhookSubscriptionSpec) {
				spec.Callback.URL = "https://" + strings.Repeat("a", 254) + "/"
			},
			reason:  v1alpha1.ReasonCallbackInvalid,
			message: "more than 253 characters",
		},
		"the filter can't be compiled": {
			spec: func(spec *v1alpha1.WebhookSubscriptionSpec) {
				spec.Filter = "event.source == 'API' &&\n  event.contact.standardFields.COUNTY == 'DE'"
			},
			reason:  v1alpha1.ReasonFilterInvalid,
			message: "spec.filter, 2:31: undefined field 'COUNTY'.",
		},
		"the filter is no yes or no": {
			spec:    func(spec *v1alpha1.WebhookSubscriptionSpec) { spec.Filter = "event.type" },
			reason:  v1alpha1.ReasonFilterInvalid,
			message: "spec.filter, 1:1: the result is string, it must be a bool.",
		},
		"the filter could cost too much": {
			spec: func(spec *v1alpha1.WebhookSubscriptionSpec) {
				spec.Filter = "event.changed.exists(a, event.changed.exists(b, a.contains(b)))"
			},
			reason:  v1alpha1.ReasonFilterInvalid,
			message: "spec.filter, 1:1: it could cost up to",
		},
		"a pattern of the filter is too large": {
			spec: func(spec *v1alpha1.WebhookSubscriptionSpec) {
				spec.Filter = `cel.bind(s, event.id + "` + strings.Repeat("a", 1900) + `", s.matches(".{0,1000}.{0,1000}xb") || s.matches(".{0,1000}x"))`
			},
			reason:  v1alpha1.ReasonFilterInvalid,
			message: `the pattern ".{0,1000}.{0,1000}xb" compiles to 4004 instructions, the limit is 200: counted repetitions, such as {0,1000}, make many.`,
		},
		"the template can't be compiled": {
			spec:    rendered(`{"mail": event.contact.mail}`),
			reason:  v1alpha1.ReasonTemplateInvalid,
			message: "spec.payload.template, 1:23: undefined field 'mail'.",
		},
		"the template is no map and no list": {
			spec:    rendered(`event.contact.email`),
			reason:  v1alpha1.ReasonTemplateInvalid,
			message: "spec.payload.template, 1:1: the result is string, it must be a map or a list.",
		},
		"the template could cost too much": {
			spec:    rendered(`event.changed.map(a, event.changed.map(b, event.changed.map(c, a + b + c)))`),
			reason:  v1alpha1.ReasonTemplateInvalid,
			message: "spec.payload.template, 1:1: it could cost up to",
		},
		"the signing Secret lacks the data key": {
			prepare: func(b *bench) { b.secret("crm-signing", "key", goodSecret) },
			reason:  v1alpha1.ReasonSecretNotFound,
			message: `Secret "crm-signing" has no data key "secret"`,
		},
		"the signing secret is not in its form": {
			prepare: func(b *bench) { b.secret("crm-signing", "secret", goodKey) },
			reason:  v1alpha1.ReasonSecretInvalid,
			message: "must begin with whsec_",
		},
		"the Secret with the encryption key is not there": {
			spec:    encrypted,
			reason:  v1alpha1.ReasonSecretNotFound,
			message: `There is no Secret "crm-rc4" in this namespace`,
		},
		"the Secret with the encryption key lacks the data key": {
			spec:    encrypted,
			prepare: func(b *bench) { b.secret("crm-rc4", "rc4", "myKey1234") },
			reason:  v1alpha1.ReasonSecretNotFound,
			message: `Secret "crm-rc4" has no data key "key"`,
		},
		"the encryption key ends with a line end": {
			spec:    encrypted,
			prepare: func(b *bench) { b.secret("crm-rc4", "key", "myKey1234\n") },
			reason:  v1alpha1.ReasonSecretInvalid,
			message: `Secret "crm-rc4", data key "key": not an RC4 key: it ends with a line end`,
		},
		"the key of JWE is too short": {
			spec:    encryptedByJWE,
			prepare: func(b *bench) { b.secret("crm-jwe", "key", "an example of 31 bytes, no more") },
			reason:  v1alpha1.ReasonSecretInvalid,
			message: `Secret "crm-jwe", data key "key": not a JWE key: it has 31 bytes, and is no JWK and no PEM`,
		},
		"the Secret with the key of JWE is not there": {
			spec:    encryptedByJWE,
			reason:  v1alpha1.ReasonSecretNotFound,
			message: `There is no Secret "crm-jwe" in this namespace`,
		},
		"the signing Secret was generated for another": {
			spec: func(spec *v1alpha1.WebhookSubscriptionSpec) { spec.Signing.SecretRef.Name = "other-signing" },
			prepare: func(b *bench) {
				other := testkit.Subscription(b.namespace, "other", callbackURL)
				b.create(other)
				b.pass(other)
			},
			reason:  v1alpha1.ReasonSecretTaken,
			message: `was generated for WebhookSubscription "other"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if row.prepare != nil {
				row.prepare(b)
			}
			subscription := testkit.Subscription(b.namespace, "crm", callbackURL)
			if row.spec != nil {
				row.spec(&subscription.Spec)
			}
			b.create(subscription)
			b.pass(subscription)
			b.Expect(b.expect(subscription, v1alpha1.ConditionReady, metav1.ConditionFalse, row.reason)).To(ContainSubstring(row.message))
			b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionFalse, row.reason)
			b.Expect(subscription.Status.State).To(Equal(v1alpha1.StatePending))
			if subscription.Spec.Payload.Encryption.Algorithm == "" {
				b.Expect(subscription.Status.SecretVersion("crm-signing")).To(BeEmpty())
			}
			b.Expect(subscription.Status.SecretVersion("crm-rc4")).To(BeEmpty())
			_, err := b.store.LoadDelivery(t.Context(), keyOf(subscription))
			b.Expect(err).NotTo(HaveOccurred(), "events wait for what is missing")
		})
	}
}

// What can be told without DNS is told when it is applied, with the flag that can
// allow it, and without the path of the URL.
func TestForbiddenCallbacks(t *testing.T) {
	for name, row := range map[string]struct {
		url, message string
		allowed      bool // once there are flags
	}{
		"a private address":   {"https://10.0.0.8/", "spec.callback.url points to 10.0.0.8, a private address (RFC 1918); --allow-callback-networks={namespace}/10.0.0.8/32 can allow it.", true},
		"metadata":            {"https://169.254.169.254/", "--allow-callback-networks={namespace}/169.254.169.254/32 can allow it, named alone.", false},
		"a decimal address":   {"https://2130706433/", `points to "2130706433", an address in an unusual form`, false},
		"IPv6 that hides it":  {"https://[::ffff:127.0.0.1]/", "an IPv4 address in IPv6 form (IPv4-mapped, RFC 4291)", false},
		"a Service":           {"https://crm.marketing.svc/", "a Service in the cluster; --allow-callback-hosts={namespace}/crm.marketing.svc can allow it", true},
		"HTTP":                {"http://crm.example.com/", "spec.callback.url is not HTTPS; --allow-http-callbacks can allow it.", true},
		"this very machine":   {"https://localhost:8443/", "the machine that Postbus runs on; --allow-callback-hosts={namespace}/localhost can allow it", true},
		"full-width digits":   {"https://１２７.0.0.1/", "unusual form", false},
		"a dot behind a name": {"https://localhost./", "the machine that Postbus runs on", true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			subscription := testkit.Subscription(b.namespace, "crm", row.url+"T0K3N-in-the-path")
			b.create(subscription)
			b.pass(subscription)
			message := b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonCallbackForbidden)
			b.Expect(message).To(And(ContainSubstring(strings.ReplaceAll(row.message, "{namespace}", b.namespace)), Not(ContainSubstring("T0K3N"))))
			b.expect(subscription, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonCallbackForbidden)
			b.Expect(subscription.Status.State).To(Equal(v1alpha1.StatePending))

			b.guard = guard.Policies{Everywhere: guard.Policy{
				AllowedNetworks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, AllowedHosts: []string{"*.svc", "localhost"}, AllowHTTP: true,
			}}
			b.pass(subscription)
			accepted := meta.IsStatusConditionTrue(subscription.Status.Conditions, v1alpha1.ConditionAccepted)
			b.Expect(accepted).To(Equal(row.allowed))
		})
	}
}

// What is allowed to another namespace is refused to this one.
func TestCallbacksOfAnotherNamespace(t *testing.T) {
	b := newBench(t)
	allowance := guard.Allowance{Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Hosts: []string{"localhost"}}
	b.guard.Namespaces = map[string]guard.Allowance{"another": allowance}
	byNetwork := testkit.Subscription(b.namespace, "by-network", "https://10.0.0.8/")
	byHost := testkit.Subscription(b.namespace, "by-host", "https://localhost/")
	byToken := testkit.Subscription(b.namespace, "by-token", callbackURL)
	byToken.Spec.Callback.OAuth2 = v1alpha1.OAuth2{TokenURL: "https://10.0.0.8/", ClientSecretRef: v1alpha1.SecretReference{Name: "client"}}
	bySecret := testkit.Subscription(b.namespace, "by-secret", callbackURL)
	secretURL(&bySecret.Spec)
	b.data("crm-url", map[string]string{"url": "https://10.0.0.8/"})
	b.data("client", map[string]string{"client-id": "crm", "client-secret": "a"})
	for _, subscription := range []*v1alpha1.WebhookSubscription{byNetwork, byHost, byToken, bySecret} {
		b.create(subscription)
		b.pass(subscription)
		message := b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonCallbackForbidden)
		b.Expect(message).To(MatchRegexp("--allow-callback-(hosts|networks)=" + b.namespace + "/(localhost|10.0.0.8/32) can allow it"))
	}
	b.guard.Namespaces[b.namespace] = allowance
	for _, subscription := range []*v1alpha1.WebhookSubscription{byNetwork, byHost, byToken, bySecret} {
		b.pass(subscription)
		b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonValid)
	}
}

func TestChangedSigningSecretIsANewVersion(t *testing.T) {
	b := newBench(t)
	secret := b.secret("crm-signing", signature.SecretKey, goodSecret)
	subscription := b.newSubscription()
	b.pass(subscription)
	b.Expect(subscription.Status.SecretVersion("crm-signing")).To(Equal(secret.ResourceVersion))

	secret.StringData = map[string]string{signature.SecretKey: signature.GenerateSecret(v1alpha1.SigningHMAC)}
	b.update(secret)
	b.pass(subscription)
	b.Expect(subscription.Status.SecretVersion("crm-signing")).To(Equal(secret.ResourceVersion))

	secret.StringData = map[string]string{signature.SecretKey: "nonsense"}
	b.update(secret)
	b.pass(subscription)
	b.expect(subscription, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonSecretInvalid)
	b.Expect(subscription.Status.State).To(Equal(v1alpha1.StatePending))

	b.delete(secret)
	b.pass(subscription)
	b.expect(subscription, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonActive)
	b.Expect(b.value("crm-signing", signature.SecretKey)).To(HavePrefix("whsec_"))
}

// Its version leads the dispatcher, and its message warns, for as long as calls
// are encrypted with RC4.
func TestEncryptionKeyIsAccepted(t *testing.T) {
	b := newBench(t)
	secret := b.secret("crm-rc4", "key", "myKey1234")
	subscription := testkit.Subscription(b.namespace, "crm", callbackURL)
	encrypted(&subscription.Spec)
	b.create(subscription)
	b.pass(subscription)
	for condition, reason := range map[string]string{
		v1alpha1.ConditionAccepted: v1alpha1.ReasonValid, v1alpha1.ConditionReady: v1alpha1.ReasonActive,
	} {
		b.Expect(b.expect(subscription, condition, metav1.ConditionTrue, reason)).To(
			And(ContainSubstring("Warning: RC4 is broken"), ContainSubstring("JWE")))
	}
	b.Expect(subscription.Status.SecretVersion("crm-rc4")).To(Equal(secret.ResourceVersion))
	b.Expect(subscription.Status.SecretVersion("crm-signing")).NotTo(BeEmpty(), "calls are signed too")

	secret.StringData = map[string]string{"key": "another"}
	b.update(secret)
	b.pass(subscription)
	b.Expect(subscription.Status.SecretVersion("crm-rc4")).To(Equal(secret.ResourceVersion))

	b.delete(secret)
	b.pass(subscription)
	b.expect(subscription, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound)
	b.Expect(subscription.Status.SecretVersion("crm-rc4")).To(BeEmpty())
	b.expectNoSecret("crm-rc4")

	subscription.Spec.Payload = v1alpha1.Payload{}
	b.update(subscription)
	b.pass(subscription)
	b.Expect(b.expect(subscription, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonActive)).NotTo(ContainSubstring("RC4"))
}

// The life of a callback that fails and comes back, as the dispatcher tells it.
func TestStatusMirrorsTheDelivery(t *testing.T) {
	b := newBench(t)
	subscription := b.newSubscription()
	b.pass(subscription)
	first := time.Date(2026, 11, 22, 9, 0, 0, 123456789, time.UTC)

	b.deliver(subscription, func(row *store.Delivery) { row.Health.LastSuccess = first })
	b.pass(subscription)
	b.expect(subscription, v1alpha1.ConditionReachable, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	b.Expect(subscription.Status.LastSuccessTime.Time).To(BeTemporally("==", first.Truncate(time.Second)))

	since := first.Add(time.Minute)
	b.deliver(subscription, func(row *store.Delivery) {
		row.Open = []store.OpenEvent{{Position: 1, Attempts: 2}, {Position: 2}}
		row.Behind = 10
		row.Health.FailingSince = since
		row.Health.LastFailure = &store.Failure{Time: since.Add(time.Second), Reason: v1alpha1.FailureHTTPStatus, HTTPStatus: 500, Attempts: 2}
	})
	b.pass(subscription)
	message := b.expect(subscription, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonFailing)
	b.Expect(message).To(Equal("Calls fail since 2026-11-22T09:01:00Z: HTTPStatus 500."))
	b.expect(subscription, v1alpha1.ConditionReachable, metav1.ConditionFalse, string(v1alpha1.FailureHTTPStatus))
	status := subscription.Status
	b.Expect(status.State).To(Equal(v1alpha1.StateFailing))
	b.Expect(status.FailingSince.Time).To(BeTemporally("==", since.Truncate(time.Second)))
	b.Expect(*status.PendingEvents).To(BeEquivalentTo(12))
	b.Expect(*status.RetryingEvents).To(BeEquivalentTo(1))
	b.Expect(*status.LastFailure.HTTPStatus).To(BeEquivalentTo(500))
	b.Expect(status.LastFailure.Attempts).To(BeEquivalentTo(2))

	b.deliver(subscription, func(row *store.Delivery) {
		row.Open, row.Behind = nil, 0
		row.Health.FailingSince = time.Time{}
		row.Health.LastSuccess = since.Add(time.Hour)
	})
	b.pass(subscription)
	b.expect(subscription, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonActive)
	b.Expect(subscription.Status.FailingSince).To(BeNil())
	b.Expect(subscription.Status.LastFailure).NotTo(BeNil(), "kept after the callback has recovered")
	b.Expect(*subscription.Status.PendingEvents).To(BeZero())

	b.Expect(<-b.events.Events).To(HavePrefix("Normal Active"))
	b.Expect(<-b.events.Events).To(HavePrefix("Warning Failing"))
	b.Expect(<-b.events.Events).To(HavePrefix("Normal Active"))
	b.Expect(b.events.Events).To(BeEmpty())
}

func TestTimesWithinASecondAreNoChange(t *testing.T) {
	b := newBench(t)
	subscription := b.newSubscription()
	b.pass(subscription)
	b.deliver(subscription, func(row *store.Delivery) { row.Health.LastSuccess = b.now })
	b.pass(subscription)
	version := subscription.ResourceVersion
	b.deliver(subscription, func(row *store.Delivery) { row.Health.LastSuccess = b.now.Add(999 * time.Millisecond) })
	b.pass(subscription)
	b.Expect(subscription.ResourceVersion).To(Equal(version))
}

func TestSuspendedSubscriptionIsReady(t *testing.T) {
	b := newBench(t)
	suspend := true
	subscription := testkit.Subscription(b.namespace, "crm", callbackURL)
	subscription.Spec.Suspend = &suspend
	b.create(subscription)
	b.pass(subscription)
	b.expect(subscription, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSuspended)
	b.Expect(subscription.Status.State).To(Equal(v1alpha1.StateSuspended))
	_, err := b.store.LoadDelivery(t.Context(), keyOf(subscription))
	b.Expect(err).NotTo(HaveOccurred(), "events wait from the start")

	subscription.Spec.Suspend = nil
	b.update(subscription)
	b.pass(subscription)
	b.Expect(subscription.Status.State).To(Equal(v1alpha1.StateActive))
}

func TestDeletedSubscriptionLeavesNothing(t *testing.T) {
	b := newBench(t)
	subscription := b.newSubscription()
	b.pass(subscription)
	b.delete(subscription)
	b.pass(subscription)
	_, err := b.store.LoadDelivery(t.Context(), keyOf(subscription))
	b.Expect(err).To(MatchError(store.ErrNotFound))
	b.expectNoSecret("crm-signing")
	err = plane.Client.Get(t.Context(), client.ObjectKeyFromObject(subscription), subscription)
	b.Expect(apierrors.IsNotFound(err)).To(BeTrue())
}

// oldCopy is a client whose cache has an old copy of a subscription.
type oldCopy struct {
	client.Client
	old *v1alpha1.WebhookSubscription
}

// Get implements client.Client.
func (o oldCopy) Get(_ context.Context, _ client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	o.old.DeepCopyInto(object.(*v1alpha1.WebhookSubscription))
	return nil
}

// The cache of a controller that has just begun to act may be behind what the one
// before it did: a subscription was deleted, and another made under its name.
func TestOldCopyOfADeletedSubscription(t *testing.T) {
	b := newBench(t)
	first := b.newSubscription()
	b.pass(first)
	before := first.DeepCopy()
	b.delete(first)
	b.read(first)
	deleted := first.DeepCopy()
	b.pass(first)
	pass := func(old *v1alpha1.WebhookSubscription) (reconcile.Result, error) {
		loop := b.subscriptions().loop()
		loop.client = oldCopy{plane.Client, old}
		return loop.Reconcile(t.Context(), requestFor(old))
	}

	_, err := pass(before)
	b.Expect(err).To(MatchError(ContainSubstring("deleted meanwhile")))
	_, err = b.store.LoadDelivery(t.Context(), keyOf(first))
	b.Expect(err).To(MatchError(store.ErrNotFound), "no row is made that nobody drops")

	second := b.newSubscription()
	b.pass(second)
	row, err := b.store.LoadDelivery(t.Context(), keyOf(second))
	b.Expect(err).NotTo(HaveOccurred())
	result, err := pass(deleted)
	b.Expect(err).NotTo(HaveOccurred())
	b.Expect(result.RequeueAfter).To(Equal(conflictDelay), "until the cache has the new one")
	b.Expect(b.store.LoadDelivery(t.Context(), keyOf(second))).To(Equal(row), "the row of the new one stays")
}

// A store that is down must not make a new spec look done, nor an old one undone.
func TestFailureSaysNothingAboutTheSpec(t *testing.T) {
	b := newBench(t)
	subscription := b.newSubscription()
	b.pass(subscription)
	broken, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "store.db"))
	b.Expect(err).NotTo(HaveOccurred())
	b.Expect(broken.Close()).To(Succeed())
	b.store = broken
	loop := b.subscriptions().loop()
	request := requestFor(subscription)

	_, err = loop.Reconcile(t.Context(), request)
	b.Expect(err).To(MatchError(ContainSubstring("look for an object's binding")))
	b.read(subscription)
	b.expect(subscription, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonActive)

	subscription.Spec.App = "changed"
	b.update(subscription)
	_, err = loop.Reconcile(t.Context(), request)
	b.Expect(err).To(HaveOccurred())
	b.read(subscription)
	b.expect(subscription, v1alpha1.ConditionReady, metav1.ConditionUnknown, v1alpha1.ReasonProgressing)
	b.Expect(subscription.Status.ObservedGeneration).To(BeNumerically("<", subscription.Generation))
}
