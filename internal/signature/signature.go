// Package signature answers: how does a receiver know that a call is ours?
//
// It signs calls as Standard Webhooks 1.0 says: HMAC-SHA256 over id, timestamp
// and body, under a secret that only we and the receiver know.
package signature

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// SecretKey is the data key of the Secret that holds a signing secret.
const SecretKey = "secret"

// The headers of a signed call, by Standard Webhooks.
const (
	HeaderID        = "webhook-id"
	HeaderTimestamp = "webhook-timestamp"
	HeaderSignature = "webhook-signature"
)

const (
	secretPrefix = "whsec_"
	// minSecretBytes and maxSecretBytes are what Standard Webhooks allows.
	minSecretBytes = 24
	maxSecretBytes = 64
	// generatedBytes is as long as the digest, which RFC 2104 advises for an
	// HMAC key.
	generatedBytes = sha256.Size
)

// ErrSecret: a text is not a signing secret. The error never shows it.
var ErrSecret = errors.New("not a signing secret")

// Secret is a parsed signing secret. Its zero value signs nothing.
type Secret struct {
	key []byte
}

// GenerateSecret returns a new signing secret: whsec_ and 32 random bytes in
// Base64.
func GenerateSecret() string {
	key := make([]byte, generatedBytes)
	rand.Read(key) // never returns an error, see crypto/rand
	return secretPrefix + base64.StdEncoding.EncodeToString(key)
}

// ParseSecret parses a signing secret as Standard Webhooks writes it: whsec_
// and 24 to 64 bytes in Base64. White space around it is dropped, because
// files that Secrets are made from often end in a new line.
func ParseSecret(text string) (Secret, error) {
	encoded, ok := strings.CutPrefix(strings.TrimSpace(text), secretPrefix)
	if !ok {
		return Secret{}, fmt.Errorf("%w: it must begin with %s", ErrSecret, secretPrefix)
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return Secret{}, fmt.Errorf("%w: what follows %s must be Base64", ErrSecret, secretPrefix)
	}
	if len(key) < minSecretBytes || len(key) > maxSecretBytes {
		return Secret{}, fmt.Errorf("%w: it has %d bytes, it must have %d to %d",
			ErrSecret, len(key), minSecretBytes, maxSecretBytes)
	}
	return Secret{key: key}, nil
}

// Sign returns the values of HeaderTimestamp and HeaderSignature for a call
// with this id and body, made at this time.
func (s Secret) Sign(id string, at time.Time, body []byte) (timestamp, signature string) {
	timestamp = strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, s.key)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	return timestamp, "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
