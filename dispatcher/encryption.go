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

// apply returns what is sent instead: itself where nothing is encrypted.
func (e *encryption) apply(ctx context.Context, s *subscription, carried payload) (payload, error) {
	switch s.encryption {
	case v1alpha1.EncryptionJWE:
		key, err := e.jweKey.get(ctx, s, s.encryptionKey)
		if err != nil {
			return payload{}, err
		}
		carried.body, err = key.Encrypt(carried.body, carried.contentType)
		carried.contentType = jwe.ContentType
		return carried, err
	case v1alpha1.EncryptionRC4:
		key, err := e.rc4Key.get(ctx, s, s.encryptionKey)
		if err != nil {
			return payload{}, err
		}
		// The form is in one of the two.
		carried.query = sealForm(key, carried.query)
		carried.body = []byte(sealForm(key, string(carried.body)))
		return carried, nil
	default:
		return carried, nil
	}
}

// sealForm encrypts a form as MailUp does: RC4, Base64, percent escapes. What
// comes out is the whole query or body; no name stands before it.
func sealForm(key rc4.Key, form string) string {
	return escapeLower(base64.StdEncoding.EncodeToString(key.Encrypt([]byte(form))))
}
