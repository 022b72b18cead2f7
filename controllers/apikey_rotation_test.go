package controllers

import (
	"context"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/apikey"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/testkit"
)

// otherKey is as good as goodKey.
const otherKey = "Qw7rT2yUi9OpLk4jHg6fDs"

// ask annotates a key with a request for rotation.
func (b *bench) ask(key *v1alpha1.ApiKey, request string) {
	b.t.Helper()
	metav1.SetMetaDataAnnotation(&key.ObjectMeta, v1alpha1.RotateAnnotation, request)
	b.update(key)
}

// put writes a key into the Secret of a key, as people do.
func (b *bench) put(value string) {
	b.t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: "form"}}
	b.read(secret)
	secret.StringData = map[string]string{apikey.SecretKey: value}
	b.update(secret)
}

// expectKeys checks that these keys work, the Secret's first.
func (b *bench) expectKeys(key *v1alpha1.ApiKey, values ...string) {
	b.t.Helper()
	var want, got []string
	for _, value := range values {
		want = append(want, apikey.Digest(value))
	}
	for _, digest := range key.Status.Keys {
		got = append(got, digest.SHA256)
	}
	b.Expect(got).To(Equal(want))
}

func TestGeneratedKeyIsRotated(t *testing.T) {
	b := newBench(t)
	key := b.newKey()
	b.pass(key)
	first := b.value("form", "key")

	b.ask(key, "1")
	result := b.pass(key)
	second := b.value("form", "key")
	b.Expect(second).NotTo(Equal(first))
	b.Expect(apikey.Check(second)).To(Succeed())
	b.expectKeys(key, second, first)
	b.Expect(key.Status.Keys[0].NotAfter).To(BeNil())
	b.Expect(key.Status.Keys[1].NotAfter.Time).To(BeTemporally("==", b.now.Add(24*time.Hour)))
	b.Expect(key.Status.LastHandledRotation).To(Equal("1"))
	b.Expect(b.expect(key, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonRotating)).
		To(Equal("The new key works, and the older one until 2026-11-23T10:00:00Z."))
	b.Expect(result.RequeueAfter).To(Equal(24 * time.Hour))

	b.now = b.now.Add(24*time.Hour - time.Second)
	before := key.DeepCopy()
	b.pass(key)
	b.Expect(key).To(Equal(before), "nothing happens before the overlap ends")

	b.now = b.now.Add(time.Second)
	result = b.pass(key)
	b.expectKeys(key, second)
	b.Expect(b.expect(key, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonIssued)).To(Equal("The key works."))
	b.Expect(result.RequeueAfter).To(BeZero())
	b.Expect(b.value("form", "key")).To(Equal(second), "the same value again asks for nothing")
	b.Expect(<-b.events.Events).To(HavePrefix("Normal Issued"))
	b.Expect(<-b.events.Events).To(HavePrefix("Normal Rotating"))
}

// The controller is killed at each point of a rotation; another one then makes
// one new key of it, and never loses the older one.
func TestRotationSurvivesAKill(t *testing.T) {
	for name, killed := range map[string]func(b *bench, key *v1alpha1.ApiKey){
		"before the Secret is written": func(*bench, *v1alpha1.ApiKey) {},
		"between the Secret and status": func(b *bench, key *v1alpha1.ApiKey) {
			_, err := b.keys().readKey(t.Context(), key.DeepCopy())
			b.Expect(err).NotTo(HaveOccurred())
		},
		"between the two, and so is its successor": func(b *bench, key *v1alpha1.ApiKey) {
			for range 2 {
				_, err := b.keys().readKey(t.Context(), key.DeepCopy())
				b.Expect(err).NotTo(HaveOccurred())
			}
		},
		"when status is refused, since the ApiKey has changed": func(b *bench, key *v1alpha1.ApiKey) {
			old := key.DeepCopy()
			metav1.SetMetaDataAnnotation(&key.ObjectMeta, "example.com/changed", "true")
			b.update(key)
			before := old.DeepCopy()
			_, err := b.keys().readKey(t.Context(), old)
			b.Expect(err).NotTo(HaveOccurred())
			result, err := b.keys().loop().finish(t.Context(), before, old, nil)
			b.Expect(err).NotTo(HaveOccurred())
			b.Expect(result.RequeueAfter).To(Equal(conflictDelay))
		},
		"after status is written": func(b *bench, key *v1alpha1.ApiKey) { b.pass(key) },
		"and another one goes on with an old copy": func(b *bench, key *v1alpha1.ApiKey) {
			old := key.DeepCopy()
			b.pass(key)
			_, err := b.keys().readKey(t.Context(), old)
			b.Expect(err).NotTo(HaveOccurred())
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			key := b.newKey()
			b.pass(key)
			first := b.value("form", "key")
			b.ask(key, "1")
			killed(b, key)
			b.read(key)
			b.Expect(key.Status.Keys).To(ContainElement(HaveField("SHA256", apikey.Digest(first))), "the older key works all the time")
			written := b.value("form", "key")

			b.pass(key)
			second := b.value("form", "key")
			b.Expect(second).NotTo(Equal(first))
			if written != first {
				b.Expect(second).To(Equal(written), "it was rotated once")
			}
			b.expectKeys(key, second, first)
			b.Expect(key.Status.LastHandledRotation).To(Equal("1"))
			b.expect(key, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonRotating)
			b.pass(key)
			b.expectKeys(key, second, first)
		})
	}
}

