// Package link answers: how does a recipient prove that a link is theirs?
//
// A link's last part is a token: the id of a key, what the link may do, to which contact of
// which list or to which subscription, until when, and a signature (HMAC-SHA256, RFC 2104) with
// that key. A token says nothing about a person but the contact's number.
package link

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"postbus.dev/postbus/internal/contact"
)

// The errors of Open.
var (
	// ErrInvalid: the token was not made with the key, or was damaged.
	ErrInvalid = errors.New("link is not valid")
	// ErrExpired: the token's time is over.
	ErrExpired = errors.New("link has expired")
)

// Purpose is what a link is for.
type Purpose byte

// The purposes. Their numbers are in tokens that are out, so they never change.
const (
	Confirm     Purpose = 1
	Unsubscribe Purpose = 2
	Profile     Purpose = 3
	Reactivate  Purpose = 4
)

// Path returns what comes before the token in the path of such a link. It is
// empty for an unknown purpose.
func (p Purpose) Path() string {
	switch p {
	case Confirm:
		return "/confirm/"
	case Unsubscribe:
		return "/unsubscribe/"
	case Profile:
		return "/profile/"
	case Reactivate:
		return "/reactivate/"
	}
	return ""
}

// Link is what a token says. That of Reactivate is a Reactivation.
type Link struct {
	Purpose Purpose
	// List and Contact name the contact by its number, which is never reused.
	List    contact.ListKey
	Contact int64
	// Expires is when the link ends, in whole seconds.
	Expires time.Time
	// RequestedAt and Plus are of Confirm alone: see contact.Confirmation.
	RequestedAt time.Time
	Plus        bool
}

// MaxToken is how many characters a token has at most: names of objects in
// Kubernetes have 253, of namespaces 63.
const MaxToken = 524

const (
	// version is the first byte of a token. The id of its key follows.
	version = 1
	// headerSize is the size of both in bytes.
	headerSize = 1 + keyIDSize
	// signatureSize is how many bytes of the HMAC a token carries: 128 bits, the
	// least that RFC 2104 (section 5) advises.
	signatureSize = sha256.Size / 2
)

// encoding is strict, so that each token has one spelling.
var encoding = base64.RawURLEncoding.Strict()

// token returns the token of a link, signed with this key.
func (k *Key) token(l Link) string {
	return encoding.EncodeToString(k.seal(l.encode(k.ID)))
}

// open returns what a token says whose encoding is resolved.
func (k *Key) open(sealed []byte, purpose Purpose, now time.Time) (Link, error) {
	payload := sealed[:len(sealed)-signatureSize]
	if !hmac.Equal(k.seal(payload), sealed) {
		return Link{}, ErrInvalid
	}
	l, ok := decode(payload)
	switch {
	case !ok || l.Purpose != purpose:
		return Link{}, ErrInvalid
	case !now.Before(l.Expires):
		return l, ErrExpired
	}
	return l, nil
}

// decodeToken resolves the encoding of a token, and returns the id of its key.
func decodeToken(token string) (sealed []byte, id KeyID, ok bool) {
	if len(token) > MaxToken || strings.ContainsAny(token, "\r\n") { // the decoder skips line ends
		return nil, id, false
	}
	sealed, err := encoding.DecodeString(token)
	if err != nil || len(sealed) < headerSize+signatureSize {
		return nil, id, false
	}
	return sealed, KeyID(sealed[1:headerSize]), true
}

// seal returns the payload with its signature behind it.
func (k *Key) seal(payload []byte) []byte {
	mac := hmac.New(sha256.New, []byte(k.Secret))
	mac.Write(payload) // never fails
	return append(payload[:len(payload):len(payload)], mac.Sum(nil)[:signatureSize]...)
}

// encode returns version, key, purpose, plus, the numbers as varints, and the names.
func (l Link) encode(key KeyID) []byte {
	plus := byte(0)
	if l.Plus {
		plus = 1
	}
	payload := append([]byte{version}, key[:]...)
	payload = append(payload, byte(l.Purpose), plus)
	for _, number := range []int64{l.Contact, l.Expires.Unix(), l.requested()} {
		payload = binary.AppendVarint(payload, number)
	}
	payload = append(payload, l.List.Namespace...)
	payload = append(payload, '/') // in no name
	return append(payload, l.List.Name...)
}

func (l Link) requested() int64 {
	if l.RequestedAt.IsZero() {
		return 0
	}
	return l.RequestedAt.UnixNano()
}

// decode reads what encode has written; anything else is not ok.
func decode(payload []byte) (l Link, ok bool) {
	if len(payload) < headerSize+2 || payload[0] != version {
		return Link{}, false
	}
	l.Purpose, l.Plus = Purpose(payload[headerSize]), payload[headerSize+1] == 1
	rest := payload[headerSize+2:]
	var numbers [3]int64
	for i := range numbers {
		number, size := binary.Varint(rest)
		if size <= 0 {
			return Link{}, false
		}
		numbers[i], rest = number, rest[size:]
	}
	l.Contact, l.Expires = numbers[0], time.Unix(numbers[1], 0).UTC()
	if numbers[2] != 0 {
		l.RequestedAt = time.Unix(0, numbers[2]).UTC()
	}
	l.List.Namespace, l.List.Name, ok = strings.Cut(string(rest), "/")
	return l, ok
}
