package dispatcher

import (
	"net/http"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/testkit"
)

const secretValue = "S3CR3T-value"

// secret makes a Secret.
func (r *rig) secret(name string, data map[string]string) *corev1.Secret {
	r.t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: name}, StringData: data}
	NewWithT(r.t).Expect(plane.Client.Create(r.t.Context(), secret)).To(Succeed())
	return secret
}

// renew puts other data into a Secret and tells of it as the controller does.
func (r *rig) renew(object *v1alpha1.WebhookSubscription, secret *corev1.Secret, data map[string]string) {
	r.t.Helper()
	g := NewWithT(r.t)
	secret.StringData = data
	g.Expect(plane.Client.Update(r.t.Context(), secret)).To(Succeed())
	object.Status.SetSecretVersion(secret.Name, secret.ResourceVersion)
	g.Expect(plane.Client.Status().Update(r.t.Context(), object)).To(Succeed())
}

// lastHeader returns a header of the last call.
func (r *rig) lastHeader(name string) func() string {
	return func() string {
		calls := r.receiver.Calls()
		if len(calls) == 0 {
			return ""
		}
		return calls[len(calls)-1].Header.Get(name)
	}
}

func TestHeadersOfTheSpec(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	secret := r.secret("crm-auth", map[string]string{"header": "Bearer " + secretValue + "\n", "key": "k-1"})
	crm := r.subscribe("crm", func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Callback.Headers = []v1alpha1.CallbackHeader{
			{Name: "x-tenant", Value: "42"},
			{Name: "Authorization", SecretRef: v1alpha1.SecretKeyReference{Name: "crm-auth", Key: "header"}},
			{Name: "X-Key", SecretRef: v1alpha1.SecretKeyReference{Name: "crm-auth", Key: "key"}},
		}
	})
	r.run()
	sent := r.post("ada@example.com")
	g.Eventually(r.receiver.Count, patience).Should(Equal(1))
	header := r.receiver.Calls()[0].Header
	g.Expect(header.Get("X-Tenant")).To(Equal("42"))
	g.Expect(header.Get("Authorization")).To(Equal("Bearer " + secretValue))
	g.Expect(header.Get("X-Key")).To(Equal("k-1"))
	g.Expect(header.Get(signature.HeaderID)).To(Equal(sent))
	g.Expect(r.judge(crm).Verify(r.receiver.Calls()[0].Body, header)).To(Succeed())

	r.renew(crm, secret, map[string]string{"key": "k-2"})
	g.Eventually(func() string {
		r.post("ada@example.com")
		return r.lastHeader("X-Key")()
	}, patience, 50*time.Millisecond).Should(Equal("k-2"))
	g.Expect(r.log.String()).NotTo(ContainSubstring(secretValue))
}

func TestURLInASecret(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	secret := r.secret("crm-url", map[string]string{"url": r.receiver.URL() + "/" + secretValue + "?a=b\n"})
	crm := r.subscribe("crm", func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Callback.URL = ""
		s.Spec.Callback.URLSecretRef = v1alpha1.SecretKeyReference{Name: "crm-url", Key: "url"}
	})
	r.run()
	r.post("ada@example.com")
	g.Eventually(r.receiver.Count, patience).Should(Equal(1))
	g.Expect(r.receiver.Calls()[0].Path).To(Equal("/" + secretValue))
	g.Expect(r.receiver.Calls()[0].Query).To(Equal("a=b"))

	other := testkit.NewReceiver(t)
	r.renew(crm, secret, map[string]string{"url": other.URL() + "/" + secretValue})
	g.Eventually(func() int {
		r.post("ada@example.com")
		return other.Count()
	}, patience, 50*time.Millisecond).ShouldNot(BeZero())

	other.Close() // errors tell of addresses, but not of the path
	r.post("ada@example.com")
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Health.LastFailure", HaveField("Reason", v1alpha1.FailureConnectionRefused)))
	g.Expect(r.log.String()).NotTo(ContainSubstring(secretValue))
}

// The schema refuses such headers. Should one come through, it stands behind ours.
func TestHeadersOfOursStand(t *testing.T) {
	g := NewWithT(t)
	receiver := testkit.NewReceiver(t)
	secret := signingSecret(t)
	s := &subscription{
		key: store.SubscriptionKey{Namespace: secret.Namespace, Name: "crm"}, format: standard{},
		url: receiver.URL(), method: http.MethodPost, timeout: patience,
		signingSecret: secretPlace{name: secret.Name, key: signature.SecretKey},
	}
	ours := []string{
		signature.HeaderID, signature.HeaderTimestamp, signature.HeaderSignature, headerAttempt, "postbus-hops", "content-type", "user-agent", "idempotency-key",
	}
	for _, name := range ours {
		s.headers = append(s.headers, header{name: name, value: "forged"})
	}
	o, err := newTestCaller(t, Options{Secrets: plane.Client, Guard: toReceivers, Version: "test"}).attempt(t.Context(), checked(t, s),
		call{event: &contact.Event{ID: "evt_1", Type: contact.EventCreate}})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(o.verdict).To(Equal(delivered))
	for _, name := range ours {
		g.Expect(receiver.Calls()[0].Header.Values(name)).NotTo(ContainElement("forged"), name)
	}
}

func TestSecretsOfTheCallbackThatCantBeRead(t *testing.T) {
	g := NewWithT(t)
	signing := signingSecret(t)
	receiver := testkit.NewReceiver(t)
	g.Expect(plane.Client.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: signing.Namespace, Name: "broken"},
		StringData: map[string]string{"value": secretValue + "\nX-Admin: yes"},
	})).To(Succeed())
	c := newTestCaller(t, Options{Secrets: plane.Client, Guard: toReceivers})
	for why, edit := range map[string]func(*subscription){
		"read the URL": func(s *subscription) { s.url, s.urlSecret = "", secretPlace{name: "missing", key: "value"} },
		"it is not an absolute http or https URL": func(s *subscription) { s.url, s.urlSecret = "", secretPlace{name: "broken", key: "value"} },
		"parse the header value": func(s *subscription) {
			s.headers = []header{{name: "X", secret: secretPlace{name: "broken", key: "value"}}}
		},
		signing.Namespace + "/broken: is empty": func(s *subscription) {
			s.headers = []header{{name: "X", secret: secretPlace{name: "broken", key: "absent"}}}
		},
		"read the header value " + signing.Namespace: func(s *subscription) {
			s.headers = []header{{name: "X", secret: secretPlace{name: "missing", key: "x"}}}
		},
	} {
		s := &subscription{
			key: store.SubscriptionKey{Namespace: signing.Namespace, Name: "crm"}, format: standard{},
			url: receiver.URL(), method: http.MethodPost, timeout: patience,
			signingSecret: secretPlace{name: signing.Name, key: signature.SecretKey},
		}
		edit(s)
		o, err := c.attempt(t.Context(), checked(t, s), call{event: &contact.Event{ID: "evt_1", Type: contact.EventCreate}})
		g.Expect(o).To(Equal(outcome{verdict: hindered, reason: v1alpha1.FailureSecret}), why)
		g.Expect(err).To(MatchError(And(ContainSubstring(why), Not(ContainSubstring(secretValue)))))
	}
	g.Expect(receiver.Count()).To(BeZero())
}
