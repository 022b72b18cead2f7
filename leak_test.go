package main

import (
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/apikey"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/jwe"
	"postbus.dev/postbus/internal/link"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/store/sqlite"
	"postbus.dev/postbus/internal/testkit"
)

// leakScene is an installation whose secrets are known, and what it has shown.
type leakScene struct {
	t            *testing.T
	installation *installation
	namespace    string
	receiver     *testkit.Receiver
	mailServer   *gossip
	collector    *testkit.Collector
	// secrets are by what they are.
	secrets map[string]string
	// tokens are of links; the page that a link leads to may show its own.
	tokens map[string]string
	// answers and pages are what ingress has answered.
	answers, pages strings.Builder
}

// TestSecretsLeakNowhere makes good calls and every mistake, has callbacks fail,
// and then searches all that anybody can see for secrets.
func TestSecretsLeakNowhere(t *testing.T) {
	g := NewWithT(t)
	s := newLeakScene(t)
	process := s.installation.start()
	s.waitUntilSeen()
	s.makeCalls()
	s.visitPages()
	g.Eventually(s.deliveriesFailed, patience).Should(Succeed())
	s.body(http.MethodPost, "http://"+s.installation.ingress+"/webhooks/contacts/email", "application/x-www-form-urlencoded",
		url.Values{"key": {s.secrets["the key"]}, "email": {"grace@example.com"}, "doi": {"true"}}.Encode())
	g.Eventually(s.mailServer.tries.Load, patience).Should(BeNumerically(">", 0))

	metrics := s.body(http.MethodGet, "http://"+s.installation.metrics+"/metrics", "", "")
	g.Expect(metrics).To(ContainSubstring("postbus_ingress_requests_total"))
	status, events := s.status(), s.events()
	process.signal(syscall.SIGTERM)
	g.Expect(process.err).NotTo(HaveOccurred())
	g.Expect(s.collector.Tries()).To(BeNumerically(">", 0))
	traces := s.collector.Text()
	g.Expect(traces).To(And(ContainSubstring("/webhooks/contacts/email"), ContainSubstring("deliver"), Not(ContainSubstring("@example"))))
	logs := process.output.String()
	g.Expect(logs).To(And(ContainSubstring("level=DEBUG"), ContainSubstring("answered a request")))

	for place, text := range map[string]string{
		"logs": logs, "metrics": metrics, "status": status, "events": events, "answers": s.answers.String(), "traces": traces,
	} {
		g.Expect(leaks(text, s.secrets)).To(BeEmpty(), place)
		g.Expect(leaks(text, s.tokens)).To(BeEmpty(), place)
	}
	g.Expect(leaks(s.pages.String(), s.secrets)).To(BeEmpty(), "pages")
}

