package dispatcher

import (
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/signature"
)

// signedCall is a call as testdata/node/standardwebhooks_receiver.mjs saw it.
type signedCall struct {
	ID         string `json:"id"`
	Signatures int    `json:"signatures"`
	// Verified tells of each key that the receiver has whether it verifies the call.
	Verified []bool `json:"verified"`
}

// publicKey returns what verifies what a private key signs.
func publicKey(t *testing.T, private string) string {
	t.Helper()
	secret, err := signature.ParseSecret(private)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return secret.PublicKey()
}

// The official package and Node's own crypto are the judges, also while a secret is
// replaced: receivers that have the older one or the new one both accept the call.
func TestSignaturesVerifyInNode(t *testing.T) {
	hmac, ed25519 := v1alpha1.SigningHMAC, v1alpha1.SigningEd25519
	newer, older, strange := signature.GenerateSecret(hmac), signature.GenerateSecret(hmac), signature.GenerateSecret(hmac)
	private, olderPrivate := signature.GenerateSecret(ed25519), signature.GenerateSecret(ed25519)
	public, olderPublic := publicKey(t, private), publicKey(t, olderPrivate)
	for name, row := range map[string]struct {
		current, previous string
		keys              []string
		verified          []bool
	}{
		"by HMAC":                      {newer, "", []string{newer, strange, public}, []bool{true, false, false}},
		"by HMAC, while it is rotated": {newer, older, []string{newer, older, strange}, []bool{true, true, false}},
		"by Ed25519":                   {private, "", []string{public, olderPublic, newer}, []bool{true, false, false}},
		"by Ed25519, while it is rotated": {
			private, olderPrivate, []string{public, olderPublic, newer}, []bool{true, true, false},
		},
		"on the way from HMAC to Ed25519": {private, older, []string{older, public, newer}, []bool{true, true, false}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			receiver := startProgram[signedCall](t, node(t), append([]string{"testdata/node/standardwebhooks_receiver.mjs"}, row.keys...)...)
			r := newRig(t)
			secret := &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "crm-signing"},
				StringData: map[string]string{signature.SecretKey: row.current},
			}
			signatures := 1
			if row.previous != "" {
				secret.StringData[signature.PreviousKey] = row.previous
				signatures++
			}
			g.Expect(plane.Client.Create(t.Context(), secret)).To(Succeed())
			crm := r.subscribe("crm", func(s *v1alpha1.WebhookSubscription) { s.Spec.Callback.URL = receiver.url })
			r.run()
			sent := r.post("grüße@example.com")
			g.Eventually(receiver.calls, patience).Should(Receive(Equal(signedCall{ID: sent, Signatures: signatures, Verified: row.verified})))
			g.Eventually(r.delivery(crm), patience).Should(And(
				HaveField("Open", BeEmpty()), HaveField("Health.FailingSince", BeZero())))
		})
	}
}
