package link

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/url"
	"sync/atomic"
	"time"
)

// keyIDSize is how many bytes the id of a key has: three, which are four characters of a token.
const keyIDSize = 3

// KeyID names a key of a store. It is in each token, and is no secret.
type KeyID [keyIDSize]byte

// NewKeyID returns a random id.
func NewKeyID() (id KeyID) {
	_, _ = rand.Read(id[:]) // never fails
	return id
}

// ParseKeyID reads an id as String writes it.
func ParseKeyID(text string) (id KeyID, err error) {
	decoded, err := hex.DecodeString(text)
	if err != nil || len(decoded) != keyIDSize {
		return id, fmt.Errorf("invalid id of a link key %q (example: 0a1b2c)", text)
	}
	return KeyID(decoded), nil
}

// String returns the id as six hexadecimal digits.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// Key signs links and verifies them.
type Key struct {
	ID KeyID
	// Secret has at least 128 bits that nobody can guess.
	Secret string
}

// String returns the id, so that no log shows the secret.
func (k Key) String() string { return "link key " + k.ID.String() }

// GoString returns what String returns.
func (k Key) GoString() string { return k.String() }

// Ring holds the keys of a store: one that signs, and all that verify. A store replaces them
// when they change. All methods are safe for concurrent use and do no I/O, so a link that a
// stranger made up costs a look into a map.
type Ring struct {
	keys atomic.Pointer[ringKeys]
}

// ringKeys are the keys of a ring at one moment.
type ringKeys struct {
	signer Key
	byID   map[KeyID]Key
}

// NewRing returns a ring of these keys. The first signs.
func NewRing(signer Key, others ...Key) *Ring {
	r := &Ring{}
	r.Replace(signer, others...)
	return r
}

// Replace replaces all keys. The first signs, and verifies as the others do.
func (r *Ring) Replace(signer Key, others ...Key) {
	keys := &ringKeys{signer: signer, byID: map[KeyID]Key{signer.ID: signer}}
	for _, key := range others {
		keys.byID[key.ID] = key
	}
	r.keys.Store(keys)
}

// Token returns the token of a link.
func (r *Ring) Token(l Link) string { return r.keys.Load().signer.token(l) }

// URL returns the link below a base such as https://lists.example.com.
func (r *Ring) URL(base *url.URL, l Link) string {
	return base.JoinPath(l.Purpose.Path(), r.Token(l)).String()
}

// Open returns what a token says. Errors are ErrInvalid, and ErrExpired with the
// link that has expired. The link of a key that the ring does not hold is ErrInvalid.
func (r *Ring) Open(token string, purpose Purpose, now time.Time) (Link, error) {
	sealed, id, ok := decodeToken(token)
	if !ok {
		return Link{}, ErrInvalid
	}
	key, ok := r.keys.Load().byID[id]
	if !ok {
		return Link{}, ErrInvalid
	}
	return key.open(sealed, purpose, now)
}
