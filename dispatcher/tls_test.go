package dispatcher

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/testkit"
)

// mutual is a receiver that shows a certificate and wants one.
type mutual struct {
	url string

	mu      sync.Mutex
	shows   tls.Certificate
	trusts  *x509.CertPool
	callers []string // the names in their certificates
}

func newMutual(t *testing.T, shows, trusts *testkit.Authority) *mutual {
	t.Helper()
	m := &mutual{}
	m.change(t, shows, trusts)
	server := httptest.NewUnstartedServer(m)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		return &tls.Config{
			MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{m.shows},
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: m.trusts,
		}, nil
	}}
	server.StartTLS()
	t.Cleanup(server.Close)
	m.url = server.URL
	return m
}

// change lets it show a certificate of one authority and trust those of another.
func (m *mutual) change(t *testing.T, shows, trusts *testkit.Authority) {
	t.Helper()
	pair := shows.IssuePair(t, nil)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shows, m.trusts = pair, trusts.Pool()
}

func (m *mutual) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.callers = append(m.callers, r.TLS.PeerCertificates[0].Subject.CommonName)
	w.Header().Set("Connection", "close") // so that each call is a handshake
}

func (m *mutual) lastCaller() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.callers) == 0 {
		return ""
	}
	return m.callers[len(m.callers)-1]
}

// clientPair is what a Secret holds of a client's certificate in this name.
func clientPair(t *testing.T, authority *testkit.Authority, name string) map[string]string {
	t.Helper()
	certificate, key := authority.Issue(t, func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: name} })
	return map[string]string{"tls.crt": string(certificate), "tls.key": string(key)}
}

func TestTLSOfTheSpec(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	servers, clients := testkit.NewAuthority(t), testkit.NewAuthority(t)
	receiver := newMutual(t, servers, clients)
	ca := r.secret("crm-ca", map[string]string{"ca.crt": string(servers.PEM())})
	pair := r.secret("crm-client", clientPair(t, clients, "first"))
	crm := r.subscribe("crm", func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Callback.URL = receiver.url + "/" + secretValue
		s.Spec.Callback.TLS.CASecretRef.Name = "crm-ca"
		s.Spec.Callback.TLS.ClientCertSecretRef.Name = "crm-client"
	})
	r.run()
	r.post("ada@example.com")
	g.Eventually(receiver.lastCaller, patience).Should(Equal("first"))

	r.renew(crm, pair, clientPair(t, clients, "second"))
	g.Eventually(func() string {
		r.post("ada@example.com")
		return receiver.lastCaller()
	}, patience, 50*time.Millisecond).Should(Equal("second"))

	newServers, newClients := testkit.NewAuthority(t), testkit.NewAuthority(t)
	receiver.change(t, newServers, newClients)
	r.post("grace@example.com")
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Health.LastFailure", HaveField("Reason", v1alpha1.FailureTLS)))
	r.renew(crm, ca, map[string]string{"ca.crt": string(servers.PEM()) + string(newServers.PEM())})
	r.renew(crm, pair, clientPair(t, newClients, "third"))
	g.Eventually(receiver.lastCaller, patience).Should(Equal("third"))
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Open", BeEmpty()))
	g.Expect(r.log.String()).NotTo(Or(ContainSubstring("PRIVATE KEY"), ContainSubstring(secretValue)))
}

// callerOf returns a caller and a subscription of this URL that it can be asked to
// call, with Secrets of these names.
func callerOf(t *testing.T, options Options, url string, secrets map[string]map[string]string) (*caller, *subscription) {
	t.Helper()
	signing := signingSecret(t)
	for name, data := range secrets {
		NewWithT(t).Expect(plane.Client.Create(t.Context(), &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: signing.Namespace, Name: name}, StringData: data,
		})).To(Succeed())
	}
	options.Secrets = plane.Client
	return newTestCaller(t, options), &subscription{
		key: store.SubscriptionKey{Namespace: signing.Namespace, Name: "crm"}, format: standard{},
		url: url, method: http.MethodPost, timeout: 5 * time.Second,
		signingSecret: secretPlace{name: signing.Name, key: signature.SecretKey},
	}
}

func aCall() call {
	return call{event: &contact.Event{ID: "evt_1", Type: contact.EventCreate}}
}

func TestWhomTLSTrusts(t *testing.T) {
	usual, ours := testkit.NewAuthority(t), testkit.NewAuthority(t)
	strangers := testkit.NewAuthority(t)
	secrets := map[string]map[string]string{
		"ours":     {"ca.crt": string(ours.PEM())},
		"pair":     clientPair(t, ours, "us"),
		"stranger": clientPair(t, strangers, "them"),
		"broken":   {"ca.crt": secretValue, "tls.crt": secretValue, "tls.key": secretValue},
	}
	hindrance := outcome{verdict: hindered, reason: v1alpha1.FailureSecret}
	good := outcome{verdict: delivered, status: 200}
	for name, row := range map[string]struct {
		shows  *testkit.Authority
		places tlsPlaces
		want   outcome
	}{
		"a bundle and a certificate":               {ours, tlsPlaces{ca: secretPlace{name: "ours", key: "ca.crt"}, clientCert: secretPlace{name: "pair"}}, good},
		"a certificate alone, the usual authority": {usual, tlsPlaces{clientCert: secretPlace{name: "pair"}}, good},
		"a bundle takes the usual one's place":     {usual, tlsPlaces{ca: secretPlace{name: "ours", key: "ca.crt"}, clientCert: secretPlace{name: "pair"}}, because(v1alpha1.FailureTLS)},
		"no bundle":                                {ours, tlsPlaces{clientCert: secretPlace{name: "pair"}}, because(v1alpha1.FailureTLS)},
		"no certificate":                           {ours, tlsPlaces{ca: secretPlace{name: "ours", key: "ca.crt"}}, because(v1alpha1.FailureTLS)},
		"a certificate of strangers":               {ours, tlsPlaces{ca: secretPlace{name: "ours", key: "ca.crt"}, clientCert: secretPlace{name: "stranger"}}, because(v1alpha1.FailureTLS)},
		"a broken bundle":                          {ours, tlsPlaces{ca: secretPlace{name: "broken", key: "ca.crt"}}, hindrance},
		"a broken certificate":                     {ours, tlsPlaces{clientCert: secretPlace{name: "broken"}}, hindrance},
		"a bundle that is not there":               {ours, tlsPlaces{ca: secretPlace{name: "absent", key: "ca.crt"}}, hindrance},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			receiver := newMutual(t, row.shows, ours)
			c, s := callerOf(t, Options{Guard: toReceivers, RootCAs: usual.Pool()}, receiver.url, secrets)
			s.tls = row.places
			o, err := c.attempt(t.Context(), checked(t, s), aCall())
			g.Expect(o).To(Equal(row.want), "%v", err)
			if err != nil {
				g.Expect(err.Error()).NotTo(ContainSubstring(secretValue))
			}
		})
	}
}
