package controllers

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/guard"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/testkit"
)

// data makes a Secret with several data keys.
func (b *bench) data(name string, data map[string]string) *corev1.Secret {
	b.t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: name}, StringData: data}
	b.create(secret)
	return secret
}

// secretURL makes the callback's URL one that a Secret holds.
func secretURL(spec *v1alpha1.WebhookSubscriptionSpec) {
	spec.Callback.URL = ""
	spec.Callback.URLSecretRef = v1alpha1.SecretKeyReference{Name: "crm-url", Key: "url"}
}

// secretHeaders has calls carry headers that a Secret holds.
func secretHeaders(spec *v1alpha1.WebhookSubscriptionSpec) {
	spec.Callback.Headers = []v1alpha1.CallbackHeader{
		{Name: "X-Tenant", Value: "42"},
		{Name: "Authorization", SecretRef: v1alpha1.SecretKeyReference{Name: "crm-auth", Key: "header"}},
		{Name: "X-Api-Key", SecretRef: v1alpha1.SecretKeyReference{Name: "crm-auth", Key: "api-key"}},
	}
}

const secretValue = "S3CR3T-value"

func TestSecretsOfTheCallback(t *testing.T) {
	const url = "https://crm.example.com:8443/" + secretValue
	const header = "Bearer " + secretValue
	for name, row := range map[string]struct {
		spec    func(*v1alpha1.WebhookSubscriptionSpec)
		secret  string
		data    map[string]string
		reason  string // why it is refused; empty when it is not
		message string
	}{
		"a good URL":                  {secretURL, "crm-url", map[string]string{"url": url}, "", ""},
		"a good URL with a line end":  {secretURL, "crm-url", map[string]string{"url": url + "\n"}, "", ""},
		"no Secret with the URL":      {secretURL, "other", map[string]string{"url": url}, v1alpha1.ReasonSecretNotFound, `There is no Secret "crm-url" in this namespace.`},
		"no data key with the URL":    {secretURL, "crm-url", map[string]string{"URL": url}, v1alpha1.ReasonSecretNotFound, `Secret "crm-url" has no data key "url".`},
		"a URL that is none":          {secretURL, "crm-url", map[string]string{"url": "crm.example.com/" + secretValue}, v1alpha1.ReasonCallbackInvalid, "spec.callback.urlSecretRef is not an absolute http or https URL."},
		"a URL that is forbidden":     {secretURL, "crm-url", map[string]string{"url": "https://10.0.0.8/" + secretValue}, v1alpha1.ReasonCallbackForbidden, "spec.callback.urlSecretRef points to 10.0.0.8, a private address (RFC 1918); --allow-callback-networks={namespace}/10.0.0.8/32 can allow it."},
		"a URL that is not HTTPS":     {secretURL, "crm-url", map[string]string{"url": "http://crm.example.com/" + secretValue}, v1alpha1.ReasonCallbackForbidden, "spec.callback.urlSecretRef is not HTTPS; --allow-http-callbacks can allow it."},
		"good headers":                {secretHeaders, "crm-auth", map[string]string{"header": header + "\n", "api-key": secretValue}, "", ""},
		"no Secret with headers":      {secretHeaders, "other", map[string]string{}, v1alpha1.ReasonSecretNotFound, `There is no Secret "crm-auth" in this namespace.`},
		"no data key with the first":  {secretHeaders, "crm-auth", map[string]string{"api-key": secretValue}, v1alpha1.ReasonSecretNotFound, `Secret "crm-auth" has no data key "header".`},
		"no data key with the second": {secretHeaders, "crm-auth", map[string]string{"header": header}, v1alpha1.ReasonSecretNotFound, `Secret "crm-auth" has no data key "api-key".`},
		"two lines in a header":       {secretHeaders, "crm-auth", map[string]string{"header": header, "api-key": secretValue + "\nX-Admin: yes"}, v1alpha1.ReasonSecretInvalid, `Secret "crm-auth", data key "api-key": the value has a line break in it.`},
		"an empty header":             {secretHeaders, "crm-auth", map[string]string{"header": "\n", "api-key": secretValue}, v1alpha1.ReasonSecretInvalid, `Secret "crm-auth", data key "header": the value is empty.`},
		"a query under RC4": {func(spec *v1alpha1.WebhookSubscriptionSpec) {
			encrypted(spec)
			secretURL(spec)
			spec.Payload.Encryption.KeySecretRef.Name = "crm-url"
		}, "crm-url", map[string]string{"url": url + "?", "key": "myKey1234"}, v1alpha1.ReasonCallbackInvalid, "spec.callback.urlSecretRef has a query, but payload.encryption.algorithm is RC4"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			secret := b.data(row.secret, row.data)
			subscription := testkit.Subscription(b.namespace, "crm", callbackURL)
			row.spec(&subscription.Spec)
			b.create(subscription)
			b.pass(subscription)
			status, err := json.Marshal(subscription.Status)
			b.Expect(err).NotTo(HaveOccurred())
			b.Expect(string(status)).NotTo(ContainSubstring(secretValue))
			if row.reason != "" {
				b.Expect(b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionFalse, row.reason)).To(HavePrefix(strings.ReplaceAll(row.message, "{namespace}", b.namespace)))
				b.Expect(subscription.Status.SecretVersion(row.secret)).To(BeEmpty())
				return
			}
			b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonValid)
			b.Expect(subscription.Status.CallbackHost).To(HavePrefix("crm.example.com:8443"))
			b.Expect(subscription.Status.Secrets).To(ConsistOf(
				v1alpha1.SecretVersion{Name: row.secret, Version: secret.ResourceVersion},
				HaveField("Name", "crm-signing")))
		})
	}
}

