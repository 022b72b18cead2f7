package dispatcher

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"sync"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/callback"
)

// tlsPlaces tell where the settings of a callback's TLS are; the zero value is that
// of the usual ones.
type tlsPlaces struct {
	// ca is the Secret with those whom to trust, clientCert that with the
	// certificate to show and its key.
	ca, clientCert secretPlace
}

func newTLSPlaces(object *v1alpha1.WebhookSubscription) tlsPlaces {
	spec := &object.Spec.Callback.TLS
	return tlsPlaces{
		ca:         placeOf(object, v1alpha1.SecretKeyReference{Name: spec.CASecretRef.Name, Key: callback.CAKey}),
		clientCert: placeOf(object, v1alpha1.SecretKeyReference{Name: spec.ClientCertSecretRef.Name}),
	}
}

// clients has what calls are made by: one client for the usual settings of TLS, and
// one for those of the subscription, which is made anew when a Secret changes. Calls
// under way end by the one that they began with.
type clients struct {
	options    *Options
	ca         keptSecret[*x509.CertPool]
	clientCert keptSecret[tls.Certificate]

	// mu guards what follows. It is never held while a Secret is read.
	mu sync.Mutex
	// usual and own are made when a call needs them first: of thousands of
	// subscriptions many are hardly ever called.
	usual, own *http.Client
	places     tlsPlaces // that own was made from
}

func newClients(options *Options) *clients {
	return &clients{
		options: options,
		ca:      keptSecret[*x509.CertPool]{title: "CA bundle", reader: options.Secrets, parse: ofOneKey(callback.ParseCA)},
		clientCert: keptSecret[tls.Certificate]{
			title: "client certificate", reader: options.Secrets,
			parse: func(data map[string][]byte, _ string) (tls.Certificate, error) {
				return callback.ParseClientCertificate(data[callback.CertificateKey], data[callback.PrivateKeyKey])
			},
		},
	}
}

func usualTLS(options *Options) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: options.RootCAs}
}

// newClient returns a client for the calls of one subscription, which reaches what its namespace
// may call.
func newClient(options *Options, s *subscription, settings *tls.Config) *http.Client {
	return &http.Client{
		Transport: newCallTransport(options, s.key.Namespace, settings),
		// A redirect is an answer like any other, and not success.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// of returns what calls of a subscription are made by. Secrets are read without the lock.
func (c *clients) of(ctx context.Context, s *subscription) (*http.Client, error) {
	if known := c.known(s); known != nil {
		return known, nil
	}
	settings, err := c.settings(ctx, s)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.own != nil {
		if c.places == s.tls { // another attempt was faster
			return c.own, nil
		}
		c.own.CloseIdleConnections()
	}
	c.own, c.places = newClient(c.options, s, settings), s.tls
	return c.own, nil
}

// known returns the client that needs no Secret, or whose Secrets were read; nil otherwise.
func (c *clients) known(s *subscription) *http.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.own != nil && c.places == s.tls {
		return c.own
	}
	if s.tls.ca.name != "" || s.tls.clientCert.name != "" {
		return nil
	}
	if c.usual == nil {
		c.usual = newClient(c.options, s, usualTLS(c.options))
	}
	return c.usual
}

// settings reads the settings of a subscription's TLS.
func (c *clients) settings(ctx context.Context, s *subscription) (*tls.Config, error) {
	settings := usualTLS(c.options)
	if s.tls.ca.name != "" {
		pool, err := c.ca.get(ctx, s, s.tls.ca)
		if err != nil {
			return nil, err
		}
		settings.RootCAs = pool
	}
	if s.tls.clientCert.name != "" {
		pair, err := c.clientCert.get(ctx, s, s.tls.clientCert)
		if err != nil {
			return nil, err
		}
		settings.Certificates = []tls.Certificate{pair}
	}
	return settings, nil
}

// close frees the connections that are not in use.
func (c *clients) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, client := range []*http.Client{c.usual, c.own} {
		if client != nil {
			client.CloseIdleConnections()
		}
	}
}
