package jwe_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/jwe"
)

const shared = "an example of 32 bytes, no more."

func newKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return key
}

func jwk(t *testing.T, key jose.JSONWebKey) string {
	t.Helper()
	text, err := key.MarshalJSON()
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return string(text)
}

func inPEM(t *testing.T, title string, key any) string {
	t.Helper()
	encoded, err := x509.MarshalPKIXPublicKey(key)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return string(pem.EncodeToMemory(&pem.Block{Type: title, Bytes: encoded}))
}

func TestParseKey(t *testing.T) {
	private := newKey(t, elliptic.P256())
	p224 := newKey(t, elliptic.P224())
	signing, _, err := ed25519.GenerateKey(rand.Reader)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	public := jwk(t, jose.JSONWebKey{Key: private.Public()})
	for name, row := range map[string]struct{ value, refused string }{
		"32 bytes":                      {value: shared},
		"32 bytes that begin as a JWK":  {value: "{" + shared[1:]},
		"32 bytes that end with a line": {value: shared[:31] + "\n"},
		"a shared JWK":                  {value: jwk(t, jose.JSONWebKey{Key: []byte(shared), KeyID: "1", Algorithm: "dir", Use: "enc"})},
		"a public JWK":                  {value: public},
		"a public JWK, in lines":        {value: "\n" + strings.ReplaceAll(public, ",", ",\n  ") + "\n"},
		"a public JWK of P-384":         {value: jwk(t, jose.JSONWebKey{Key: newKey(t, elliptic.P384()).Public()})},
		"a public PEM":                  {value: inPEM(t, "PUBLIC KEY", private.Public())},
		"a public PEM of P-521":         {value: inPEM(t, "PUBLIC KEY", newKey(t, elliptic.P521()).Public())},
		"nothing":                       {"", "it has 0 bytes, and is no JWK and no PEM; a shared key has 32 bytes"},
		"31 bytes":                      {shared[1:], "it has 31 bytes"},
		"32 bytes and a line end":       {shared + "\n", "it has 33 bytes"},
		"a shared JWK of 16 bytes":      {jwk(t, jose.JSONWebKey{Key: []byte(shared[:16])}), "it has 16 bytes, a shared key has 32"},
		"a JWK to sign with":            {jwk(t, jose.JSONWebKey{Key: private.Public(), Use: "sig"}), "the JWK is not for encryption (use)"},
		"a private JWK":                 {jwk(t, jose.JSONWebKey{Key: private}), "it is a private key"},
		"a JWK of RSA":                  {jwk(t, jose.JSONWebKey{Key: rsaKey.Public()}), "the JWK's type (kty) must be oct or EC"},
		"a JWK of Ed25519":              {jwk(t, jose.JSONWebKey{Key: signing}), "the JWK's type (kty) must be oct or EC"},
		"a broken JWK":                  {public[:len(public)-9], "it is no JWK of a known type"},
		"something else in JSON":        {`{"secret": "` + shared + `"}`, "it is no JWK of a known type"},
		"a PEM of RSA":                  {inPEM(t, "PUBLIC KEY", rsaKey.Public()), "an elliptic curve (EC)"},
		"a PEM of P-224":                {inPEM(t, "PUBLIC KEY", p224.Public()), "its curve is none of P-256, P-384 and P-521"},
		"a PEM of another title":        {inPEM(t, "EC PRIVATE KEY", private.Public()), "the PEM block must be a PUBLIC KEY"},
		"half a PEM":                    {inPEM(t, "PUBLIC KEY", private.Public())[:80], "it is no PEM block"},
		"a PEM of something else":       {"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "the PEM block can't be read"},
		"two PEM blocks":                {strings.Repeat(inPEM(t, "PUBLIC KEY", private.Public()), 2), "something behind the PEM block"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := jwe.ParseKey([]byte(row.value))
			if row.refused == "" {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			g.Expect(err).To(And(MatchError(jwe.ErrKey), MatchError(ContainSubstring(row.refused))))
			g.Expect(err.Error()).NotTo(ContainSubstring("example of"), "the key does not show")
		})
	}
}

func TestEncrypt(t *testing.T) {
	private := newKey(t, elliptic.P256())
	const body = `{"type":"contact.created"}`
	for name, row := range map[string]struct {
		value     string
		decryptor any
		algorithm jose.KeyAlgorithm
	}{
		"with a shared key":     {shared, []byte(shared), jose.DIRECT},
		"with a shared JWK":     {jwk(t, jose.JSONWebKey{Key: []byte(shared), KeyID: "7"}), []byte(shared), jose.DIRECT},
		"with a receiver's JWK": {jwk(t, jose.JSONWebKey{Key: private.Public(), KeyID: "7"}), private, jose.ECDH_ES_A256KW},
		"with a receiver's PEM": {inPEM(t, "PUBLIC KEY", private.Public()), private, jose.ECDH_ES_A256KW},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			key, err := jwe.ParseKey([]byte(row.value))
			g.Expect(err).NotTo(HaveOccurred())
			first, err := key.Encrypt([]byte(body), "application/json")
			g.Expect(err).NotTo(HaveOccurred())
			parsed, err := jose.ParseEncryptedCompact(string(first), []jose.KeyAlgorithm{row.algorithm}, []jose.ContentEncryption{jose.A256GCM})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(parsed.Header.ExtraHeaders).To(HaveKeyWithValue(jose.HeaderKey("cty"), "json"))
			if strings.Contains(row.value, `"7"`) {
				g.Expect(parsed.Header.KeyID).To(Equal("7"))
			}
			g.Expect(parsed.Decrypt(row.decryptor)).To(Equal([]byte(body)))
			again, err := key.Encrypt([]byte(body), "application/json")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(again).NotTo(Equal(first), "equal bodies don't look equal")
		})
	}
}

func TestKeyThatIsNone(t *testing.T) {
	_, err := jwe.Key{}.Encrypt([]byte("x"), "text/plain")
	NewWithT(t).Expect(err).To(MatchError(ContainSubstring("make the encrypter")))
}
