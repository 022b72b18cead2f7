package dispatcher

import (
	"context"
	"encoding/base64"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/jwe"
	"postbus.dev/postbus/internal/rc4"
)

// encryption hides what a subscription's calls carry. It has the key that the
// subscription's algorithm needs.
type encryption struct {
	jweKey keptSecret[jwe.Key]
	rc4Key keptSecret[rc4.Key]
}

func newEncryption(secrets client.Reader) encryption {
	const title = "encryption key"
	return encryption{
		jweKey: keptSecret[jwe.Key]{title: title, reader: secrets, parse: ofOneKey(jwe.ParseKey)},
		rc4Key: keptSecret[rc4.Key]{title: title, reader: secrets, parse: ofOneKey(rc4.ParseKey)},
	}
}

// sealer returns what is sent in place of a payload.
type sealer func(payload) (payload, error)

// sealer returns what encrypts payloads of a subscription: nothing changes where it wants
// no encryption. It reads the key, so that nothing waits for that once a body is made.
func (e *encryption) sealer(ctx context.Context, s *subscription) (sealer, error) {
	switch s.encryption {
	case v1alpha1.EncryptionJWE:
		key, err := e.jweKey.get(ctx, s, s.encryptionKey)
		return func(carried payload) (payload, error) { return sealJWE(key, carried) }, err
	case v1alpha1.EncryptionRC4:
		key, err := e.rc4Key.get(ctx, s, s.encryptionKey)
		return func(carried payload) (payload, error) { return sealRC4(key, carried), nil }, err
	default:
		return plain, nil
	}
}

func plain(carried payload) (payload, error) { return carried, nil }

func sealJWE(key jwe.Key, carried payload) (payload, error) {
	var err error
	carried.body, err = key.Encrypt(carried.body, carried.contentType)
	carried.contentType = jwe.ContentType
	return carried, err
}

// sealRC4 encrypts the form, which is in query or body.
func sealRC4(key rc4.Key, carried payload) payload {
	carried.query = sealForm(key, carried.query)
	carried.body = []byte(sealForm(key, string(carried.body)))
	return carried
}

// sealForm encrypts a form as MailUp does: RC4, Base64, percent escapes. What
// comes out is the whole query or body; no name stands before it.
func sealForm(key rc4.Key, form string) string {
	return escapeLower(base64.StdEncoding.EncodeToString(key.Encrypt([]byte(form))))
}
