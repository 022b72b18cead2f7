package signature

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strings"
	"sync"

	"postbus.dev/postbus/api/v1alpha1"
)

// What Standard Webhooks writes before keys, so that nobody takes one for another.
const (
	hmacPrefix    = "whsec_"
	privatePrefix = "whsk_"
	publicPrefix  = "whpk_"
)

// What stands before a signature and names its scheme, by Standard Webhooks.
const (
	hmacScheme    = "v1,"
	ed25519Scheme = "v1a,"
)

const (
	// minSecretBytes and maxSecretBytes are what Standard Webhooks allows.
	minSecretBytes = 24
	maxSecretBytes = 64
	// generatedBytes is as long as the digest, which RFC 2104 advises for an
	// HMAC key.
	generatedBytes = sha256.Size
)

// ErrSecret: a text is not a signing secret. The error never shows it.
var ErrSecret = errors.New("not a signing secret")

// Secret is a parsed signing secret: a key of HMAC-SHA256 or of Ed25519.
type Secret struct {
	// macs has what computes HMACs under the key (hash.Hash); nil for Ed25519. Keying
	// one costs as much as a small message.
	macs *sync.Pool
	// private is nil for HMAC.
	private ed25519.PrivateKey
}

// GenerateSecret returns a new signing secret: for HMAC whsec_ and 32 random bytes, for
// Ed25519 whsk_ and the private key, in Base64.
func GenerateSecret(algorithm v1alpha1.SigningAlgorithm) string {
	if algorithm == v1alpha1.SigningEd25519 {
		seed := make([]byte, ed25519.SeedSize)
		rand.Read(seed) // never returns an error, see crypto/rand
		return privatePrefix + base64.StdEncoding.EncodeToString(ed25519.NewKeyFromSeed(seed))
	}
	key := make([]byte, generatedBytes)
	rand.Read(key)
	return hmacPrefix + base64.StdEncoding.EncodeToString(key)
}

// ParseSecret parses a signing secret as Standard Webhooks writes it: whsec_
// and 24 to 64 bytes in Base64, or whsk_ and an Ed25519 private key in Base64.
// White space around it is dropped, because files that Secrets are made from
// often end in a new line.
func ParseSecret(text string) (Secret, error) {
	text = strings.TrimSpace(text)
	if encoded, is := strings.CutPrefix(text, privatePrefix); is {
		return parsePrivate(encoded)
	}
	encoded, is := strings.CutPrefix(text, hmacPrefix)
	if !is {
		return Secret{}, fmt.Errorf("%w: it must begin with %s or %s", ErrSecret, hmacPrefix, privatePrefix)
	}
	key, err := decode(encoded, hmacPrefix)
	if err != nil {
		return Secret{}, err
	}
	if len(key) < minSecretBytes || len(key) > maxSecretBytes {
		return Secret{}, fmt.Errorf("%w: it has %d bytes, it must have %d to %d",
			ErrSecret, len(key), minSecretBytes, maxSecretBytes)
	}
	return Secret{macs: &sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}}, nil
}

// parsePrivate parses a private key: the seed of 32 bytes that RFC 8032 calls the
// private key, or, as libraries keep it and Svix writes it, the seed and the
// public key behind it. Standard Webhooks does not say which.
func parsePrivate(encoded string) (Secret, error) {
	key, err := decode(encoded, privatePrefix)
	if err != nil {
		return Secret{}, err
	}
	if len(key) != ed25519.SeedSize && len(key) != ed25519.PrivateKeySize {
		return Secret{}, fmt.Errorf("%w: it has %d bytes, an Ed25519 private key has %d or %d",
			ErrSecret, len(key), ed25519.SeedSize, ed25519.PrivateKeySize)
	}
	private := ed25519.NewKeyFromSeed(key[:ed25519.SeedSize])
	if len(key) == ed25519.PrivateKeySize && !bytes.Equal(private, key) {
		return Secret{}, fmt.Errorf("%w: the public key at its end is not that of the private key", ErrSecret)
	}
	return Secret{private: private}, nil
}

func decode(encoded, prefix string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, fmt.Errorf("%w: what follows %s must be Base64", ErrSecret, prefix)
	}
	return key, nil
}

// parseAt parses the signing secret under a data key.
func parseAt(data map[string][]byte, key string) (Secret, error) {
	secret, err := ParseSecret(string(data[key]))
	if err != nil {
		return Secret{}, fmt.Errorf("data key %q: %w", key, err)
	}
	return secret, nil
}

// PublicKey returns what receivers verify calls with, as Standard Webhooks writes
// it: whpk_ and the Ed25519 public key in Base64. It is no secret. Empty for HMAC,
// where receivers need the secret itself.
func (s Secret) PublicKey() string {
	if s.private == nil {
		return ""
	}
	return publicPrefix + base64.StdEncoding.EncodeToString(s.private.Public().(ed25519.PublicKey))
}

func (s Secret) sign(message []byte) string {
	if s.private != nil {
		return ed25519Scheme + base64.StdEncoding.EncodeToString(ed25519.Sign(s.private, message))
	}
	mac := s.macs.Get().(hash.Hash)
	defer s.macs.Put(mac)
	mac.Reset()
	mac.Write(message)
	return hmacScheme + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
