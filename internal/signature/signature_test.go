package signature_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"postbus.dev/postbus/internal/signature"
)

// The official library is the judge: what we sign, it must accept.
func TestStandardWebhooksLibraryVerifies(t *testing.T) {
	g := NewWithT(t)
	text := signature.GenerateSecret()
	secret, err := signature.ParseSecret(text)
	g.Expect(err).NotTo(HaveOccurred())
	body := []byte(`{"type":"contact.created"}`)
	timestamp, signed := secret.Sign("evt_1", time.Now(), body)

	judge, err := standardwebhooks.NewWebhook(text)
	g.Expect(err).NotTo(HaveOccurred())
	headers := http.Header{}
	headers.Set(signature.HeaderID, "evt_1")
	headers.Set(signature.HeaderTimestamp, timestamp)
	headers.Set(signature.HeaderSignature, signed)
	g.Expect(judge.Verify(body, headers)).To(Succeed())
	g.Expect(judge.Verify(append(body, ' '), headers)).NotTo(Succeed(), "a changed body")
	headers.Set(signature.HeaderID, "evt_2")
	g.Expect(judge.Verify(body, headers)).NotTo(Succeed(), "a changed id")
}

// The vector is the one that the Standard Webhooks libraries are tested with.
func TestKnownVector(t *testing.T) {
	g := NewWithT(t)
	secret, err := signature.ParseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	g.Expect(err).NotTo(HaveOccurred())
	timestamp, signed := secret.Sign("msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	g.Expect(timestamp).To(Equal("1614265330"))
	g.Expect(signed).To(Equal("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="))
}

func TestParseSecret(t *testing.T) {
	for name, row := range map[string]struct{ text, problem string }{
		"a generated one":      {text: signature.GenerateSecret()},
		"a new line behind it": {text: signature.GenerateSecret() + "\n"},
		"no prefix":            {text: "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", problem: "must begin with whsec_"},
		"no Base64":            {text: "whsec_!!!", problem: "must be Base64"},
		"too short":            {text: "whsec_MfKQ9r8GKYqrTwjUPD8ILA==", problem: "24 to 64"},
		"too long":             {text: "whsec_" + strings.Repeat("MfKQ", 22), problem: "24 to 64"},
		"empty":                {text: "", problem: "must begin with whsec_"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := signature.ParseSecret(row.text)
			if row.problem == "" {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			g.Expect(err).To(MatchError(signature.ErrSecret))
			g.Expect(err).To(MatchError(ContainSubstring(row.problem)))
			if row.text != "" {
				g.Expect(err.Error()).NotTo(ContainSubstring(row.text), "the secret must not show")
			}
		})
	}
}
