package main

import (
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/apikey"
	"postbus.dev/postbus/internal/callback"
	"postbus.dev/postbus/internal/testkit"
)

// callbackSecrets are what a callback is called with, and what is no such thing.
func callbackSecrets() map[string]string {
	secrets := map[string]string{}
	for _, name := range []string{
		"the token of a URL", "a URL that is bad", "a header's value", "a header's value that is bad", "the client's secret",
		"the access token", "a client's secret that is bad", "a private key of TLS that is bad", "authorities that are bad",
	} {
		secrets[name] = "secret-" + apikey.Generate()
	}
	return secrets
}

// echo fails, and repeats all that it was told, as debugging servers do. It gives
// tokens away.
func (s *leakScene) echo(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/token" {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer"}`, s.secrets["the access token"])
		return
	}
	w.WriteHeader(http.StatusInternalServerError)
	_, _ = fmt.Fprintln(w, r.URL, r.Header)
}

// callbackObjects are subscriptions whose callbacks need Secrets, with those.
func (s *leakScene) callbackObjects() []client.Object {
	data := func(name string, values map[string]string) client.Object {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name}, StringData: values}
	}
	oauth := func(name, secret string) client.Object {
		return data(name, map[string]string{callback.ClientIDKey: "postbus", callback.ClientSecretKey: s.secrets[secret]})
	}
	s.secrets["a client's secret that is bad"] += "\n\nof two lines"
	s.secrets["a header's value that is bad"] += "\r\nof two lines"
	return []client.Object{
		data("url", map[string]string{"url": s.receiver.URL() + "/hook/" + s.secrets["the token of a URL"]}),
		data("bad-url", map[string]string{"url": "https://user:" + s.secrets["a URL that is bad"] + "@ [" + s.secrets["a URL that is bad"]}),
		s.secret("header", "value", "a header's value"), s.secret("bad-header", "value", "a header's value that is bad"),
		oauth("oauth", "the client's secret"), oauth("bad-oauth", "a client's secret that is bad"),
		s.secret("bad-ca", callback.CAKey, "authorities that are bad"),
		data("bad-certificate", map[string]string{
			callback.CertificateKey: "no certificate", callback.PrivateKeyKey: s.secrets["a private key of TLS that is bad"],
		}),
		s.called("url-of-secret", func(c *v1alpha1.Callback) { c.URL, c.URLSecretRef = "", keyRef("url", "url") }),
		s.called("bad-url-of-secret", func(c *v1alpha1.Callback) { c.URL, c.URLSecretRef = "", keyRef("bad-url", "url") }),
		s.called("header-of-secret", func(c *v1alpha1.Callback) {
			c.Headers = []v1alpha1.CallbackHeader{{Name: "Authorization", SecretRef: keyRef("header", "value")}}
		}),
		s.called("bad-header-of-secret", func(c *v1alpha1.Callback) {
			c.Headers = []v1alpha1.CallbackHeader{{Name: "Authorization", SecretRef: keyRef("bad-header", "value")}}
		}),
		s.called("with-token", func(c *v1alpha1.Callback) { c.OAuth2 = s.oauth2("/token", "oauth") }),
		s.called("without-token", func(c *v1alpha1.Callback) { c.OAuth2 = s.oauth2("/nothing", "oauth") }),
		s.called("bad-client", func(c *v1alpha1.Callback) { c.OAuth2 = s.oauth2("/token", "bad-oauth") }),
		s.called("bad-authorities", func(c *v1alpha1.Callback) {
			c.URL, c.TLS.CASecretRef.Name = "https://127.0.0.1:1/", "bad-ca"
		}),
		s.called("bad-client-certificate", func(c *v1alpha1.Callback) {
			c.URL, c.TLS.ClientCertSecretRef.Name = "https://127.0.0.1:1/", "bad-certificate"
		}),
	}
}

func (s *leakScene) called(name string, edit func(*v1alpha1.Callback)) client.Object {
	subscription := testkit.Subscription(s.namespace, name, s.receiver.URL())
	subscription.Spec.Signing.SecretRef.Name = "signing"
	edit(&subscription.Spec.Callback)
	return subscription
}

func (s *leakScene) oauth2(path, secret string) v1alpha1.OAuth2 {
	return v1alpha1.OAuth2{TokenURL: s.receiver.URL() + path, ClientSecretRef: v1alpha1.SecretReference{Name: secret}}
}

func keyRef(name, key string) v1alpha1.SecretKeyReference {
	return v1alpha1.SecretKeyReference{Name: name, Key: key}
}
