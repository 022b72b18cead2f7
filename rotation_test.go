package main

import (
	"strconv"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/apikey"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/testkit"
)

// rotations is how many times a process is killed.
const rotations = 5

// TestKilledProcessRotatesOnce asks for new keys and kills the process with -9
// as soon as the Secret has one, which is around the write of status.
func TestKilledProcessRotatesOnce(t *testing.T) {
	g := NewWithT(t)
	i := newInstallation(t)
	namespace := plane.Namespace(t)
	key := testkit.ApiKey(namespace, "website-form", "newsletter")
	for _, object := range []client.Object{testkit.List(namespace, "newsletter"), key} {
		g.Expect(plane.Client.Create(t.Context(), object)).To(Succeed())
	}
	dropFinalizers(t, key)
	process := i.start()
	r := rotating{object: key, annotation: v1alpha1.RotateAnnotation, secret: key.SecretName(), dataKey: apikey.SecretKey}
	status := func() v1alpha1.ApiKeyStatus {
		r.read(t)
		return key.Status
	}
	g.Eventually(status, patience).Should(HaveField("Keys", HaveLen(1)))
	caught := 0
	for round := range rotations {
		request := strconv.Itoa(round + 1)
		older, newer := r.kill(t, process, request)
		if status().LastHandledRotation != request {
			caught++
		}
		process = i.start()
		g.Eventually(status, patience).Should(HaveField("LastHandledRotation", request))
		g.Expect(key.Status.Keys).To(HaveExactElements(
			HaveField("SHA256", apikey.Digest(newer)), HaveField("SHA256", apikey.Digest(older))))
		g.Expect(r.value(t, apikey.SecretKey)).To(Equal(newer), "it was rotated once")
		for _, works := range []string{newer, older} {
			g.Eventually(func() bool { return post(t, i.ingress, works, "ada@example.com") }, patience).Should(BeTrue())
		}
	}
	t.Logf("%d of %d kills came between the Secret and status", caught, rotations)
}

// TestKilledProcessRotatesSigningOnce does the same with signing secrets: whatever
// is killed, a receiver that has the older secret or the new one accepts calls.
func TestKilledProcessRotatesSigningOnce(t *testing.T) {
	g := NewWithT(t)
	i := newInstallation(t)
	receiver := testkit.NewReceiver(t)
	objects := declare(t, receiver.URL())
	process := i.start()
	objects.waitUntilReady(t, i)
	subscription := objects.subscription
	r := rotating{
		object: subscription, annotation: v1alpha1.RotateSigningAnnotation,
		secret: subscription.SigningSecretName(), dataKey: signature.SecretKey,
	}
	status := func() v1alpha1.SigningStatus {
		r.read(t)
		return subscription.Status.Signing
	}
	caught := 0
	for round := range rotations {
		request := strconv.Itoa(round + 1)
		older, newer := r.kill(t, process, request)
		if status().LastHandledRotation != request {
			caught++
		}
		process = i.start()
		g.Eventually(status, patience).Should(And(
			HaveField("LastHandledRotation", request), HaveField("PreviousUntil", Not(BeNil()))))
		g.Expect(r.value(t, signature.SecretKey)).To(Equal(newer), "it was rotated once")
		g.Expect(r.value(t, signature.PreviousKey)).To(Equal(older))
		before := receiver.Count()
		g.Eventually(func() bool { return post(t, i.ingress, objects.key, "ada."+request+"@example.com") }, patience).Should(BeTrue())
		g.Eventually(receiver.Count, patience).Should(BeNumerically(">", before))
		last := receiver.Calls()[before]
		for _, secret := range []string{newer, older} {
			judge, err := standardwebhooks.NewWebhook(secret)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(judge.Verify(last.Body, last.Header)).To(Succeed())
		}
	}
	t.Logf("%d of %d kills came between the Secret and status", caught, rotations)
}

// rotating is an object whose Secret is generated, and rotated by an annotation.
type rotating struct {
	object     client.Object
	annotation string
	secret     string
	dataKey    string
}

// kill asks for a rotation, and kills the process as soon as the Secret has
// another value. It returns the value before that and the new one, neither of
// which the process may have written anywhere.
func (r rotating) kill(t *testing.T, process *child, request string) (older, newer string) {
	t.Helper()
	g := NewWithT(t)
	older = r.value(t, r.dataKey)
	patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"`+r.annotation+`":"`+request+`"}}}`))
	g.Expect(plane.Client.Patch(t.Context(), r.object, patch)).To(Succeed())
	g.Eventually(func() string { return r.value(t, r.dataKey) }, patience, time.Millisecond).ShouldNot(Equal(older))
	process.signal(syscall.SIGKILL)
	newer = r.value(t, r.dataKey)
	g.Expect(process.output.String()).NotTo(Or(ContainSubstring(older), ContainSubstring(newer)))
	return older, newer
}

// read reads the object.
func (r rotating) read(t *testing.T) {
	t.Helper()
	NewWithT(t).Expect(plane.Client.Get(t.Context(), client.ObjectKeyFromObject(r.object), r.object)).To(Succeed())
}

// value reads a data key of the Secret.
func (r rotating) value(t *testing.T, dataKey string) string {
	t.Helper()
	secret := &corev1.Secret{}
	name := client.ObjectKey{Namespace: r.object.GetNamespace(), Name: r.secret}
	NewWithT(t).Expect(plane.Client.Get(t.Context(), name, secret)).To(Succeed())
	return string(secret.Data[dataKey])
}
