// Package signature answers: how does a receiver know that a call is ours?
//
// It signs calls as Standard Webhooks 1.0 says, over id, timestamp and body. v1
// is HMAC-SHA256, under a secret that only we and the receiver know. v1a is
// Ed25519: the receiver has a public key, which can't sign. While a secret is
// replaced calls are signed twice.
//
//	webhook-signature: v1,<by the current secret> v1,<by the one before it>
package signature

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The data keys of the Secret that holds signing secrets.
const (
	// SecretKey holds the current one.
	SecretKey = "secret"
	// PreviousKey holds the one before it, while both sign.
	PreviousKey = "previous"
)

// The headers of a signed call, by Standard Webhooks, in the spelling that net/http
// gives them anyway.
const (
	HeaderID        = "Webhook-Id"
	HeaderTimestamp = "Webhook-Timestamp"
	HeaderSignature = "Webhook-Signature"
)

// Secrets sign a call together: the current one and, while it replaces another,
// that one too.
type Secrets []Secret

// ParseSecrets parses what a Secret holds: the current signing secret, which must
// be there, and the one before it. An empty one before it is none. Errors name the
// data key and never show a value.
func ParseSecrets(data map[string][]byte) (Secrets, error) {
	current, err := parseAt(data, SecretKey)
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(data[PreviousKey])) == 0 {
		return Secrets{current}, nil
	}
	previous, err := parseAt(data, PreviousKey)
	if err != nil {
		return nil, err
	}
	return Secrets{current, previous}, nil
}

// Sign returns the values of HeaderTimestamp and HeaderSignature for a call
// with this id and body, made at this time. The header has the signatures in the
// order of the secrets, separated by spaces; no secrets sign nothing.
func (s Secrets) Sign(id string, at time.Time, body []byte) (timestamp, header string) {
	timestamp = strconv.FormatInt(at.Unix(), 10)
	signed := slices.Concat([]byte(id), []byte("."), []byte(timestamp), []byte("."), body)
	signatures := make([]string, len(s))
	for n, secret := range s {
		signatures[n] = secret.sign(signed)
	}
	return timestamp, strings.Join(signatures, " ")
}
