package dispatcher

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"testing"

	"github.com/go-jose/go-jose/v4"
	. "github.com/onsi/gomega"
	gomegatypes "github.com/onsi/gomega/types"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/testkit"
)

// decrypted is a call as testdata/node/jose_receiver.mjs understood it, which
// decrypts with a library of another hand.
type decrypted struct {
	Algorithm string `json:"alg"`
	Content   string `json:"enc"`
	Type      string `json:"cty"`
	KeyID     string `json:"kid"`
	Text      string `json:"text"`
}

// secretWith makes a Secret that has a value under the data key "key".
func (r *rig) secretWith(name string, value []byte) {
	r.t.Helper()
	NewWithT(r.t).Expect(plane.Client.Create(r.t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: name}, Data: map[string][]byte{"key": value},
	})).To(Succeed())
}

func encoded(t *testing.T, key any, id string) []byte {
	t.Helper()
	text, err := jose.JSONWebKey{Key: key, KeyID: id}.MarshalJSON()
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return text
}

func TestJWEIsDecryptedByAnotherLibrary(t *testing.T) {
	shared := []byte("an example of 32 bytes, no more.")
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	public, err := x509.MarshalPKIXPublicKey(private.Public())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	mailUp := v1alpha1.Payload{Format: v1alpha1.FormatMailUp, Parameters: mailUpParameters("who", "[Email]")}
	const ada = "ada@example.com"
	for name, row := range map[string]struct {
		secret, receiver []byte
		payload          v1alpha1.Payload
		want             decrypted
		text             gomegatypes.GomegaMatcher
	}{
		"a shared key, Standard": {
			shared, encoded(t, shared, ""),
			v1alpha1.Payload{},
			decrypted{Algorithm: "dir", Type: "json"},
			ContainSubstring(`"email":"` + ada + `"`),
		},
		"a shared JWK, MailUp": {
			encoded(t, shared, "1"), encoded(t, shared, "1"), mailUp,
			decrypted{Algorithm: "dir", Type: "x-www-form-urlencoded", KeyID: "1"},
			Equal("who=ada%40example.com"),
		},
		"a receiver's JWK, Template": {
			encoded(t, private.Public(), "2026"), encoded(t, private, "2026"),
			v1alpha1.Payload{Format: v1alpha1.FormatTemplate, Template: `[event.contact.email]`},
			decrypted{Algorithm: "ECDH-ES+A256KW", Type: "json", KeyID: "2026"},
			Equal(`["` + ada + `"]`),
		},
		"a receiver's PEM, Maileon": {
			pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), encoded(t, private, ""),
			v1alpha1.Payload{Format: v1alpha1.FormatMaileon, BodyFields: []v1alpha1.PayloadField{{Name: "who", StandardField: "email"}}},
			decrypted{Algorithm: "ECDH-ES+A256KW", Type: "json"},
			Equal(`{"who":"` + ada + `"}`),
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			callback := startProgram[decrypted](t, node(t), "testdata/node/jose_receiver.mjs", string(row.receiver))
			r := newRig(t)
			r.secretWith("crm-jwe", row.secret)
			crm := r.subscribe("crm", func(s *v1alpha1.WebhookSubscription) {
				s.Spec.Callback.URL = callback.url
				s.Spec.Payload = row.payload
				s.Spec.Payload.Encryption = v1alpha1.Encryption{
					Algorithm: v1alpha1.EncryptionJWE, KeySecretRef: v1alpha1.SecretKeyReference{Name: "crm-jwe", Key: "key"},
				}
			})
			r.run()
			r.post(ada)
			var got decrypted
			g.Eventually(callback.calls, patience).Should(Receive(&got))
			g.Expect(got.Text).To(row.text)
			row.want.Content, got.Text = "A256GCM", ""
			g.Expect(got).To(Equal(row.want))
			g.Eventually(r.delivery(crm), patience).Should(settled)
		})
	}
}

// What is signed is what is sent, and each attempt is encrypted anew.
func TestJWEIsSigned(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	r.secretWith("crm-jwe", []byte("an example of 32 bytes, no more."))
	r.receiver.Answer(http.StatusInternalServerError)
	crm := r.subscribe("crm", func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Payload = v1alpha1.Payload{CloudEvents: ptr.To(true), Encryption: v1alpha1.Encryption{
			Algorithm: v1alpha1.EncryptionJWE, KeySecretRef: v1alpha1.SecretKeyReference{Name: "crm-jwe", Key: "key"},
		}}
	})
	r.run()
	r.post("ada@example.com")
	g.Eventually(r.receiver.Count, patience).Should(BeNumerically(">=", 2))
	judge := r.judge(crm)
	bodies := map[string]bool{}
	for _, call := range r.receiver.Calls() {
		g.Expect(call.Header.Get("Content-Type")).To(Equal("application/jose"))
		g.Expect(call.Header.Get("Ce-Specversion")).To(Equal("1.0"))
		g.Expect(string(call.Body)).NotTo(ContainSubstring("ada"))
		g.Expect(judge.Verify(call.Body, call.Header)).To(Succeed())
		bodies[string(call.Body)] = true
	}
	g.Expect(len(bodies)).To(BeNumerically(">=", 2))
}

func TestJWEKeyProblems(t *testing.T) {
	g := NewWithT(t)
	signing := signingSecret(t)
	const key = "too short to be a key"
	g.Expect(plane.Client.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: signing.Namespace, Name: "short"},
		StringData: map[string]string{"key": key},
	})).To(Succeed())
	receiver := testkit.NewReceiver(t)
	c := newCaller(&Options{Secrets: plane.Client, Clock: clock.RealClock{}, Guard: toReceivers}, &listBook{})
	t.Cleanup(c.close)
	for place, why := range map[secretPlace]string{
		{name: "missing", key: "key"}: "read the encryption key",
		{name: "short", key: "key"}:   "parse the encryption key",
	} {
		o, err := c.attempt(t.Context(), checked(t, &subscription{
			key: store.SubscriptionKey{Namespace: signing.Namespace, Name: "crm"}, format: standard{},
			url: receiver.URL(), method: http.MethodPost, timeout: patience,
			signingSecret: secretPlace{name: signing.Name, key: signature.SecretKey},
			encryption:    v1alpha1.EncryptionJWE, encryptionKey: place,
		}), call{event: &contact.Event{ID: "evt_1", Type: contact.EventCreate}})
		g.Expect(o).To(Equal(outcome{verdict: hindered, reason: v1alpha1.FailureEncryption}))
		g.Expect(err).To(MatchError(And(ContainSubstring(why), Not(ContainSubstring(key)))))
	}
	g.Expect(receiver.Count()).To(BeZero(), "nothing goes out in clear text")
}
