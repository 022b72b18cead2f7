package dispatcher

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	clocktesting "k8s.io/utils/clock/testing"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/callback"
	"postbus.dev/postbus/internal/guard"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/testkit"
)

// endpoint is a token endpoint: it gives token-1, token-2 and so on, each for an
// hour, to who is called "crm" and knows the secret.
type endpoint struct {
	receiver *testkit.Receiver

	mu    sync.Mutex
	given int
}

func newEndpoint(t *testing.T) *endpoint {
	t.Helper()
	e := &endpoint{receiver: testkit.NewReceiver(t)}
	e.receiver.AnswerWith(e.answer)
	return e
}

func (e *endpoint) answer(w http.ResponseWriter, r *http.Request) {
	id, secret, _ := r.BasicAuth()
	if id != "crm" || secret != url.QueryEscape(secretValue+"+") || r.FormValue("grant_type") != "client_credentials" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.given++
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"access_token":"token-%d","token_type":"bearer","expires_in":3600}`, e.given)
}

// oauthClient is what a Secret holds of the client that endpoint knows.
var oauthClient = map[string]map[string]string{"crm-client": {"client-id": "crm\n", "client-secret": secretValue + "+\n"}}

func grantAt(tokenURL string) *grant {
	return &grant{tokenURL: tokenURL, scopes: []string{"hooks:write", "all"}, client: secretPlace{name: "crm-client"}}
}

func authorizations(r *testkit.Receiver) (all []string) {
	for _, call := range r.Calls() {
		all = append(all, call.Header.Get("Authorization"))
	}
	return all
}

func TestTokenIsKeptUntilItExpires(t *testing.T) {
	g := NewWithT(t)
	e, receiver := newEndpoint(t), testkit.NewReceiver(t)
	c, s := callerOf(t, Options{Guard: toReceivers}, receiver.URL(), oauthClient)
	now := clocktesting.NewFakePassiveClock(time.Now())
	c.tokens.clock = now
	s.grant = grantAt(e.receiver.URL() + "/token")
	attempt := func() {
		o, err := c.attempt(t.Context(), checked(t, s), aCall())
		g.Expect(o.verdict).To(Equal(delivered), "%v", err)
	}
	var together sync.WaitGroup
	for range 20 {
		together.Go(attempt)
	}
	together.Wait()
	g.Expect(e.receiver.Count()).To(Equal(1), "one fetches, the others wait for it")
	form, err := url.ParseQuery(string(e.receiver.Calls()[0].Body))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(form).To(Equal(url.Values{"grant_type": {"client_credentials"}, "scope": {"hooks:write all"}}))

	now.SetTime(now.Now().Add(59 * time.Minute))
	attempt()
	g.Expect(authorizations(receiver)).To(HaveEach("Bearer token-1"))
	now.SetTime(now.Now().Add(time.Minute))
	attempt()
	g.Expect(authorizations(receiver)).To(ContainElement("Bearer token-2"))
	g.Expect(e.receiver.Count()).To(Equal(2))

	s.grant = grantAt(e.receiver.URL() + "/other")
	attempt()
	g.Expect(authorizations(receiver)).To(ContainElement("Bearer token-3"), "another grant is another token")
}

func TestTokenThatIsRejected(t *testing.T) {
	g := NewWithT(t)
	e, receiver := newEndpoint(t), testkit.NewReceiver(t)
	c, s := callerOf(t, Options{Guard: toReceivers}, receiver.URL(), oauthClient)
	s.grant = grantAt(e.receiver.URL())
	only := func(token string) {
		receiver.AnswerWith(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer "+token {
				w.WriteHeader(http.StatusUnauthorized)
			}
		})
	}
	only("token-1")
	o, _ := c.attempt(t.Context(), checked(t, s), aCall())
	g.Expect(o).To(Equal(outcome{verdict: delivered, status: 200}))

	only("token-2")
	o, _ = c.attempt(t.Context(), checked(t, s), aCall())
	g.Expect(o).To(Equal(outcome{verdict: delivered, status: 200}), "it was revoked")
	g.Expect(authorizations(receiver)).To(Equal([]string{"Bearer token-1", "Bearer token-1", "Bearer token-2"}))
	calls := receiver.Calls()
	g.Expect(calls[2].Body).To(And(Equal(calls[1].Body), Not(BeEmpty())))
	g.Expect(calls[2].Header.Get(signature.HeaderID)).To(Equal("evt_1"))

	only("none")
	o, _ = c.attempt(t.Context(), checked(t, s), aCall())
	g.Expect(o).To(Equal(outcome{verdict: failed, reason: v1alpha1.FailureHTTPStatus, status: http.StatusUnauthorized}))
	g.Expect(e.receiver.Count()).To(Equal(3), "once")
	g.Expect(receiver.Count()).To(Equal(5))
}

// What endpoints can do instead of giving a token. Nothing of it reaches the log,
// nor is the callback called.
func TestTokenErrors(t *testing.T) {
	says := func(status int, kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	const json = "application/json"
	for name, row := range map[string]struct {
		answer http.HandlerFunc
		says   string
	}{
		"wrong credentials":  {says(401, json, `{"error":"invalid_client","error_description":"`+secretValue+`"}`), "fetch a token: the endpoint answers 401, invalid_client"},
		"a code of its own":  {says(400, json, `{"error":"`+secretValue+`"}`), "fetch a token: the endpoint answers 400"},
		"an error without":   {says(503, "text/html", secretValue), "fetch a token: the endpoint answers 503"},
		"no token":           {says(200, json, `{"x":"`+secretValue+`"}`), "the endpoint's answer has no token"},
		"no JSON":            {says(200, json, secretValue), "the endpoint's answer has no token"},
		"a long answer":      {says(200, json, `{"access_token":"`+strings.Repeat("x", maxTokenAnswer)+`"}`), "longer than 64 KiB"},
		"an error with 200":  {says(200, json, `{"error":"invalid_scope","error_uri":"`+secretValue+`"}`), "the endpoint answers 200, invalid_scope"},
		"a redirect":         {http.RedirectHandler("/"+secretValue, http.StatusTemporaryRedirect).ServeHTTP, "the endpoint answers 307"},
		"a hang":             {raw("", holdIt), "context deadline exceeded"},
		"a hang in the body": {raw("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{", holdIt), "context deadline exceeded"},
		"a reset":            {raw("", resetIt), "connection reset"},
		"no HTTP":            {raw("HTTP/1.1 200 OK\r\n"+secretValue+"\r\n\r\n", closeIt), "fetch a token: the answer is no HTTP, or breaks its rules"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			endpoint, receiver := testkit.NewReceiver(t), testkit.NewReceiver(t)
			endpoint.AnswerWith(row.answer)
			c, s := callerOf(t, Options{Guard: toReceivers}, receiver.URL(), oauthClient)
			s.grant = grantAt(endpoint.URL() + "/" + secretValue)
			s.timeout = patience
			if row.says == "context deadline exceeded" {
				s.timeout = 300 * time.Millisecond
			}
			o, err := c.attempt(t.Context(), checked(t, s), aCall())
			g.Expect(o).To(Equal(because(v1alpha1.FailureToken)))
			g.Expect(err).To(MatchError(And(ContainSubstring(row.says), Not(ContainSubstring(secretValue)))))
			g.Expect(receiver.Count()).To(BeZero())
		})
	}
}

// Some endpoints take the credentials in the form only.
func TestTokenByForm(t *testing.T) {
	g := NewWithT(t)
	endpoint, receiver := testkit.NewReceiver(t), testkit.NewReceiver(t)
	endpoint.AnswerWith(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("client_id") != "crm" || r.FormValue("client_secret") != secretValue+"+" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"t","token_type":"Bearer"}`)
	})
	c, s := callerOf(t, Options{Guard: toReceivers}, receiver.URL(), oauthClient)
	s.grant = grantAt(endpoint.URL())
	for range 2 {
		o, err := c.attempt(t.Context(), checked(t, s), aCall())
		g.Expect(o.verdict).To(Equal(delivered), "%v", err)
	}
	g.Expect(authorizations(receiver)).To(Equal([]string{"Bearer t", "Bearer t"}))
}