// A Secret that is mended, changed or not needed any more is told by its version.
func TestSecretOfTheCallbackChanges(t *testing.T) {
	b := newBench(t)
	secret := b.data("crm-url", map[string]string{"url": "https://10.0.0.8/"})
	subscription := testkit.Subscription(b.namespace, "crm", callbackURL)
	secretURL(&subscription.Spec)
	b.create(subscription)
	b.pass(subscription)
	b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonCallbackForbidden)

	secret.StringData = map[string]string{"url": "https://crm.example.com/" + secretValue}
	b.update(secret)
	b.pass(subscription)
	b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonValid)
	b.Expect(subscription.Status.CallbackHost).To(Equal("crm.example.com"))

	secret.StringData = map[string]string{"url": "https://shop.example.com/" + secretValue}
	b.update(secret)
	b.pass(subscription)
	b.Expect(subscription.Status.CallbackHost).To(Equal("shop.example.com"))
	b.Expect(subscription.Status.SecretVersion("crm-url")).To(Equal(secret.ResourceVersion))

	subscription.Spec.Callback.URLSecretRef = v1alpha1.SecretKeyReference{}
	subscription.Spec.Callback.URL = callbackURL
	b.update(subscription)
	b.pass(subscription)
	b.Expect(subscription.Status.Secrets).To(ConsistOf(HaveField("Name", "crm-signing")))
}

// Other flags are heeded although the Secret has not changed, in both directions.
func TestGuardOfAKnownSecret(t *testing.T) {
	b := newBench(t)
	b.data("crm-url", map[string]string{"url": "https://10.0.0.8/"})
	b.guard = guard.Policies{Everywhere: guard.Policy{AllowedNetworks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}
	subscription := testkit.Subscription(b.namespace, "crm", callbackURL)
	secretURL(&subscription.Spec)
	b.create(subscription)
	b.pass(subscription)
	b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonValid)

	allowing := b.guard
	b.guard = guard.Policies{}
	b.pass(subscription)
	b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonCallbackForbidden)

	b.guard = allowing
	b.pass(subscription)
	b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonValid)
}

// A spec that is refused for something else has its Secrets looked at once that is
// mended, although they have not changed since the spec before it.
func TestKnownSecretsOfARefusedSpec(t *testing.T) {
	b := newBench(t)
	b.data("crm-auth", map[string]string{"header": "a", "api-key": "b"})
	subscription := testkit.Subscription(b.namespace, "crm", callbackURL)
	secretHeaders(&subscription.Spec)
	b.create(subscription)
	b.pass(subscription)
	b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonValid)

	subscription.Spec.Lists = []string{"newsletter"}
	subscription.Spec.Callback.Headers[1].SecretRef.Key = "absent"
	b.update(subscription)
	b.pass(subscription)
	b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonListNotFound)

	b.create(testkit.List(b.namespace, "newsletter"))
	b.pass(subscription)
	b.Expect(b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound)).To(
		Equal(`Secret "crm-auth" has no data key "absent".`))

	subscription.Spec.Callback.Headers[1].SecretRef.Key = "header"
	b.update(subscription)
	b.pass(subscription)
	b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonValid)
	b.Expect(subscription.Status.Secrets).To(ConsistOf(HaveField("Name", "crm-auth"), HaveField("Name", "crm-signing")))
}