// newLeakScene makes the secrets and the objects that have them.
func newLeakScene(t *testing.T) *leakScene {
	t.Helper()
	g := NewWithT(t)
	s := &leakScene{
		t: t, installation: newInstallation(t), namespace: plane.Namespace(t), receiver: testkit.NewReceiver(t),
		secrets: map[string]string{
			"the key":                       apikey.Generate(),
			"a rotated key":                 apikey.Generate(),
			"a key that is too weak":        "weak+key/äé",
			"the signing secret":            signature.GenerateSecret(v1alpha1.SigningHMAC),
			"the signing secret before it":  signature.GenerateSecret(v1alpha1.SigningHMAC),
			"a signing secret that is bad":  "whsec_not base64 + but=secret",
			"the private key":               signature.GenerateSecret(v1alpha1.SigningEd25519),
			"a private key that is bad":     "whsk_not base64 + but=secret",
			"the encryption key":            "rc4 key + äé" + apikey.Generate(),
			"an encryption key that is bad": "another rc4 key " + apikey.Generate() + "\n",
			"the JWE key":                   ("jwe-" + apikey.Generate())[:jwe.SharedKeyBytes],
			"a JWE key that is bad":         "bad-jwe-" + apikey.Generate(),
			"the callback's token":          "callback-token-" + apikey.Generate(),
			"the mail server's password":    `p+ss w/"rd%&äöü`,
		},
	}
	maps.Copy(s.secrets, callbackSecrets())
	s.secrets["the collector's token"] = "collector-" + apikey.Generate()
	s.collector = testkit.NewCollector(t)
	s.collector.Gossip()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", s.collector.URL())
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization="+s.secrets["the collector's token"])
	s.mailServer = newGossip(t, s.secrets["the mail server's password"])
	credentials := t.TempDir()
	g.Expect(os.WriteFile(filepath.Join(credentials, "username"), []byte("postbus"), 0o600)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(credentials, "password"), []byte(s.mailServer.password), 0o600)).To(Succeed())
	s.installation.flags = []string{
		"--log-level=debug", "--public-url=http://" + s.installation.ingress, "--mail-from=news@example.com",
		"--smtp-server=smtps://" + s.mailServer.address, "--smtp-credentials=" + credentials,
	}
	s.makeTokens()

	slow := testkit.ApiKey(s.namespace, "slow", "newsletter")
	slow.Spec.RateLimit.RequestsPerSecond = 1
	slow.Spec.Scopes = []v1alpha1.ApiKeyScope{v1alpha1.ScopeContactsRead}
	form := testkit.ApiKey(s.namespace, "form", "newsletter")
	form.Spec.Scopes = append(form.Spec.Scopes, v1alpha1.ScopeContactsRead, v1alpha1.ScopeContactsImport, v1alpha1.ScopeContactsRemove)
	s.receiver.AnswerWith(s.echo)
	token := "/hook?token=" + s.secrets["the callback's token"]
	objects := []client.Object{
		s.secret("form", apikey.SecretKey, "the key"), s.secret("slow", apikey.SecretKey, "a rotated key"),
		s.secret("weak", apikey.SecretKey, "a key that is too weak"),
		s.signing("signing", "the signing secret", "the signing secret before it"),
		s.signing("unsigned", "a signing secret that is bad", "the signing secret"),
		s.signing("private", "the private key", "the signing secret"),
		s.signing("half-signed", "the private key", "a private key that is bad"),
		s.secret("encryption", "key", "the encryption key"),
		s.secret("unencrypted", "key", "an encryption key that is bad"),
		s.secret("jwe", "key", "the JWE key"), s.secret("bad-jwe", "key", "a JWE key that is bad"),
		testkit.List(s.namespace, "newsletter"),
		form, slow, testkit.ApiKey(s.namespace, "weak", "newsletter"),
		s.subscription("failing", s.receiver.URL()+token, "signing"),
		s.subscription("refused", "http://"+freeAddress(t)+token, "signing"),
		s.subscription("not-tls", strings.Replace(s.receiver.URL(), "http", "https", 1)+token, "signing"),
		s.subscription("bad", s.receiver.URL()+token, "unsigned"),
		s.subscription("by-key", s.receiver.URL()+token, "private"),
		s.subscription("bad-before", s.receiver.URL()+token, "half-signed"),
		s.encrypted("encrypted", "encryption"),
		s.encrypted("bad-encrypted", "unencrypted"),
		s.sealed("sealed", "jwe"),
		s.sealed("bad-sealed", "bad-jwe"),
	}
	for _, object := range append(objects, s.callbackObjects()...) {
		g.Expect(plane.Client.Create(t.Context(), object)).To(Succeed())
		if _, isSecret := object.(*corev1.Secret); !isSecret {
			dropFinalizers(t, object)
		}
	}
	return s
}

func (s *leakScene) secret(name, key, value string) client.Object {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name},
		StringData: map[string]string{key: s.secrets[value]},
	}
}

// signing makes a Secret with a signing secret and the one before it.
func (s *leakScene) signing(name, current, previous string) client.Object {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name},
		StringData: map[string]string{signature.SecretKey: s.secrets[current], signature.PreviousKey: s.secrets[previous]},
	}
}

