package main

import (
	"context"
	"strconv"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/apikey"
	"postbus.dev/postbus/internal/testkit"
)

// TestKilledProcessRotatesOnce asks for new keys and kills the process with -9
// as soon as the Secret has one, which is around the write of status.
func TestKilledProcessRotatesOnce(t *testing.T) {
	const rounds = 5
	g := NewWithT(t)
	i := newInstallation(t)
	process := i.start()
	key := declareGenerated(t)
	status := func() v1alpha1.ApiKeyStatus {
		g.Expect(plane.Client.Get(t.Context(), client.ObjectKeyFromObject(key), key)).To(Succeed())
		return key.Status
	}
	g.Eventually(status, patience).Should(HaveField("Keys", HaveLen(1)))
	caught := 0
	for round := range rounds {
		request := strconv.Itoa(round + 1)
		older := keyOf(t, key)
		patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"postbus.dev/rotate":"`+request+`"}}}`))
		g.Expect(plane.Client.Patch(t.Context(), key, patch)).To(Succeed())
		g.Eventually(func() string { return keyOf(t, key) }, patience, time.Millisecond).ShouldNot(Equal(older))
		process.signal(syscall.SIGKILL)
		newer := keyOf(t, key)
		if status().LastHandledRotation != request {
			caught++
		}
		g.Expect(process.output.String()).NotTo(Or(ContainSubstring(older), ContainSubstring(newer)))

		process = i.start()
		g.Eventually(status, patience).Should(HaveField("LastHandledRotation", request))
		g.Expect(key.Status.Keys).To(HaveExactElements(
			HaveField("SHA256", apikey.Digest(newer)), HaveField("SHA256", apikey.Digest(older))))
		g.Expect(keyOf(t, key)).To(Equal(newer), "it was rotated once")
		for _, works := range []string{newer, older} {
			g.Eventually(func() bool { return post(t, i.ingress, works, "ada@example.com") }, patience).Should(BeTrue())
		}
	}
	t.Logf("%d of %d kills came between the Secret and status", caught, rounds)
}

// declareGenerated applies a list and a key whose Secret is generated.
func declareGenerated(t *testing.T) *v1alpha1.ApiKey {
	t.Helper()
	g := NewWithT(t)
	namespace := plane.Namespace(t)
	key := testkit.ApiKey(namespace, "website-form", "newsletter")
	for _, object := range []client.Object{testkit.List(namespace, "newsletter"), key} {
		g.Expect(plane.Client.Create(t.Context(), object)).To(Succeed())
	}
	ctx := context.WithoutCancel(t.Context())
	t.Cleanup(func() { // no controller runs any more that could drop the finalizer
		patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))
		g.Expect(plane.Client.Patch(ctx, key, patch)).To(Succeed())
	})
	return key
}

// keyOf reads the key in an ApiKey's Secret.
func keyOf(t *testing.T, key *v1alpha1.ApiKey) string {
	t.Helper()
	secret := &corev1.Secret{}
	name := client.ObjectKey{Namespace: key.Namespace, Name: key.SecretName()}
	NewWithT(t).Expect(plane.Client.Get(t.Context(), name, secret)).To(Succeed())
	return string(secret.Data[apikey.SecretKey])
}