// One Secret may hold everything. A part that is good does not hide one that is not.
func TestOneSecretForEverything(t *testing.T) {
	b := newBench(t)
	secret := b.data("crm", map[string]string{
		signature.SecretKey: goodSecret, "url": "https://crm.example.com/", "header": "a", "api-key": "b",
	})
	subscription := testkit.Subscription(b.namespace, "crm", callbackURL)
	secretURL(&subscription.Spec)
	secretHeaders(&subscription.Spec)
	subscription.Spec.Signing.SecretRef.Name = "crm"
	subscription.Spec.Callback.URLSecretRef.Name = "crm"
	subscription.Spec.Callback.Headers[1].SecretRef.Name = "crm"
	subscription.Spec.Callback.Headers[2].SecretRef.Name = "crm"
	b.create(subscription)
	b.pass(subscription)
	b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonValid)
	b.Expect(subscription.Status.Secrets).To(Equal([]v1alpha1.SecretVersion{{Name: "crm", Version: secret.ResourceVersion}}))

	secret.StringData = map[string]string{"api-key": "two\nlines"}
	b.update(secret)
	b.pass(subscription)
	b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonSecretInvalid)

	secret.StringData = map[string]string{"api-key": "c"}
	b.update(secret)
	b.pass(subscription)
	b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonValid)
	b.Expect(subscription.Status.Secrets).To(Equal([]v1alpha1.SecretVersion{{Name: "crm", Version: secret.ResourceVersion}}))
}

// ofTLS has the callback use a CA bundle and a client certificate.
func ofTLS(spec *v1alpha1.WebhookSubscriptionSpec) {
	spec.Callback.TLS.CASecretRef.Name = "crm-tls"
	spec.Callback.TLS.ClientCertSecretRef.Name = "crm-tls"
}

// byOAuth2 has calls carry a token.
func byOAuth2(spec *v1alpha1.WebhookSubscriptionSpec) {
	spec.Callback.OAuth2.TokenURL = "https://id.example.com/token"
	spec.Callback.OAuth2.ClientSecretRef.Name = "crm-client"
}

