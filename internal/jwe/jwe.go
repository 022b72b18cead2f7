// Package jwe answers: what may be a key of encryption by JWE (RFC 7516), and what
// does it make of a body?
//
// There are two kinds of keys. A shared key encrypts directly (dir). A public key of
// the receiver's encrypts a key that is new in each call (ECDH-ES+A256KW), so nobody
// but the receiver can read what was sent, not even with the Secret in hand. The body
// is encrypted by A256GCM with both, and comes in compact serialization.
package jwe

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// ContentType is the media type of a JWE in compact serialization (RFC 7516,
// section 13.1).
const ContentType = "application/jose"

// SharedKeyBytes is how long a shared key is, which A256GCM says.
const SharedKeyBytes = 32

// ErrKey: a value can't be a key. The error never shows it.
var ErrKey = errors.New("not a JWE key")

// Key is a key. Its zero value encrypts nothing.
type Key struct {
	recipient jose.Recipient
}

// ParseKey takes a shared key, or the public key of a receiver. A shared key is
// exactly SharedKeyBytes bytes, taken as they are, or a JWK of the type oct. A public
// key is a JWK of the type EC, or a PEM block PUBLIC KEY, of the curve P-256, P-384
// or P-521.
func ParseKey(value []byte) (Key, error) {
	text := bytes.TrimSpace(value)
	switch {
	case len(value) == SharedKeyBytes: // neither of the others is as short
		return sharedKey(bytes.Clone(value), "")
	case bytes.HasPrefix(text, []byte("{")):
		return parseJWK(text)
	case bytes.HasPrefix(text, []byte("-----BEGIN ")):
		return parsePEM(text)
	default:
		return Key{}, fmt.Errorf("%w: it has %d bytes, and is no JWK and no PEM; a shared key has %d bytes, without a line end behind them",
			ErrKey, len(value), SharedKeyBytes)
	}
}

func sharedKey(key []byte, id string) (Key, error) {
	if len(key) != SharedKeyBytes {
		return Key{}, fmt.Errorf("%w: it has %d bytes, a shared key has %d", ErrKey, len(key), SharedKeyBytes)
	}
	return Key{recipient: jose.Recipient{Algorithm: jose.DIRECT, Key: key, KeyID: id}}, nil
}

func publicKey(key *ecdsa.PublicKey, id string) (Key, error) {
	switch key.Curve {
	case elliptic.P256(), elliptic.P384(), elliptic.P521():
		return Key{recipient: jose.Recipient{Algorithm: jose.ECDH_ES_A256KW, Key: key, KeyID: id}}, nil
	default:
		return Key{}, fmt.Errorf("%w: its curve is none of P-256, P-384 and P-521", ErrKey)
	}
}

func parseJWK(text []byte) (Key, error) {
	var parsed jose.JSONWebKey
	if err := json.Unmarshal(text, &parsed); err != nil {
		return Key{}, fmt.Errorf("%w: it is no JWK of a known type", ErrKey)
	}
	if parsed.Use != "" && parsed.Use != "enc" {
		return Key{}, fmt.Errorf("%w: the JWK is not for encryption (use)", ErrKey)
	}
	switch key := parsed.Key.(type) {
	case []byte:
		return sharedKey(key, parsed.KeyID)
	case *ecdsa.PublicKey:
		return publicKey(key, parsed.KeyID)
	case *ecdsa.PrivateKey:
		return Key{}, fmt.Errorf("%w: it is a private key; give the public one, and keep this", ErrKey)
	default:
		return Key{}, fmt.Errorf("%w: the JWK's type (kty) must be oct or EC", ErrKey)
	}
}

func parsePEM(text []byte) (Key, error) {
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return Key{}, fmt.Errorf("%w: it is no PEM block", ErrKey)
	case block.Type != "PUBLIC KEY":
		return Key{}, fmt.Errorf("%w: the PEM block must be a PUBLIC KEY", ErrKey)
	case len(bytes.TrimSpace(rest)) > 0:
		return Key{}, fmt.Errorf("%w: there is something behind the PEM block", ErrKey)
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return Key{}, fmt.Errorf("%w: the PEM block can't be read", ErrKey)
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok {
		return Key{}, fmt.Errorf("%w: the PEM block must hold a key of an elliptic curve (EC)", ErrKey)
	}
	return publicKey(key, "")
}

// mediaPrefix is left out of the header cty (RFC 7516, section 4.1.12).
const mediaPrefix = "application/"

// Encrypt returns a body of a media type encrypted, in compact serialization: other
// bytes each time. The media type is in the header cty.
func (k Key) Encrypt(body []byte, mediaType string) ([]byte, error) {
	content := jose.ContentType(strings.TrimPrefix(mediaType, mediaPrefix))
	encrypter, err := jose.NewEncrypter(jose.A256GCM, k.recipient, (&jose.EncrypterOptions{}).WithContentType(content))
	if err != nil {
		return nil, fmt.Errorf("make the encrypter: %w", err)
	}
	encrypted, err := encrypter.Encrypt(body)
	if err != nil {
		return nil, fmt.Errorf("encrypt the body: %w", err)
	}
	text, err := encrypted.CompactSerialize()
	return []byte(text), err
}