// A token URL is a callback to the guard.
func TestGuardOfTokenURLs(t *testing.T) {
	g := NewWithT(t)
	e, receiver := newEndpoint(t), testkit.NewReceiver(t)
	names := newNameServer(t)
	names.says("127.0.0.2")
	allowed := guard.Policies{Everywhere: guard.Policy{AllowHTTP: true, AllowedNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}}
	for _, tokenURL := range []string{"http://127.0.0.2/token", "http://169.254.169.254/token", named(t, e.receiver), "http://localhost/"} {
		c, s := callerOf(t, Options{Guard: allowed, Resolver: names.resolver()}, receiver.URL(), oauthClient)
		s.grant = grantAt(tokenURL)
		o, err := c.attempt(t.Context(), checked(t, s), aCall())
		if tokenURL == "http://localhost/" { // which is allowed, but nothing listens there
			g.Expect(o).To(Equal(because(v1alpha1.FailureToken)), "%v", err)
			continue
		}
		g.Expect(o).To(Equal(forbiddenCall), "%s: %v", tokenURL, err)
	}
	g.Expect(e.receiver.Count() + receiver.Count()).To(BeZero())
}

// The endpoint is called with the TLS of the callback.
func TestTokenByTLS(t *testing.T) {
	g := NewWithT(t)
	authority, e := testkit.NewAuthority(t), &endpoint{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(e.answer))
	server.TLS = &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{authority.IssuePair(t, nil)},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: authority.Pool(),
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	receiver := newMutual(t, authority, authority)
	c, s := callerOf(t, Options{Guard: toReceivers}, receiver.url, map[string]map[string]string{
		"crm-client": oauthClient["crm-client"], "ca": {"ca.crt": string(authority.PEM())}, "pair": clientPair(t, authority, "us"),
	})
	s.grant = grantAt(server.URL)
	s.tls = tlsPlaces{ca: secretPlace{name: "ca", key: callback.CAKey}, clientCert: secretPlace{name: "pair"}}
	o, err := c.attempt(t.Context(), checked(t, s), aCall())
	g.Expect(o.verdict).To(Equal(delivered), "%v", err)
}

