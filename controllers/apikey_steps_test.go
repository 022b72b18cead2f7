package controllers

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/apikey"
	"postbus.dev/postbus/internal/testkit"
)

// newKey makes an ApiKey called form on a list that exists.
func (b *bench) newKey() *v1alpha1.ApiKey {
	b.t.Helper()
	key := testkit.ApiKey(b.namespace, "form", "newsletter")
	b.create(testkit.List(b.namespace, "newsletter"), key)
	return key
}

func TestApiKeyIsGenerated(t *testing.T) {
	b := newBench(t)
	key := b.newKey()
	b.pass(key)
	b.expect(key, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonIssued)
	b.expect(key, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonValid)
	b.Expect(key.Status.Ready).To(Equal(metav1.ConditionTrue))
	b.Expect(key.Finalizers).To(ConsistOf(v1alpha1.Finalizer))

	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: "form"}}
	b.read(secret)
	value := string(secret.Data["key"])
	b.Expect(apikey.Check(value)).To(Succeed())
	b.Expect(secret.Labels).To(HaveKeyWithValue("app.kubernetes.io/managed-by", "postbus"))
	b.Expect(metav1.IsControlledBy(secret, key)).To(BeTrue())
	b.Expect(key.Status.Keys).To(ConsistOf(v1alpha1.ApiKeyDigest{
		SHA256: apikey.Digest(value), Prefix: apikey.Prefix(value),
	}))
	b.Expect(<-b.events.Events).To(HavePrefix("Normal Issued"))
}

func TestExistingSecretIsUsedAsItIs(t *testing.T) {
	for name, value := range map[string]string{
		"as it is":                   goodKey,
		"without a line end":         goodKey + "\n",
		"without a Windows line end": goodKey + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			secret := b.secret("form", apikey.SecretKey, value)
			key := b.newKey()
			b.pass(key)
			b.expect(key, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonIssued)
			b.Expect(key.Status.Keys).To(ConsistOf(v1alpha1.ApiKeyDigest{SHA256: apikey.Digest(goodKey)}))
			b.Expect(b.value("form", "key")).To(Equal(value), "nobody touched it")

			b.delete(key)
			b.pass(key)
			b.read(secret)
		})
	}
}

func TestChangedSecretChangesTheDigest(t *testing.T) {
	b := newBench(t)
	secret := b.secret("form", apikey.SecretKey, goodKey)
	key := b.newKey()
	b.pass(key)

	other := apikey.Generate()
	secret.StringData = map[string]string{apikey.SecretKey: other}
	b.update(secret)
	b.pass(key)
	b.Expect(key.Status.Keys).To(HaveLen(1))
	b.Expect(key.Status.Keys[0].SHA256).To(Equal(apikey.Digest(other)))
}

func TestDeletedSecretIsGeneratedAnew(t *testing.T) {
	b := newBench(t)
	key := b.newKey()
	b.pass(key)
	before := key.Status.Keys[0].SHA256
	b.delete(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: "form"}})
	b.pass(key)
	b.Expect(key.Status.Keys[0].SHA256).To(Equal(apikey.Digest(b.value("form", "key"))))
	b.Expect(key.Status.Keys[0].SHA256).NotTo(Equal(before))
}

