// Package apikey answers: what is an API key, and how is one recognised
// without being kept?
//
// The controller makes keys and writes their digests into an ApiKey's status;
// ingress digests what a caller presents and looks that up. A plain SHA-256 is
// enough because only keys of at least 128 bits are taken: there is nothing to
// guess from the digest.
package apikey

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
)

// SecretKey is the data key of the Secret that holds an API key.
const SecretKey = "key"

// generatedPrefix begins every generated key, so that a secret scanner
// recognises a leaked one.
const generatedPrefix = "pb_"

// shownLength is how much of a generated key may be shown: 4 of its 26 random
// characters, which leaves 110 bits unknown to whoever sees it.
const shownLength = len(generatedPrefix) + 4

// MinLength and MaxLength are how long a key that people bring may be, in bytes.
const (
	MinLength = 22
	MaxLength = 512
)

// Generate returns a new key: "pb_" and 130 random bits.
func Generate() string {
	return generatedPrefix + strings.ToLower(rand.Text())
}

// Digest returns the SHA-256 of a key in lower-case hexadecimal, as an
// ApiKey's status carries it.
func Digest(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// Prefix returns the part of a generated key that may be shown, and nothing
// for other keys.
func Prefix(key string) string {
	if !strings.HasPrefix(key, generatedPrefix) || len(key) < 2*shownLength {
		return ""
	}
	return key[:shownLength]
}

// Check tells whether a key that people bring is good enough to be recognised
// by its plain digest. Its bits are taken as its length times what one
// character of its alphabet holds, so 32 hexadecimal digits, 22 of Base64 or
// a UUID pass; a key that hardly varies does not. A long phrase of words
// passes too: nothing can tell it from chance. The error never shows the key.
func Check(key string) error {
	switch {
	case len(key) < MinLength:
		return fmt.Errorf("the key has %d characters, at least %d are needed", len(key), MinLength)
	case len(key) > MaxLength:
		return fmt.Errorf("the key has %d characters, at most %d are allowed", len(key), MaxLength)
	}
	distinct := map[rune]bool{}
	for _, c := range key {
		if c < 0x21 || c > 0x7e {
			return errors.New("the key has characters other than printable ASCII without spaces")
		}
		distinct[c] = true
	}
	if len(distinct) < minDistinct {
		return fmt.Errorf("the key has %d different characters, at least %d are needed", len(distinct), minDistinct)
	}
	if bits := strength(key); bits < minBits {
		return fmt.Errorf("the key has about %d bits, at least %d are needed", int(bits), minBits)
	}
	return nil
}

const (
	minBits     = 128
	minDistinct = 8
)

// alphabets are the usual ones, each within the next.
var alphabets = []string{
	"0123456789",
	"0123456789abcdefABCDEF", // one case of letters, as hexadecimal is written
	"0123456789abcdefghijklmnopqrstuvwxyz",
	"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
	"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
}

// strength returns the bits of a key made by chance from the smallest alphabet
// that has all its characters. Separators as a UUID has them count nothing.
func strength(key string) float64 {
	random := strings.ReplaceAll(key, "-", "")
	size := 94.0 // printable ASCII
	for _, alphabet := range alphabets {
		if strings.Trim(random, alphabet) == "" {
			size = float64(len(alphabet))
			break
		}
	}
	if size == 22 {
		size = 16
	}
	return float64(len(random)) * math.Log2(size)
}