// Two controllers read one Secret and both want to renew it.
func TestSecretIsRenewedByOneOnly(t *testing.T) {
	b := newBench(t)
	key := b.newKey()
	b.pass(key)
	want := wanted{name: "form", key: apikey.SecretKey, generate: apikey.Generate}
	found, err := b.secrets().value(t.Context(), key, want)
	b.Expect(err).NotTo(HaveOccurred())
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: "form"}}
	b.read(secret)
	secret.Data["note"] = []byte("kept")
	b.update(secret)

	_, err = b.secrets().renew(t.Context(), key, want, found)
	b.Expect(apierrors.IsConflict(err)).To(BeTrue(), "%v", err)
	found, err = b.secrets().value(t.Context(), key, want)
	b.Expect(err).NotTo(HaveOccurred())
	renewed, err := b.secrets().renew(t.Context(), key, want, found)
	b.Expect(err).NotTo(HaveOccurred())
	b.Expect(b.value("form", "key")).To(Equal(renewed.value))
	b.Expect(b.value("form", "note")).To(Equal("kept"))
}

func TestOverlap(t *testing.T) {
	for name, row := range map[string]struct {
		change func(b *bench, key *v1alpha1.ApiKey)
		// after is how long the older key works; 0 means not at all.
		after time.Duration
	}{
		"a day by default": {func(*bench, *v1alpha1.ApiKey) {}, 24 * time.Hour},
		"as long as the spec says": {func(_ *bench, key *v1alpha1.ApiKey) {
			key.Spec.Rotation.Overlap = &metav1.Duration{Duration: 90 * time.Second}
		}, 90 * time.Second},
		"none": {func(_ *bench, key *v1alpha1.ApiKey) {
			key.Spec.Rotation.Overlap = &metav1.Duration{}
		}, 0},
		"not beyond the expiry": {func(b *bench, key *v1alpha1.ApiKey) {
			key.Spec.ExpiresAt = &metav1.Time{Time: b.now.Add(time.Hour)}
		}, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			key := b.newKey()
			row.change(b, key)
			b.update(key)
			b.pass(key)
			first := b.value("form", "key")
			b.ask(key, "1")
			b.pass(key)
			second := b.value("form", "key")
			b.Expect(second).NotTo(Equal(first))
			if row.after == 0 {
				b.expectKeys(key, second)
				b.expect(key, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonIssued)
				return
			}
			b.expectKeys(key, second, first)
			b.Expect(key.Status.Keys[1].NotAfter.Time).To(BeTemporally("==", b.now.Add(row.after)))
		})
	}
}

func TestSecondRotationEndsTheOverlapOfTheFirst(t *testing.T) {
	b := newBench(t)
	key := b.newKey()
	b.pass(key)
	b.ask(key, "1")
	b.pass(key)
	second := b.value("form", "key")
	b.ask(key, "2")
	b.pass(key)
	b.expectKeys(key, b.value("form", "key"), second)
	b.Expect(key.Status.LastHandledRotation).To(Equal("2"))
}

func TestOverlapEndsWhileTheListIsGone(t *testing.T) {
	b := newBench(t)
	key := b.newKey()
	b.pass(key)
	b.ask(key, "1")
	b.pass(key)
	b.delete(testkit.List(b.namespace, "newsletter"))
	result := b.pass(key)
	b.expect(key, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonListNotFound)
	b.Expect(key.Status.Keys).To(HaveLen(2))
	b.Expect(result.RequeueAfter).To(Equal(24 * time.Hour))

	b.now = b.now.Add(24 * time.Hour)
	result = b.pass(key)
	b.expectKeys(key, b.value("form", "key"))
	b.Expect(result.RequeueAfter).To(BeZero())
}

