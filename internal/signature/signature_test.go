package signature_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/signature"
)

// What Standard Webhooks' libraries, and Svix's server for v1a, are tested with.
const (
	knownHMAC    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	knownSeed    = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbc="
	knownPrivate = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
	knownPublic  = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
)

func parse(t *testing.T, current, previous string) signature.Secrets {
	t.Helper()
	data := map[string][]byte{signature.SecretKey: []byte(current)}
	if previous != "" {
		data[signature.PreviousKey] = []byte(previous)
	}
	secrets, err := signature.ParseSecrets(data)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return secrets
}

// The official library is the judge: what we sign, it must accept, also while a
// secret is replaced, by the old secret as by the new one.
func TestStandardWebhooksLibraryVerifies(t *testing.T) {
	older, newer := signature.GenerateSecret(v1alpha1.SigningHMAC), signature.GenerateSecret(v1alpha1.SigningHMAC)
	for name, row := range map[string]struct {
		secrets signature.Secrets
		judge   string
	}{
		"one secret":                       {parse(t, newer, ""), newer},
		"two, by the new one":              {parse(t, newer, older), newer},
		"two, by the old one":              {parse(t, newer, older), older},
		"the new one is for Ed25519":       {parse(t, knownPrivate, older), older},
		"the old one was for Ed25519":      {parse(t, newer, knownPrivate), newer},
		"an empty one before it":           {parse(t, newer, "\n"), newer},
		"a secret with a line end":         {parse(t, newer+"\n", older+"\r\n"), older},
		"a secret as long as there may be": {parse(t, "whsec_"+strings.Repeat("MfKQ", 21)+"MQ==", ""), "whsec_" + strings.Repeat("MfKQ", 21) + "MQ=="},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			body := []byte(`{"type":"contact.created"}`)
			timestamp, signed := row.secrets.Sign("evt_1", time.Now(), body)
			judge, err := standardwebhooks.NewWebhook(row.judge)
			g.Expect(err).NotTo(HaveOccurred())
			headers := http.Header{}
			headers.Set(signature.HeaderID, "evt_1")
			headers.Set(signature.HeaderTimestamp, timestamp)
			headers.Set(signature.HeaderSignature, signed)
			g.Expect(judge.Verify(body, headers)).To(Succeed())
			g.Expect(judge.Verify(append(body, ' '), headers)).NotTo(Succeed(), "a changed body")
			headers.Set(signature.HeaderID, "evt_2")
			g.Expect(judge.Verify(body, headers)).NotTo(Succeed(), "a changed id")
		})
	}
}

// The v1a signature is the one that Standard Webhooks' text shows.
func TestKnownVectors(t *testing.T) {
	const (
		v1  = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
		v1a = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
	)
	for name, row := range map[string]struct {
		secrets signature.Secrets
		header  string
	}{
		"HMAC":                         {parse(t, knownHMAC, ""), v1},
		"Ed25519":                      {parse(t, knownPrivate, ""), v1a},
		"Ed25519 by the seed alone":    {parse(t, knownSeed, ""), v1a},
		"both, the current one first":  {parse(t, knownPrivate, knownHMAC), v1a + " " + v1},
		"both, the other way":          {parse(t, knownHMAC, knownSeed), v1 + " " + v1a},
		"no secret, which can't be so": {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			timestamp, header := row.secrets.Sign("msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
			g.Expect(timestamp).To(Equal("1614265330"))
			g.Expect(header).To(Equal(row.header))
		})
	}
}

func TestParseSecret(t *testing.T) {
	for name, row := range map[string]struct{ text, publicKey, problem string }{
		"a generated one":                {text: signature.GenerateSecret(v1alpha1.SigningHMAC)},
		"a new line behind it":           {text: signature.GenerateSecret(v1alpha1.SigningHMAC) + "\n"},
		"generated for no algorithm":     {text: signature.GenerateSecret("")},
		"no prefix":                      {text: "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", problem: "must begin with whsec_ or whsk_"},
		"no Base64":                      {text: "whsec_!!!", problem: "what follows whsec_ must be Base64"},
		"too short":                      {text: "whsec_MfKQ9r8GKYqrTwjUPD8ILA==", problem: "24 to 64"},
		"too long":                       {text: "whsec_" + strings.Repeat("MfKQ", 22), problem: "24 to 64"},
		"empty":                          {text: "", problem: "must begin with whsec_"},
		"a private key":                  {text: knownPrivate, publicKey: knownPublic},
		"its seed":                       {text: knownSeed + "\n", publicKey: knownPublic},
		"a public key":                   {text: knownPublic, problem: "must begin with whsec_ or whsk_"},
		"a private key without Base64":   {text: "whsk_!!!", problem: "what follows whsk_ must be Base64"},
		"a private key of 24 bytes":      {text: "whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", problem: "it has 24 bytes, an Ed25519 private key has 32 or 64"},
		"a private key with no pair":     {text: strings.Replace(knownPrivate, "vg==", "vw==", 1), problem: "not that of the private key"},
		"an HMAC key under whsk_":        {text: strings.Replace(knownHMAC, "whsec_", "whsk_", 1), problem: "32 or 64"},
		"a private key with white space": {text: " " + knownPrivate + "\n", publicKey: knownPublic},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			secret, err := signature.ParseSecret(row.text)
			if row.problem == "" {
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(secret.PublicKey()).To(Equal(row.publicKey))
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

func TestGeneratedKeysDiffer(t *testing.T) {
	for _, algorithm := range []v1alpha1.SigningAlgorithm{v1alpha1.SigningHMAC, v1alpha1.SigningEd25519} {
		g := NewWithT(t)
		one, other := signature.GenerateSecret(algorithm), signature.GenerateSecret(algorithm)
		g.Expect(one).NotTo(Equal(other))
		secret, err := signature.ParseSecret(one)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(secret.PublicKey() != "").To(Equal(algorithm == v1alpha1.SigningEd25519))
	}
}

func TestParseSecretsNamesTheDataKey(t *testing.T) {
	for name, row := range map[string]struct {
		data    map[string][]byte
		problem string
	}{
		"nothing":                {nil, `data key "secret": not a signing secret`},
		"no current one":         {map[string][]byte{"previous": []byte(knownHMAC)}, `data key "secret": not a signing secret`},
		"a bad one before it":    {map[string][]byte{"secret": []byte(knownHMAC), "previous": []byte("T0K3N")}, `data key "previous": not a signing secret`},
		"a public one before it": {map[string][]byte{"secret": []byte(knownHMAC), "previous": []byte(knownPublic)}, `data key "previous"`},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := signature.ParseSecrets(row.data)
			g.Expect(err).To(MatchError(signature.ErrSecret))
			g.Expect(err).To(MatchError(ContainSubstring(row.problem)))
			g.Expect(err.Error()).NotTo(ContainSubstring("T0K3N"))
		})
	}
}
