package controllers

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/testkit"
)

// goodPrivate is a private key, and goodPublic what verifies what it signs; in no
// test generated.
const (
	goodPrivate = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
	goodPublic  = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
)

// askSigning annotates a subscription with a request for a new signing secret.
func (b *bench) askSigning(subscription *v1alpha1.WebhookSubscription, request string) {
	b.t.Helper()
	metav1.SetMetaDataAnnotation(&subscription.ObjectMeta, v1alpha1.RotateSigningAnnotation, request)
	b.update(subscription)
}

// signs returns what the Secret of crm holds: the current secret, and the one
// before it.
func (b *bench) signs() (current, previous string) {
	b.t.Helper()
	return b.value("crm-signing", signature.SecretKey), b.value("crm-signing", signature.PreviousKey)
}

// expectAccepted checks that a subscription is accepted, and returns the message.
func (b *bench) expectAccepted(subscription *v1alpha1.WebhookSubscription) string {
	b.t.Helper()
	return b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonValid)
}

const nothingToNote = "Everything that the spec names exists."

func TestGeneratedSigningSecretIsRotated(t *testing.T) {
	b := newBench(t)
	subscription := b.newSubscription()
	b.pass(subscription)
	first, _ := b.signs()

	b.askSigning(subscription, "1")
	result := b.pass(subscription)
	second, previous := b.signs()
	b.Expect(second).NotTo(Equal(first))
	b.Expect(previous).To(Equal(first))
	status := &subscription.Status
	b.Expect(status.Signing.LastHandledRotation).To(Equal("1"))
	b.Expect(status.Signing.PreviousUntil.Time).To(BeTemporally("==", b.now.Add(24*time.Hour)))
	b.Expect(status.Signing.PublicKey).To(BeEmpty())
	version := status.SecretVersion("crm-signing")
	b.Expect(b.expectAccepted(subscription)).To(Equal(nothingToNote +
		" Until 2026-11-23T10:00:00Z calls are signed with the secret before the present one, too."))
	b.expect(subscription, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonActive)
	b.Expect(result.RequeueAfter).To(Equal(24 * time.Hour))

	b.now = b.now.Add(24*time.Hour - time.Second)
	before := subscription.DeepCopy()
	b.pass(subscription)
	b.Expect(subscription).To(Equal(before), "nothing happens before the overlap ends")

	b.now = b.now.Add(time.Second)
	result = b.pass(subscription)
	current, previous := b.signs()
	b.Expect(current).To(Equal(second), "the same value again asks for nothing")
	b.Expect(previous).To(BeEmpty())
	b.Expect(status.Signing).To(Equal(v1alpha1.SigningStatus{LastHandledRotation: "1"}))
	b.Expect(status.SecretVersion("crm-signing")).NotTo(Equal(version), "the dispatcher reads the Secret again")
	b.Expect(b.expectAccepted(subscription)).To(Equal(nothingToNote))
	b.Expect(result.RequeueAfter).To(BeZero())
}

// The controller is killed at each point of a rotation; another one then makes one
// new secret of it, and the one before it signs all the time.
func TestSigningRotationSurvivesAKill(t *testing.T) {
	lost := func(b *bench, subscription *v1alpha1.WebhookSubscription) {
		_ = b.subscriptions().checkSigning(b.t.Context(), subscription) // status is not written
	}
	for name, killed := range map[string]func(b *bench, subscription *v1alpha1.WebhookSubscription){
		"before the Secret is written": func(*bench, *v1alpha1.WebhookSubscription) {},
		"between the Secret and status": func(b *bench, subscription *v1alpha1.WebhookSubscription) {
			lost(b, subscription.DeepCopy())
		},
		"between the two, and so is its successor": func(b *bench, subscription *v1alpha1.WebhookSubscription) {
			lost(b, subscription.DeepCopy())
			lost(b, subscription.DeepCopy())
		},
		"when status is refused, since the subscription has changed": func(b *bench, subscription *v1alpha1.WebhookSubscription) {
			old := subscription.DeepCopy()
			metav1.SetMetaDataAnnotation(&subscription.ObjectMeta, "example.com/changed", "true")
			b.update(subscription)
			before := old.DeepCopy()
			lost(b, old)
			result, err := b.subscriptions().loop().finish(b.t.Context(), before, old, nil)
			b.Expect(err).NotTo(HaveOccurred())
			b.Expect(result.RequeueAfter).To(Equal(conflictDelay))
		},
		"after status is written": func(b *bench, subscription *v1alpha1.WebhookSubscription) { b.pass(subscription) },
		"and another one goes on with an old copy": func(b *bench, subscription *v1alpha1.WebhookSubscription) {
			old := subscription.DeepCopy()
			b.pass(subscription)
			lost(b, old)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			subscription := b.newSubscription()
			b.pass(subscription)
			first, _ := b.signs()
			b.askSigning(subscription, "1")
			killed(b, subscription)
			written, previous := b.signs()
			b.Expect(first).To(BeElementOf(written, previous), "the older secret signs all the time")

			b.pass(subscription)
			second, previous := b.signs()
			b.Expect(second).NotTo(Equal(first))
			b.Expect(previous).To(Equal(first))
			if written != first {
				b.Expect(second).To(Equal(written), "it was rotated once")
			}
			b.Expect(subscription.Status.Signing).To(Equal(v1alpha1.SigningStatus{
				LastHandledRotation: "1", PreviousUntil: &metav1.Time{Time: b.now.Add(24 * time.Hour).Local()},
			}))

			b.now = b.now.Add(24 * time.Hour)
			lost(b, subscription.DeepCopy()) // killed between the end of the overlap and status
			b.pass(subscription)
			current, previous := b.signs()
			b.Expect([]string{current, previous}).To(Equal([]string{second, ""}))
			b.Expect(subscription.Status.Signing).To(Equal(v1alpha1.SigningStatus{LastHandledRotation: "1"}))
		})
	}
}