func TestExpiryThatComesNearerEndsTheOverlapToo(t *testing.T) {
	b := newBench(t)
	key := b.newKey()
	b.pass(key)
	b.ask(key, "1")
	b.pass(key)
	key.Spec.ExpiresAt = &metav1.Time{Time: b.now.Add(time.Minute)}
	b.update(key)
	result := b.pass(key)
	b.Expect(key.Status.Keys[1].NotAfter.Time).To(BeTemporally("==", b.now.Add(time.Minute)))
	b.Expect(result.RequeueAfter).To(Equal(time.Minute))
}

func TestAnnotationOfANewApiKeyAsksForNothing(t *testing.T) {
	b := newBench(t)
	key := testkit.ApiKey(b.namespace, "form", "newsletter")
	long := strings.Repeat("ü", 300)
	key.Annotations = map[string]string{v1alpha1.RotateAnnotation: long}
	b.create(testkit.List(b.namespace, "newsletter"), key)
	b.pass(key)
	first := b.value("form", "key")
	b.Expect(key.Status.LastHandledRotation).To(Equal(long[:2*256]), "256 characters of it count")
	b.pass(key)
	b.expectKeys(key, first)
	b.Expect(b.value("form", "key")).To(Equal(first))
	b.expect(key, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonIssued)
}

// It asks for nothing either where its first key can't be taken.
func TestAnnotationOfANewApiKeyWithAWeakKeyAsksForNothing(t *testing.T) {
	b := newBench(t)
	b.create(testkit.List(b.namespace, "newsletter"))
	secret := b.secret("form", apikey.SecretKey, "weak")
	key := testkit.ApiKey(b.namespace, "form", "newsletter")
	metav1.SetMetaDataAnnotation(&key.ObjectMeta, v1alpha1.RotateAnnotation, "1")
	b.create(key)
	b.pass(key)
	b.expect(key, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonKeyTooWeak)
	secret.StringData = map[string]string{apikey.SecretKey: goodKey}
	b.update(secret)
	b.pass(key)
	b.Expect(b.expect(key, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonIssued)).To(Equal("The key works."))
	b.Expect(key.Status.LastHandledRotation).To(Equal("1"))
}

// A request for a suspended key waits; when that is lifted, status names the
// key before the Secret gets another.
func TestRequestWaitsWhileTheKeyIsSuspended(t *testing.T) {
	b := newBench(t)
	key := b.newKey()
	b.pass(key)
	first := b.value("form", "key")
	suspend := true
	key.Spec.Suspend = &suspend
	b.update(key)
	b.ask(key, "1")
	b.pass(key)
	b.Expect(key.Status.Keys).To(BeEmpty())
	b.Expect(b.value("form", "key")).To(Equal(first))

	key.Spec.Suspend = nil
	b.update(key)
	result := b.pass(key)
	b.Expect(result.RequeueAfter).To(Equal(rotationDelay))
	b.expectKeys(key, first)
	b.pass(key)
	b.expectKeys(key, b.value("form", "key"), first)
	b.expect(key, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonRotating)

	key.Spec.Suspend = &suspend
	b.update(key)
	b.pass(key)
	key.Spec.Suspend = nil
	b.update(key)
	b.pass(key)
	b.expectKeys(key, b.value("form", "key"))
}

func TestKeyThatPeopleBringIsRotated(t *testing.T) {
	b := newBench(t)
	b.secret("form", apikey.SecretKey, goodKey)
	key := b.newKey()
	b.pass(key)
	b.ask(key, "1")
	result := b.pass(key)
	b.Expect(result.RequeueAfter).To(BeZero())
	b.Expect(b.expect(key, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonIssued)).To(Equal(
		`The key works. Rotation waits for a new key in Secret "form": whoever keeps that Secret must put it there. ` +
			`The present one then works for another 24h0m0s.`))
	b.Expect(b.value("form", "key")).To(Equal(goodKey), "nobody touched it")
	b.expectKeys(key, goodKey)
	b.Expect(key.Status.LastHandledRotation).To(BeEmpty())

	b.put(otherKey)
	b.pass(key)
	b.expectKeys(key, otherKey, goodKey)
	b.Expect(key.Status.LastHandledRotation).To(Equal("1"))
	b.Expect(b.expect(key, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonRotating)).NotTo(ContainSubstring("waits"))
}

// A key that has leaked must die when it is replaced.
func TestKeyReplacedWithoutARequestStopsAtOnce(t *testing.T) {
	for name, replace := range map[string]func(b *bench){
		"people put another into the Secret": func(b *bench) { b.put(otherKey) },
		"the Secret is deleted": func(b *bench) {
			b.delete(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: "form"}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			key := b.newKey()
			b.pass(key)
			b.ask(key, "1")
			b.pass(key)
			b.Expect(key.Status.Keys).To(HaveLen(2))

			replace(b)
			b.pass(key)
			b.expectKeys(key, b.value("form", "key"))
			b.expect(key, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonIssued)
		})
	}
}

