// Package rc4 answers: what may be a key of MailUp's encryption, and what does it
// make of a text?
//
// RC4 is broken (RFC 7465 forbids it in TLS), and MailUp uses one key stream for
// every call, so two calls that are recorded tell about each other. It is here
// for receivers that know nothing else, and has no other use.
package rc4

import (
	"bytes"
	"crypto/rc4"
	"errors"
	"fmt"
)

// MaxKeyBytes is how long a key may be; the algorithm uses no more.
const MaxKeyBytes = 256

// ErrKey: a value can't be a key. The error never shows it.
var ErrKey = errors.New("not an RC4 key")

// Key is a key. Its zero value encrypts nothing.
type Key struct {
	bytes []byte
}

// ParseKey takes 1 to MaxKeyBytes bytes as they are. It refuses a line end behind
// them, which files that Secrets are made from often have, and which would make
// another key of it.
func ParseKey(value []byte) (Key, error) {
	switch {
	case len(value) == 0 || len(value) > MaxKeyBytes:
		return Key{}, fmt.Errorf("%w: it has %d bytes, it must have 1 to %d", ErrKey, len(value), MaxKeyBytes)
	case bytes.HasSuffix(value, []byte("\n")):
		return Key{}, fmt.Errorf("%w: it ends with a line end, which would be a part of it", ErrKey)
	}
	return Key{bytes: bytes.Clone(value)}, nil
}

// Encrypt returns a text encrypted from the start of the key stream, and nothing
// without a key. Encrypting twice gives the text back.
func (k Key) Encrypt(text []byte) []byte {
	cipher, err := rc4.NewCipher(k.bytes)
	if err != nil {
		return nil // the zero value: ParseKey lets no such length pass
	}
	encrypted := make([]byte, len(text))
	cipher.XORKeyStream(encrypted, text)
	return encrypted
}