// A controller whose copy is from before a later rotation must not rotate once more.
func TestOldCopyOfASubscriptionRotatesNothing(t *testing.T) {
	b := newBench(t)
	subscription := b.newSubscription()
	b.pass(subscription)
	b.askSigning(subscription, "1")
	old := subscription.DeepCopy()
	b.pass(subscription)
	b.askSigning(subscription, "2")
	b.pass(subscription)
	second, first := b.signs()

	b.Expect(b.subscriptions().checkSigning(t.Context(), old)).To(Equal(wait{after: rotationDelay}))
	current, previous := b.signs()
	b.Expect([]string{current, previous}).To(Equal([]string{second, first}))
}

// The request came while the controller that is killed handled the one before it.
func TestRequestAfterAKill(t *testing.T) {
	b := newBench(t)
	subscription := b.newSubscription()
	b.pass(subscription)
	b.askSigning(subscription, "1")
	_ = b.subscriptions().checkSigning(t.Context(), subscription.DeepCopy())
	second, _ := b.signs()
	b.askSigning(subscription, "2")

	result := b.pass(subscription)
	b.Expect(result.RequeueAfter).To(Equal(rotationDelay))
	b.Expect(subscription.Status.Signing.LastHandledRotation).To(Equal("1"))
	b.pass(subscription)
	third, previous := b.signs()
	b.Expect(third).NotTo(Equal(second))
	b.Expect(previous).To(Equal(second), "a rotation ends the overlap of the one before it")
	b.Expect(subscription.Status.Signing.LastHandledRotation).To(Equal("2"))
}

func TestSigningOverlap(t *testing.T) {
	for name, row := range map[string]struct {
		overlap *metav1.Duration
		// after is how long the older secret signs; 0 means not at all.
		after time.Duration
	}{
		"a day by default":         {nil, 24 * time.Hour},
		"as long as the spec says": {&metav1.Duration{Duration: 90 * time.Second}, 90 * time.Second},
		"none":                     {&metav1.Duration{}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			subscription := testkit.Subscription(b.namespace, "crm", callbackURL)
			subscription.Spec.Signing.Rotation.Overlap = row.overlap
			b.create(subscription)
			b.pass(subscription)
			first, _ := b.signs()
			b.askSigning(subscription, "1")
			result := b.pass(subscription)
			second, previous := b.signs()
			b.Expect(second).NotTo(Equal(first))
			b.Expect(result.RequeueAfter).To(Equal(row.after))
			if row.after == 0 {
				b.Expect(previous).To(BeEmpty())
				b.Expect(subscription.Status.Signing.PreviousUntil).To(BeNil())
				return
			}
			b.Expect(previous).To(Equal(first))
			b.Expect(subscription.Status.Signing.PreviousUntil.Time).To(BeTemporally("==", b.now.Add(row.after)))
		})
	}
}

func TestAnnotationOfANewSubscriptionAsksForNothing(t *testing.T) {
	b := newBench(t)
	subscription := testkit.Subscription(b.namespace, "crm", callbackURL)
	long := strings.Repeat("ü", 300)
	subscription.Annotations = map[string]string{v1alpha1.RotateSigningAnnotation: long}
	b.create(subscription)
	b.pass(subscription)
	first, _ := b.signs()
	b.Expect(subscription.Status.Signing.LastHandledRotation).To(Equal(long[:2*256]), "256 characters of it count")
	b.pass(subscription)
	current, previous := b.signs()
	b.Expect([]string{current, previous}).To(Equal([]string{first, ""}))
}

// That is how a secret that has leaked is stopped.
func TestDeletedSigningSecretEndsTheOverlap(t *testing.T) {
	b := newBench(t)
	subscription := b.newSubscription()
	b.pass(subscription)
	b.askSigning(subscription, "1")
	b.pass(subscription)
	second, first := b.signs()
	b.delete(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: "crm-signing"}})
	b.pass(subscription)
	current, previous := b.signs()
	b.Expect(current).NotTo(BeElementOf(first, second))
	b.Expect(previous).To(BeEmpty())
	b.Expect(subscription.Status.Signing).To(Equal(v1alpha1.SigningStatus{LastHandledRotation: "1"}))
}

