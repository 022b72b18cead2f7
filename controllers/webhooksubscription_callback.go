package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/callback"
	"postbus.dev/postbus/internal/guard"
)

// The fields that URLs are in.
const (
	urlField       = "spec.callback.url"
	urlSecretField = "spec.callback.urlSecretRef"
	tokenURLField  = "spec.callback.oauth2.tokenURL"
)

// checkCallback checks the URLs that stand in the object. One that a Secret holds
// is checked with the other Secrets.
func (w webhookSubscriptions) checkCallback(_ context.Context, subscription *v1alpha1.WebhookSubscription) error {
	if text := subscription.Spec.Callback.OAuth2.TokenURL; text != "" {
		parsed, err := callback.ParseURL(text)
		if err != nil {
			return refuse(v1alpha1.ReasonCallbackInvalid, "%s %s.", tokenURLField, err)
		}
		if err := w.checkGuard(subscription.Namespace, tokenURLField, parsed); err != nil {
			return err
		}
	}
	if subscription.Spec.Callback.URLSecretRef.Name != "" {
		return nil
	}
	return w.checkURL(subscription, urlField, subscription.Spec.Callback.URL)
}

// checkURL checks the callback's URL and has status tell its host. Refusals never
// show the URL, whose path may hold a secret.
func (w webhookSubscriptions) checkURL(subscription *v1alpha1.WebhookSubscription, field, text string) error {
	parsed, err := callback.ParseURL(text)
	if err != nil {
		subscription.Status.CallbackHost = ""
		return refuse(v1alpha1.ReasonCallbackInvalid, "%s %s.", field, err)
	}
	subscription.Status.CallbackHost = parsed.Host
	return w.checkGuard(subscription.Namespace, field, parsed)
}

// checkGuard refuses a URL that callbacks of a namespace may not point to. Its name is not resolved: the
// answer would be of this moment and this machine. The dispatcher looks at what it
// dials.
func (w webhookSubscriptions) checkGuard(namespace, field string, target *url.URL) error {
	var refused *guard.RefusedError
	if errors.As(w.guard.For(namespace).CheckURL(target), &refused) {
		return refuse(v1alpha1.ReasonCallbackForbidden, "%s %s.", field, refused.Finding)
	}
	return nil
}

// addCallback adds the Secrets that the callback needs.
func (w webhookSubscriptions) addCallback(all *neededSecrets, subscription *v1alpha1.WebhookSubscription) {
	spec := &subscription.Spec.Callback
	if ref := spec.URLSecretRef; ref.Name != "" {
		all.add(ref, neededKey{
			check: func(data map[string][]byte) error { return w.checkURLOf(subscription, string(data[ref.Key])) },
			again: func() error {
				// Flags may have changed since. The scheme is not known any more, and a
				// call that it forbids fails with the same words.
				return w.checkGuard(subscription.Namespace, urlSecretField, &url.URL{Scheme: "https", Host: subscription.Status.CallbackHost})
			},
		})
	}
	addTLS(all, &spec.TLS)
	if name := spec.OAuth2.ClientSecretRef.Name; name != "" {
		addValue(all, v1alpha1.SecretKeyReference{Name: name, Key: callback.ClientIDKey}, callback.ParseCredential)
		addValue(all, v1alpha1.SecretKeyReference{Name: name, Key: callback.ClientSecretKey}, callback.ParseCredential)
	}
	for i := range spec.Headers {
		if ref := spec.Headers[i].SecretRef; ref.Name != "" {
			addValue(all, ref, callback.ParseHeaderValue)
		}
	}
}

// addValue adds a value that stands by itself.
func addValue(all *neededSecrets, ref v1alpha1.SecretKeyReference, parse func([]byte) (string, error)) {
	all.add(ref, neededKey{check: func(data map[string][]byte) error {
		if _, err := parse(data[ref.Key]); err != nil {
			return fmt.Errorf("the value %w", err)
		}
		return nil
	}})
}

func addTLS(all *neededSecrets, spec *v1alpha1.CallbackTLS) {
	if name := spec.CASecretRef.Name; name != "" {
		all.add(v1alpha1.SecretKeyReference{Name: name, Key: callback.CAKey}, neededKey{check: func(data map[string][]byte) error {
			_, err := callback.ParseCA(data[callback.CAKey])
			return err
		}})
	}
	if name := spec.ClientCertSecretRef.Name; name != "" {
		all.add(v1alpha1.SecretKeyReference{Name: name, Key: callback.CertificateKey}, neededKey{check: func(data map[string][]byte) error {
			_, err := callback.ParseCA(data[callback.CertificateKey])
			return err
		}})
		all.add(v1alpha1.SecretKeyReference{Name: name, Key: callback.PrivateKeyKey}, neededKey{check: func(data map[string][]byte) error {
			_, err := callback.ParseClientCertificate(data[callback.CertificateKey], data[callback.PrivateKeyKey])
			return err
		}})
	}
}

// checkURLOf checks the callback's URL that a Secret holds.
func (w webhookSubscriptions) checkURLOf(subscription *v1alpha1.WebhookSubscription, text string) error {
	if err := w.checkURL(subscription, urlSecretField, text); err != nil {
		return err
	}
	parsed, err := callback.ParseURL(text)
	if err != nil {
		return err
	}
	if parsed.Scheme != "https" && subscription.Spec.Callback.TLS != (v1alpha1.CallbackTLS{}) {
		return refuse(v1alpha1.ReasonCallbackInvalid, "%s is not https, but spec.callback.tls is set.", urlSecretField)
	}
	hasQuery := parsed.RawQuery != "" || parsed.ForceQuery
	if hasQuery && subscription.Spec.Payload.Encryption.Algorithm == v1alpha1.EncryptionRC4 {
		return refuse(v1alpha1.ReasonCallbackInvalid,
			"%s has a query, but payload.encryption.algorithm is RC4: what is encrypted is the whole query.", urlSecretField)
	}
	return nil
}