func TestApiKeyRefusals(t *testing.T) {
	suspend := true
	for name, row := range map[string]struct {
		prepare  func(*bench, *v1alpha1.ApiKey)
		reason   string
		accepted metav1.ConditionStatus
		message  string
		keys     int
	}{
		"the list is not there": {
			prepare:  func(b *bench, _ *v1alpha1.ApiKey) { b.delete(testkit.List(b.namespace, "newsletter")) },
			reason:   v1alpha1.ReasonListNotFound,
			accepted: metav1.ConditionFalse,
			message:  `spec.listRef: there is no ContactList "newsletter"`,
			keys:     1, // a caller is told that the list is gone, not that the key is unknown
		},
		"the Secret lacks the data key": {
			prepare:  func(b *bench, _ *v1alpha1.ApiKey) { b.secret("form", "other", goodKey) },
			reason:   v1alpha1.ReasonSecretNotFound,
			accepted: metav1.ConditionFalse,
			message:  `Secret "form" has no data key "key"`,
		},
		"the key is too weak": {
			prepare:  func(b *bench, _ *v1alpha1.ApiKey) { b.secret("form", "key", "correct-horse-battery") },
			reason:   v1alpha1.ReasonKeyTooWeak,
			accepted: metav1.ConditionFalse,
			message:  "at least 22 are needed",
		},
		"the Secret was generated for another": {
			prepare: func(b *bench, key *v1alpha1.ApiKey) {
				other := testkit.ApiKey(b.namespace, "other", "newsletter")
				other.Spec.SecretRef.Name = "form"
				b.create(other)
				b.pass(other)
			},
			reason:   v1alpha1.ReasonSecretTaken,
			accepted: metav1.ConditionFalse,
			message:  `was generated for ApiKey "other"`,
		},
		"it is suspended": {
			prepare: func(b *bench, key *v1alpha1.ApiKey) {
				key.Spec.Suspend = &suspend
				b.update(key)
			},
			reason:   v1alpha1.ReasonSuspended,
			accepted: metav1.ConditionTrue,
			message:  "spec.suspend is true",
		},
		"it has expired": {
			prepare: func(b *bench, key *v1alpha1.ApiKey) {
				now := metav1.NewTime(b.now)
				key.Spec.ExpiresAt = &now
				b.update(key)
			},
			reason:   v1alpha1.ReasonExpired,
			accepted: metav1.ConditionTrue,
			message:  "expired at 2026-11-22T10:00:00Z",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			key := b.newKey()
			row.prepare(b, key)
			result := b.pass(key)
			b.Expect(result.RequeueAfter).To(BeZero())
			b.Expect(b.expect(key, v1alpha1.ConditionReady, metav1.ConditionFalse, row.reason)).To(ContainSubstring(row.message))
			b.Expect(key.Status.Ready).To(Equal(metav1.ConditionFalse))
			b.Expect(key.Status.Keys).To(HaveLen(row.keys))
			if row.accepted == metav1.ConditionTrue {
				b.expect(key, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonValid)
			} else {
				b.expect(key, v1alpha1.ConditionAccepted, metav1.ConditionFalse, row.reason)
			}
		})
	}
}

func TestSecretOfAnotherOperatorIsUsed(t *testing.T) {
	b := newBench(t)
	controller := true
	secret := b.secret("form", apikey.SecretKey, goodKey)
	secret.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: "bitnami.com/v1alpha1", Kind: "SealedSecret", Name: "form", UID: "b8a5", Controller: &controller,
	}}
	b.update(secret)
	key := b.newKey()
	b.pass(key)
	b.expect(key, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonIssued)
}

func TestApiKeyExpires(t *testing.T) {
	b := newBench(t)
	key := testkit.ApiKey(b.namespace, "form", "newsletter")
	expiry := metav1.NewTime(b.now.Add(time.Hour))
	key.Spec.ExpiresAt = &expiry
	b.create(testkit.List(b.namespace, "newsletter"), key)

	result := b.pass(key)
	b.expect(key, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonIssued)
	b.Expect(key.Status.Keys[0].NotAfter.Time).To(BeTemporally("==", expiry.Time))
	b.Expect(result.RequeueAfter).To(Equal(time.Hour))

	b.now = expiry.Time
	b.pass(key)
	b.expect(key, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonExpired)
	b.Expect(key.Status.Keys).To(BeEmpty())
}

func TestDeletedApiKeyTakesItsSecretAlong(t *testing.T) {
	b := newBench(t)
	key := b.newKey()
	b.pass(key)
	key.Spec.SecretRef.Name = "second"
	b.update(key)
	b.pass(key)
	b.Expect(b.value("second", "key")).NotTo(BeEmpty())

	b.delete(key)
	b.pass(key)
	b.expectNoSecret("form")
	b.expectNoSecret("second")
	b.Expect(plane.Client.Get(t.Context(), client.ObjectKeyFromObject(key), key)).NotTo(Succeed())
}

// A suspended key works again, with the same Secret, once that is lifted.
func TestSuspensionIsLifted(t *testing.T) {
	b := newBench(t)
	key := b.newKey()
	b.pass(key)
	digest := key.Status.Keys[0].SHA256

	suspend := true
	key.Spec.Suspend = &suspend
	b.update(key)
	b.pass(key)
	b.Expect(key.Status.Keys).To(BeEmpty())

	key.Spec.Suspend = nil
	b.update(key)
	b.pass(key)
	b.expect(key, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonIssued)
	b.Expect(key.Status.Keys[0].SHA256).To(Equal(digest))
}