func TestExpiryIsWarnedOfOnce(t *testing.T) {
	const day = 24 * time.Hour
	for name, row := range map[string]struct{ lifetime, left time.Duration }{
		"14 days before, at most":             {lifetime: 365 * day, left: 14 * day},
		"when a tenth is left of a short one": {lifetime: 10 * day, left: day},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			key := b.newKey()
			expiry := key.CreationTimestamp.Add(row.lifetime)
			key.Spec.ExpiresAt = &metav1.Time{Time: expiry}
			b.update(key)

			b.now = expiry.Add(-row.left - time.Minute)
			result := b.pass(key)
			b.Expect(result.RequeueAfter).To(Equal(time.Minute))
			b.Expect(<-b.events.Events).To(HavePrefix("Normal Issued"))
			b.Expect(b.events.Events).To(BeEmpty())

			b.now = b.now.Add(time.Minute)
			result = b.pass(key)
			b.Expect(result.RequeueAfter).To(Equal(row.left))
			told := expiry.UTC().Format(time.RFC3339)
			b.Expect(<-b.events.Events).To(HavePrefix("Warning Expiring The key expires at " + told))
			b.Expect(b.expect(key, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonIssued)).
				To(Equal("The key works. It expires soon, at " + told + "."))
			b.now = b.now.Add(time.Minute)
			b.pass(key)
			b.Expect(b.events.Events).To(BeEmpty(), "once")
			b.Expect(b.raised()).To(ConsistOf(And(
				HaveField("List", contact.ListKey{Namespace: b.namespace}),
				HaveField("Operation", HaveValue(Equal(contact.Operation{Kind: "ApiKey", Name: "form", ExpiresAt: inSeconds(key.Spec.ExpiresAt).UTC()}))))))

			key.Spec.ExpiresAt = &metav1.Time{Time: expiry.Add(100 * day)}
			b.update(key)
			b.pass(key)
			b.Expect(key.Status.WarnedExpiry).To(BeNil())
			b.Expect(b.expect(key, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonIssued)).To(Equal("The key works."))
			b.now = expiry.Add(100*day - time.Hour)
			b.pass(key)
			b.Expect(b.events.Events).To(Receive(HavePrefix("Warning Expiring")), "the later expiry is another")
			b.Expect(b.raised()).To(HaveLen(2))
		})
	}
}

// raised returns the operational events about keys that are in the log.
func (b *bench) raised() []contact.Event {
	b.t.Helper()
	found, err := b.store.Read(b.t.Context(), store.Query{Filter: store.Filter{Types: []v1alpha1.EventType{contact.EventKeyExpiring}}})
	b.Expect(err).NotTo(HaveOccurred())
	return found
}

// A pass that ends between the log and status is made again, and raises nothing
// twice; one whose event the log does not take says nothing in status.
func TestExpiryIsRaisedOnceWhateverEnds(t *testing.T) {
	b := newBench(t)
	key := b.newKey()
	expiry := key.CreationTimestamp.Add(time.Hour)
	key.Spec.ExpiresAt = &metav1.Time{Time: expiry}
	b.update(key)
	b.now = expiry.Add(-time.Minute)
	for range 2 {
		lost := key.DeepCopy() // as if status had not been written
		b.Expect(b.keys().warnOfExpiry(t.Context(), lost)).To(Succeed())
		b.Expect(lost.Status.WarnedExpiry).NotTo(BeNil())
	}
	b.Expect(b.raised()).To(HaveLen(1))

	key.Spec.ExpiresAt.Time = expiry.Add(time.Second)
	ended, end := context.WithCancel(t.Context())
	end()
	b.Expect(b.keys().warnOfExpiry(ended, key)).To(MatchError(context.Canceled))
	b.Expect(key.Status.WarnedExpiry).To(BeNil())
}

func TestDeletedApiKeyIsForgottenByTheStore(t *testing.T) {
	b := newBench(t)
	key := b.newKey()
	b.pass(key)
	b.use(key, b.now)
	b.delete(key)
	b.pass(key)
	uses, err := b.store.KeyUses(t.Context(), time.Time{})
	b.Expect(err).NotTo(HaveOccurred())
	b.Expect(uses).To(BeEmpty())
	b.Expect(apierrors.IsNotFound(plane.Client.Get(t.Context(), client.ObjectKeyFromObject(key), key))).To(BeTrue())
}