func TestCredentialsThatCantBeRead(t *testing.T) {
	g := NewWithT(t)
	e, receiver := newEndpoint(t), testkit.NewReceiver(t)
	for name, data := range map[string]map[string]string{
		"client-id is empty":           {"client-secret": secretValue},
		"client-secret is empty":       {"client-id": "crm"},
		"client-secret has other than": {"client-id": "crm", "client-secret": secretValue + "\nx"},
	} {
		c, s := callerOf(t, Options{Guard: toReceivers}, receiver.URL(), map[string]map[string]string{"crm-client": data})
		s.grant = grantAt(e.receiver.URL())
		o, err := c.attempt(t.Context(), checked(t, s), aCall())
		g.Expect(o).To(Equal(outcome{verdict: hindered, reason: v1alpha1.FailureSecret}))
		g.Expect(err).To(MatchError(And(ContainSubstring(name), Not(ContainSubstring(secretValue)))))
	}
	g.Expect(e.receiver.Count() + receiver.Count()).To(BeZero())
}

func TestTokenOfASubscription(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	e := newEndpoint(t)
	r.secret("crm-client", oauthClient["crm-client"])
	r.subscribe("crm", func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Callback.OAuth2 = v1alpha1.OAuth2{
			TokenURL: e.receiver.URL(), ClientSecretRef: v1alpha1.SecretReference{Name: "crm-client"}, Scopes: []string{"a"},
		}
	})
	r.run()
	r.postMany("contact", 5)
	g.Eventually(r.receiver.Count, patience).Should(Equal(5))
	g.Expect(authorizations(r.receiver)).To(HaveEach("Bearer token-1"))
	g.Expect(r.log.String()).NotTo(Or(ContainSubstring(secretValue), ContainSubstring("token-1")))
}