func (s *leakScene) subscription(name, url, secret string) client.Object {
	subscription := testkit.Subscription(s.namespace, name, url)
	subscription.Spec.Signing.SecretRef.Name = secret
	return subscription
}

// encrypted returns a subscription whose calls are encrypted with the key in a
// Secret.
func (s *leakScene) encrypted(name, secret string) client.Object {
	subscription := testkit.Subscription(s.namespace, name, s.receiver.URL()+"/hook/"+s.secrets["the callback's token"])
	subscription.Spec.Signing.SecretRef.Name = "signing"
	subscription.Spec.Callback.Method = v1alpha1.MethodGet
	subscription.Spec.Payload = v1alpha1.Payload{
		Format:     v1alpha1.FormatMailUp,
		Parameters: []v1alpha1.PayloadParameter{{Name: "email", Value: "[Email]"}},
		Encryption: v1alpha1.Encryption{
			Algorithm: v1alpha1.EncryptionRC4, KeySecretRef: v1alpha1.SecretKeyReference{Name: secret, Key: "key"},
		},
	}
	return subscription
}

// sealed returns a subscription whose calls are encrypted by JWE.
func (s *leakScene) sealed(name, secret string) client.Object {
	subscription := testkit.Subscription(s.namespace, name, s.receiver.URL()+"/hook/"+s.secrets["the callback's token"])
	subscription.Spec.Signing.SecretRef.Name = "signing"
	subscription.Spec.Payload.Encryption = v1alpha1.Encryption{
		Algorithm: v1alpha1.EncryptionJWE, KeySecretRef: v1alpha1.SecretKeyReference{Name: secret, Key: "key"},
	}
	return subscription
}

// linkSecret reads the secret of the one link key of a store.
func linkSecret(t *testing.T, path string) (secret string) {
	t.Helper()
	g := NewWithT(t)
	db, err := sql.Open("sqlite", path)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(db.Close()).To(Succeed()) }()
	g.Expect(db.QueryRowContext(t.Context(), `SELECT secret FROM link_keys`).Scan(&secret)).To(Succeed())
	return secret
}

// makeTokens makes the store, and links for its first contact.
func (s *leakScene) makeTokens() {
	s.t.Helper()
	g := NewWithT(s.t)
	opened, err := sqlite.Open(s.t.Context(), s.installation.store)
	g.Expect(err).NotTo(HaveOccurred())
	key := testkit.LinkKeys(s.t, opened)
	g.Expect(opened.Close()).To(Succeed())
	s.secrets["the key of links"] = linkSecret(s.t, s.installation.store)
	s.tokens = map[string]string{}
	for name, purpose := range map[string]link.Purpose{"confirm": link.Confirm, "unsubscribe": link.Unsubscribe, "profile": link.Profile} {
		l := link.Link{
			Purpose: purpose, List: contact.ListKey{Namespace: s.namespace, Name: "newsletter"}, Contact: 1, Expires: time.Now().Add(time.Hour),
		}
		s.tokens[name] = key.Token(l)
		l.Expires = time.Now().Add(-time.Hour)
		s.tokens["expired "+name] = key.Token(l)
	}
}

// waitUntilSeen waits until the controller has looked at everything and the
// keys work.
func (s *leakScene) waitUntilSeen() {
	s.t.Helper()
	g := NewWithT(s.t)
	g.Eventually(s.status, patience).ShouldNot(ContainSubstring(`"reason":"Progressing"`))
	g.Eventually(func() bool { return post(s.t, s.installation.ingress, s.secrets["the key"], "ada@example.com") }, patience).Should(BeTrue())
}