func TestSecretOfPeopleIsNotRotated(t *testing.T) {
	b := newBench(t)
	secret := b.secret("crm-signing", signature.SecretKey, goodSecret)
	subscription := b.newSubscription()
	b.pass(subscription)
	b.askSigning(subscription, "1")
	result := b.pass(subscription)
	b.Expect(result.RequeueAfter).To(BeZero())
	b.Expect(b.expectAccepted(subscription)).To(Equal(nothingToNote + ` Rotation waits: Secret "crm-signing" was not generated here, ` +
		`so whoever keeps it must put the new secret under the data key "secret", and the one before it under "previous" for as long as both shall sign.`))
	current, previous := b.signs()
	b.Expect([]string{current, previous}).To(Equal([]string{goodSecret, ""}), "nobody touched it")

	secret.StringData = map[string]string{signature.SecretKey: goodPrivate, signature.PreviousKey: goodSecret}
	b.update(secret)
	b.pass(subscription)
	b.Expect(subscription.Status.SecretVersion("crm-signing")).To(Equal(secret.ResourceVersion))
	b.Expect(subscription.Status.Signing).To(Equal(v1alpha1.SigningStatus{PublicKey: goodPublic}))

	secret.StringData = map[string]string{signature.PreviousKey: "nonsense"}
	b.update(secret)
	b.pass(subscription)
	b.Expect(b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonSecretInvalid)).
		To(Equal(`Secret "crm-signing", data key "previous": not a signing secret: it must begin with whsec_ or whsk_.`))
	b.Expect(subscription.Status.Signing.PublicKey).To(BeEmpty(), "nothing is signed")
}

// What can't sign must not become the secret before the present one.
func TestBrokenSigningSecretIsNotRotated(t *testing.T) {
	b := newBench(t)
	subscription := b.newSubscription()
	b.pass(subscription)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: "crm-signing"}}
	b.read(secret)
	secret.StringData = map[string]string{signature.SecretKey: "nonsense"}
	b.update(secret)
	b.askSigning(subscription, "1")
	b.pass(subscription)
	b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonSecretInvalid)
	current, previous := b.signs()
	b.Expect([]string{current, previous}).To(Equal([]string{"nonsense", ""}))
}

func TestAlgorithmOfSigningSecrets(t *testing.T) {
	b := newBench(t)
	subscription := testkit.Subscription(b.namespace, "crm", callbackURL)
	subscription.Spec.Signing.Algorithm = v1alpha1.SigningEd25519
	b.create(subscription)
	b.pass(subscription)
	first, _ := b.signs()
	secret, err := signature.ParseSecret(first)
	b.Expect(err).NotTo(HaveOccurred())
	b.Expect(subscription.Status.Signing).To(Equal(v1alpha1.SigningStatus{PublicKey: secret.PublicKey()}))
	b.Expect(subscription.Status.Signing.PublicKey).To(HavePrefix("whpk_"))

	subscription.Spec.Signing.Algorithm = v1alpha1.SigningHMAC
	b.update(subscription)
	b.pass(subscription)
	current, _ := b.signs()
	b.Expect(current).To(Equal(first), "a change counts from the next rotation on")
	b.askSigning(subscription, "1")
	b.pass(subscription)
	second, previous := b.signs()
	b.Expect(second).To(HavePrefix("whsec_"))
	b.Expect(previous).To(Equal(first), "both sign")
	b.Expect(subscription.Status.Signing.PublicKey).To(BeEmpty())

	b.now = b.now.Add(24 * time.Hour)
	subscription.Spec.Signing.Algorithm = v1alpha1.SigningEd25519
	b.update(subscription)
	b.pass(subscription)
	b.Expect(b.expectAccepted(subscription)).To(Equal(nothingToNote + ` Calls are signed by HMAC, because Secret "crm-signing" holds a secret for that: ` +
		`spec.signing.algorithm counts from the next rotation on.`))
}

// Two controllers read one Secret, and both want to end the overlap.
func TestOverlapIsEndedByOneOnly(t *testing.T) {
	b := newBench(t)
	subscription := b.newSubscription()
	b.pass(subscription)
	b.askSigning(subscription, "1")
	b.pass(subscription)
	want := wanted{name: "crm-signing", key: signature.SecretKey, previous: signature.PreviousKey}
	found, err := b.secrets().value(t.Context(), subscription, want)
	b.Expect(err).NotTo(HaveOccurred())
	dropped, err := b.secrets().dropPrevious(t.Context(), subscription, want, found)
	b.Expect(err).NotTo(HaveOccurred())
	b.Expect(dropped.value).To(Equal(found.value))
	_, err = b.secrets().dropPrevious(t.Context(), subscription, want, found)
	b.Expect(apierrors.IsConflict(err)).To(BeTrue(), "%v", err)
}