func TestSecretsOfTLSAndOAuth2(t *testing.T) {
	authority := testkit.NewAuthority(t)
	certificate, key := authority.Issue(t, nil)
	_, another := authority.Issue(t, nil)
	ca := string(authority.PEM())
	tlsOf := func(ca string, certificate, key []byte) map[string]string {
		return map[string]string{"ca.crt": ca, "tls.crt": string(certificate), "tls.key": string(key)}
	}
	for name, row := range map[string]struct {
		spec    func(*v1alpha1.WebhookSubscriptionSpec)
		secret  string
		data    map[string]string
		reason  string // why it is refused; empty when it is not
		message string
	}{
		"good TLS":                   {ofTLS, "crm-tls", tlsOf(ca, certificate, key), "", ""},
		"no Secret of TLS":           {ofTLS, "other", nil, v1alpha1.ReasonSecretNotFound, `There is no Secret "crm-tls" in this namespace.`},
		"no bundle":                  {ofTLS, "crm-tls", map[string]string{"tls.crt": string(certificate), "tls.key": string(key)}, v1alpha1.ReasonSecretNotFound, `Secret "crm-tls" has no data key "ca.crt".`},
		"no key":                     {ofTLS, "crm-tls", map[string]string{"ca.crt": ca, "tls.crt": string(certificate)}, v1alpha1.ReasonSecretNotFound, `Secret "crm-tls" has no data key "tls.key".`},
		"a bundle that is none":      {ofTLS, "crm-tls", tlsOf(secretValue, certificate, key), v1alpha1.ReasonSecretInvalid, `Secret "crm-tls", data key "ca.crt": no certificate in PEM is in it.`},
		"a certificate that is none": {ofTLS, "crm-tls", tlsOf(ca, []byte(secretValue), key), v1alpha1.ReasonSecretInvalid, `Secret "crm-tls", data key "tls.crt": no certificate in PEM is in it.`},
		"another's key":              {ofTLS, "crm-tls", tlsOf(ca, certificate, another), v1alpha1.ReasonSecretInvalid, `Secret "crm-tls", data key "tls.key": tls.key is no key in PEM of the first certificate in tls.crt.`},
		"TLS of a URL without": {func(spec *v1alpha1.WebhookSubscriptionSpec) {
			ofTLS(spec)
			secretURL(spec)
			spec.Callback.URLSecretRef.Name = "crm-tls"
		}, "crm-tls", map[string]string{"url": "http://crm.example.com/" + secretValue}, v1alpha1.ReasonCallbackForbidden, "spec.callback.urlSecretRef is not HTTPS"},

		"a good client":         {byOAuth2, "crm-client", map[string]string{"client-id": "crm", "client-secret": secretValue + "\n"}, "", ""},
		"no Secret of it":       {byOAuth2, "other", nil, v1alpha1.ReasonSecretNotFound, `There is no Secret "crm-client" in this namespace.`},
		"a client without id":   {byOAuth2, "crm-client", map[string]string{"client-secret": secretValue}, v1alpha1.ReasonSecretNotFound, `Secret "crm-client" has no data key "client-id".`},
		"an empty secret":       {byOAuth2, "crm-client", map[string]string{"client-id": "crm", "client-secret": ""}, v1alpha1.ReasonSecretInvalid, `Secret "crm-client", data key "client-secret": the value is empty.`},
		"a secret of two lines": {byOAuth2, "crm-client", map[string]string{"client-id": "crm", "client-secret": secretValue + "\nb"}, v1alpha1.ReasonSecretInvalid, `Secret "crm-client", data key "client-secret": the value has other than`},
		"a forbidden endpoint": {func(spec *v1alpha1.WebhookSubscriptionSpec) {
			byOAuth2(spec)
			spec.Callback.OAuth2.TokenURL = "https://169.254.169.254/" + secretValue
		}, "crm-client", map[string]string{"client-id": "crm", "client-secret": "a"}, v1alpha1.ReasonCallbackForbidden, "spec.callback.oauth2.tokenURL points to 169.254.169.254"},
		"an endpoint at no port": {func(spec *v1alpha1.WebhookSubscriptionSpec) {
			byOAuth2(spec)
			spec.Callback.OAuth2.TokenURL = "https://id.example.com:0/" + secretValue
		}, "crm-client", map[string]string{"client-id": "crm", "client-secret": "a"}, v1alpha1.ReasonCallbackInvalid, "spec.callback.oauth2.tokenURL has a port outside 1 to 65535."},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			secret := b.data(row.secret, row.data)
			subscription := testkit.Subscription(b.namespace, "crm", callbackURL)
			row.spec(&subscription.Spec)
			b.create(subscription)
			b.pass(subscription)
			status, err := json.Marshal(subscription.Status)
			b.Expect(err).NotTo(HaveOccurred())
			b.Expect(string(status)).NotTo(Or(ContainSubstring(secretValue), ContainSubstring("PRIVATE KEY")))
			if row.reason != "" {
				b.Expect(b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionFalse, row.reason)).To(HavePrefix(row.message))
				return
			}
			b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonValid)
			b.Expect(subscription.Status.SecretVersion(row.secret)).To(Equal(secret.ResourceVersion))
			b.Expect(subscription.Status.CallbackHost).To(Equal("crm.example.com:8443"))
		})
	}
}

// With http allowed, what the schema says of url is said of a Secret's URL too.
func TestTLSOfAURLWithout(t *testing.T) {
	b := newBench(t)
	b.guard = guard.Policies{Everywhere: guard.Policy{AllowHTTP: true}}
	b.data("crm-url", map[string]string{"url": "http://crm.example.com/" + secretValue})
	subscription := testkit.Subscription(b.namespace, "crm", callbackURL)
	secretURL(&subscription.Spec)
	subscription.Spec.Callback.TLS.CASecretRef.Name = "crm-url"
	b.create(subscription)
	b.pass(subscription)
	b.Expect(b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonCallbackInvalid)).To(
		Equal("spec.callback.urlSecretRef is not https, but spec.callback.tls is set."))
}