// makeCalls makes every mistake that somebody with a good key can make.
func (s *leakScene) makeCalls() {
	s.t.Helper()
	const contacts, form = "/webhooks/contacts/email", "application/x-www-form-urlencoded"
	for name, key := range s.secrets {
		good := url.Values{"key": {key}, "email": {"ada@example.com"}}.Encode()
		for _, call := range [][4]string{
			{"POST", contacts + "?" + good},
			{"POST", contacts, form, good},
			{"POST", contacts + "?" + good + "&key=" + url.QueryEscape(key)},
			{"POST", contacts + "?" + good + "&a=%zz"},
			{"GET", contacts + "?" + good},
			{"PUT", contacts + "?" + good},
			{"POST", contacts + "?" + good, "text/plain", key},
			{"POST", contacts, "application/json", good},
			{"POST", contacts, "application/json", `{"key":"` + key},
			{"POST", contacts, "application/json", `{"key":["` + key + `"]}`},
			{"POST", contacts, "application/json", `{"email":"` + key + `","key":"` + key + `"}`},
			{"POST", contacts, form, good + "&permission=" + key},
			{"POST", contacts, form, good + "&standard_GENDER=" + key},
			{"POST", contacts, form, good + "&doi=true&doimailing=" + key},
			{"POST", contacts, form, good + "&doi=" + key},
			{"POST", contacts, form, good + "&external_id=" + strings.Repeat(key, 20)},
			{"POST", "/webhooks/contacts/delete", form, good + "&forget=" + key},
			{"POST", "/webhooks/contacts/unsubscribe", form, good + "&reason=" + key},
			{"POST", "/webhooks/contacts/import?" + good, "application/x-ndjson", `{"email":"` + key + `"}`},
			{"POST", "/webhooks/contacts/import?" + good + "&skip=" + url.QueryEscape(key), "text/csv", key},
			{"POST", "/" + url.PathEscape(key)},
			{"POST", contacts + "/" + url.PathEscape(key)},
			{"GET", "/" + url.PathEscape(key) + "/readyz"},
			{"POST", contacts + "%3F" + good},
			{"GET", "/v1/lists/" + url.PathEscape(key) + "/contacts"},
			{"GET", "/v1/lists/newsletter/contacts/" + url.PathEscape(key)},
			{"GET", "/v1/lists/newsletter/contacts?" + good},
			{"GET", "/confirm/" + url.PathEscape(key)},
			{"POST", "/profile/" + url.PathEscape(key), form, good},
		} {
			s.answers.WriteString(s.body(call[0], "http://"+s.installation.ingress+call[1], call[2], call[3]))
		}
		s.t.Logf("made all mistakes with %s", name)
	}
}

// visitPages follows good, bad and expired links.
func (s *leakScene) visitPages() {
	s.t.Helper()
	for name, token := range s.tokens {
		_, purpose, expired := strings.Cut(name, "expired ")
		if !expired {
			purpose = name
		}
		base := "http://" + s.installation.ingress
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut} {
			for _, path := range []string{"/" + purpose + "/" + token, "/" + purpose + "/" + token + "?token=" + token} {
				s.pages.WriteString(s.body(method, base+path, "application/x-www-form-urlencoded", "token="+token))
			}
			for _, path := range []string{
				"/" + purpose + "/" + token + "x", "/" + purpose + "/" + token + "/", "/" + token, "/else/" + token, "/" + purpose + "?token=" + token,
			} {
				s.answers.WriteString(s.body(method, base+path, "", ""))
			}
		}
	}
}

// body makes a call and returns all of its answer.
func (s *leakScene) body(method, address, contentType, body string) string {
	s.t.Helper()
	g := NewWithT(s.t)
	request, err := http.NewRequestWithContext(s.t.Context(), method, address, strings.NewReader(body))
	g.Expect(err).NotTo(HaveOccurred())
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(response.Body.Close()).To(Succeed()) }()
	text, err := io.ReadAll(response.Body)
	g.Expect(err).NotTo(HaveOccurred())
	return fmt.Sprintln(response.Status, response.Header, string(text))
}

// deliveriesFailed tells whether each callback has failed.
func (s *leakScene) deliveriesFailed() error {
	var subscriptions v1alpha1.WebhookSubscriptionList
	if err := plane.Client.List(s.t.Context(), &subscriptions, client.InNamespace(s.namespace)); err != nil {
		return err
	}
	for _, subscription := range subscriptions.Items {
		text, err := json.Marshal(subscription.Status)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(subscription.Name, "bad") && !strings.Contains(string(text), `"lastFailure`) {
			return fmt.Errorf("%s has not failed: %s", subscription.Name, text)
		}
	}
	return nil
}

