package ingress_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/ingress"
	"postbus.dev/postbus/internal/apikey"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/testkit"
)

// clock is one that a test can move.
type clock struct{ nanoseconds atomic.Int64 }

func (c *clock) now() time.Time { return now.Add(time.Duration(c.nanoseconds.Load())) }

func (c *clock) advance(by time.Duration) { c.nanoseconds.Add(int64(by)) }

func TestKeyOverItsRate(t *testing.T) {
	g := NewWithT(t)
	c := &clock{}
	f := start(t, func(options *ingress.Options) { options.Now = c.now })
	slow := f.issue(t, "slow", func(key *v1alpha1.ApiKey) { key.Spec.RateLimit.RequestsPerSecond = 3 })
	ask := func(key string) answer { return f.send(t, request{query: "email=max@example.com&key=" + key}) }
	for range 2 {
		g.Expect(ask(slow).status).To(Equal(http.StatusOK))
	}
	g.Expect(f.send(t, request{query: "email=nobody&key=" + slow}).status).To(Equal(http.StatusBadRequest), "refused calls count too")

	got := ask(slow)
	body := expectRefusal(t, got, http.StatusTooManyRequests, "the api key is over its rate of 3 requests a second")
	g.Expect(body.Error.Code).To(Equal("RateLimited"))
	g.Expect(got.header.Get("Retry-After")).To(Equal("1"))
	g.Expect(f.metrics(t)).To(ContainSubstring(`postbus_ingress_requests_total{code="429"} 1` + "\n"))
	for range 10 {
		g.Expect(ask(f.key).status).To(Equal(http.StatusOK), "another key has no limit")
	}
	expectRefusal(t, ask(apikey.Generate()), http.StatusUnauthorized, unknownKey)

	c.advance(time.Second)
	g.Expect(ask(slow).status).To(Equal(http.StatusOK))
}

// A rotated key's two values share one rate.
func TestBothKeysOfARotationHaveOneRate(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	old := apikey.Generate()
	key := f.issue(t, "slow", func(key *v1alpha1.ApiKey) {
		key.Spec.RateLimit.RequestsPerSecond = 1
		key.Status.Keys = append(key.Status.Keys, v1alpha1.ApiKeyDigest{SHA256: apikey.Digest(old), NotAfter: at(time.Hour)})
	})
	g.Expect(f.send(t, request{query: "email=max@example.com&key=" + key}).status).To(Equal(http.StatusOK))
	g.Expect(f.send(t, request{query: "email=max@example.com&key=" + old}).status).To(Equal(http.StatusTooManyRequests))
}

func (f *fixture) keyUses(t *testing.T) map[store.KeyName]time.Time {
	t.Helper()
	uses, err := f.store.KeyUses(t.Context(), time.Time{})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return uses
}

func TestUseOfKeysIsWritten(t *testing.T) {
	g := NewWithT(t)
	c := &clock{}
	f := start(t, func(options *ingress.Options) {
		options.Now, options.KeyUseInterval = c.now, 10*time.Millisecond
	})
	may := f.issue(t, "may-not", func(key *v1alpha1.ApiKey) { key.Spec.Scopes = []v1alpha1.ApiKeyScope{v1alpha1.ScopeContactsRead} })
	f.send(t, request{query: encode(f.with("max@example.com"))})
	c.advance(time.Minute)
	f.send(t, request{query: "email=max@example.com&key=" + may})
	f.send(t, request{query: "email=max@example.com&key=" + apikey.Generate()})
	g.Eventually(func() map[store.KeyName]time.Time { return f.keyUses(t) }).Should(Equal(map[store.KeyName]time.Time{
		{Namespace: f.namespace, Name: "website-form"}: now,
		{Namespace: f.namespace, Name: "may-not"}:      now.Add(time.Minute),
	}))
}

func TestUseOfKeysIsWrittenAtTheEnd(t *testing.T) {
	g := NewWithT(t)
	f := start(t, func(options *ingress.Options) { options.KeyUseInterval = time.Hour })
	gone := f.issue(t, "gone", nil)
	f.send(t, request{query: encode(f.with("max@example.com"))})
	f.send(t, request{query: "email=max@example.com&key=" + gone})
	g.Expect(plane.Client.Delete(t.Context(), testkit.ApiKey(f.namespace, "gone", "newsletter"))).To(Succeed())
	g.Eventually(func() error {
		return f.objects.Get(t.Context(), client.ObjectKey{Namespace: f.namespace, Name: "gone"}, &v1alpha1.ApiKey{})
	}).Should(HaveOccurred())
	g.Expect(f.keyUses(t)).To(BeEmpty(), "a call costs no write")
	f.stop()
	g.Eventually(f.stopped).Should(Receive(BeNil()))
	g.Expect(f.keyUses(t)).To(HaveLen(1), "a deleted key is not brought back")
	g.Expect(f.keyUses(t)).To(HaveKey(store.KeyName{Namespace: f.namespace, Name: "website-form"}))
}

func TestUseOfKeysWaitsForTheStore(t *testing.T) {
	g := NewWithT(t)
	f := start(t, func(options *ingress.Options) { options.KeyUseInterval = 10 * time.Millisecond })
	f.closeStore(t)
	f.send(t, request{query: encode(f.with("max@example.com"))})
	g.Eventually(f.logs.String).Should(ContainSubstring("last uses of keys wait for the store"))
	f.stop()
	g.Eventually(f.stopped).Should(Receive(BeNil()))
	g.Expect(f.logs.String()).To(ContainSubstring("last uses of keys are lost"))
	g.Expect(f.logs.String()).NotTo(ContainSubstring(f.key))
}
