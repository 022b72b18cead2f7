package ingress

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"postbus.dev/postbus/internal/store"
)

// idempotencyHeader names a call, so that a repeat of it does nothing. The
// header's form is that of the IETF's draft "The Idempotency-Key HTTP Header
// Field"; a value without quotes is taken too.
const idempotencyHeader = "Idempotency-Key"

const (
	// onceFor is how long a repeat is recognised.
	onceFor = 24 * time.Hour
	// maxIdempotencyKey is how many characters the header may have.
	maxIdempotencyKey = 255
)

// once returns how the store recognises a repeat of this call, nil for a call
// that is not named.
func (c call) once(r *http.Request) (*store.Once, error) {
	values := r.Header.Values(idempotencyHeader)
	switch {
	case len(values) == 0:
		return nil, nil
	case len(values) > 1:
		return nil, tooManyValues(idempotencyHeader)
	}
	name := strings.Trim(strings.TrimSpace(values[0]), `"`)
	if name == "" || len(name) > maxIdempotencyKey {
		return nil, illegalValue(idempotencyHeader, "must have 1 to 255 characters")
	}
	// Digests, because callers put addresses into such names. The UID keeps out repeats of
	// what was sent to an earlier namespace of this name.
	return &store.Once{
		Key:         digest(c.grant.list.Status.NamespaceUID, c.grant.key.Namespace, c.grant.key.Name, r.URL.Path, name),
		Fingerprint: c.fingerprint(),
		Now:         c.at,
		Until:       c.at.Add(onceFor),
	}, nil
}

// fingerprint digests the parameters, in whatever form they came. The key is
// left out: it may be rotated between a call and its repeat.
func (c call) fingerprint() string {
	given := make(map[string]string, len(c.given))
	for name, value := range c.given {
		if name != keyParameter {
			given[name] = value
		}
	}
	encoded, _ := json.Marshal(given) // strings always encode, in the order of names
	return digest(string(encoded))
}

func digest(parts ...string) string {
	encoded, _ := json.Marshal(parts) // so that no two lists of parts are the same text
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:])
}