// status returns all of our objects but what users wrote into them.
func (s *leakScene) status() string {
	s.t.Helper()
	g := NewWithT(s.t)
	var shown strings.Builder
	for _, kind := range []string{"ContactList", "ApiKey", "WebhookSubscription"} {
		objects := &unstructured.UnstructuredList{}
		objects.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind + "List"))
		g.Expect(plane.Client.List(s.t.Context(), objects, client.InNamespace(s.namespace))).To(Succeed())
		for _, object := range objects.Items {
			delete(object.Object, "spec")
			text, err := json.Marshal(object.Object)
			g.Expect(err).NotTo(HaveOccurred())
			shown.Write(text)
		}
	}
	return shown.String()
}

// events returns all events of the namespace.
func (s *leakScene) events() string {
	s.t.Helper()
	g := NewWithT(s.t)
	var found corev1.EventList
	g.Expect(plane.Client.List(s.t.Context(), &found, client.InNamespace(s.namespace))).To(Succeed())
	g.Expect(found.Items).NotTo(BeEmpty())
	text, err := json.Marshal(found.Items)
	g.Expect(err).NotTo(HaveOccurred())
	return string(text)
}

// leaks returns what a text shows of secrets, as "NAME as FORM".
func leaks(text string, secrets map[string]string) (found []string) {
	for name, secret := range secrets {
		for form, disguised := range disguises(secret) {
			if strings.Contains(text, disguised) {
				found = append(found, name+" as "+form)
			}
		}
	}
	slices.Sort(found)
	return found
}

// disguises returns a secret in the forms in which it can be shown.
func disguises(secret string) map[string]string {
	quoted := strconv.Quote(secret)
	forms := map[string]string{
		"it is": secret, "in a query": url.QueryEscape(secret), "in a path": url.PathEscape(secret), "quoted": quoted[1 : len(quoted)-1],
		"HTML": html.EscapeString(secret), "hexadecimal": hex.EncodeToString([]byte(secret)),
	}
	for name, encoding := range map[string]*base64.Encoding{"Base64": base64.RawStdEncoding, "Base64 for URLs": base64.RawURLEncoding} {
		for before := range 3 { // what stands before it shifts its bits
			encoded := encoding.EncodeToString([]byte(strings.Repeat("x", before) + secret))
			shared := (before*8 + 5) / 6 // characters that hold bits of what stands before
			forms[fmt.Sprintf("%s behind %d bytes", name, before)] = encoded[shared : len(encoded)-1]
		}
	}
	return forms
}

// A search that finds nothing proves nothing until it has found something.
func TestLeaksAreFound(t *testing.T) {
	const secret = `p+ss w/"rd%&äöü`
	for name, text := range map[string]string{
		"as it is":                  "password=" + secret + ".",
		"in a query":                "?password=" + url.QueryEscape(secret) + "&a=b",
		"in a path":                 "/" + url.PathEscape(secret) + "/",
		"quoted in a log":           "error=" + strconv.Quote("bad password "+secret),
		"Base64":                    base64.StdEncoding.EncodeToString([]byte(secret)),
		"Base64 of basic auth":      base64.StdEncoding.EncodeToString([]byte("user:" + secret)),
		"Base64 of AUTH PLAIN":      base64.StdEncoding.EncodeToString([]byte("\x00postbus\x00" + secret)),
		"Base64 between others":     base64.URLEncoding.EncodeToString([]byte("some" + secret + "thing")),
		"Base64 behind three bytes": base64.RawURLEncoding.EncodeToString([]byte("abc" + secret)),
		"on a page":                 "<p>" + html.EscapeString(secret) + "</p>",
		"a dump":                    fmt.Sprintf("%x", "body "+secret),
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(leaks(text, map[string]string{"the password": secret, "another": "never shown"})).
				To(ContainElement(HavePrefix("the password as ")))
		})
	}
}
