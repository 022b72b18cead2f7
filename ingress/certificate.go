package ingress

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
)

// errTooManyHTTP2: all other HTTP/2 connections are at work.
var errTooManyHTTP2 = errors.New("too many HTTP/2 connections")

// CertificateFiles are what TLS is served with, both in PEM: the files of a
// mounted Secret of the type kubernetes.io/tls. The zero value means no TLS.
type CertificateFiles struct {
	// Certificate is the path of the certificate, with its chain.
	Certificate string
	// Key is the path of the certificate's private key.
	Key string
	// ReloadInterval is how often the files are looked at; 0 means 5 seconds.
	ReloadInterval time.Duration
}

const defaultReloadInterval = 5 * time.Second

// certificate is what new connections are served with. The files are read every
// few seconds instead of being watched: that costs a tenth of a millisecond, and
// is right for every way in which files are replaced, such as the symbolic link
// ..data that Kubernetes swaps.
type certificate struct {
	files   CertificateFiles
	expiry  prometheus.Gauge
	current atomic.Pointer[tls.Certificate]
}

// loadCertificate reads the files for the first time.
func loadCertificate(files CertificateFiles, expiry prometheus.Gauge) (*certificate, error) {
	c := &certificate{files: files, expiry: expiry}
	loaded, err := c.read()
	if err != nil {
		return nil, err
	}
	c.use(loaded)
	return c, nil
}

func (c *certificate) read() (*tls.Certificate, error) {
	loaded, err := tls.LoadX509KeyPair(c.files.Certificate, c.files.Key)
	if err != nil {
		return nil, fmt.Errorf("read the certificate %s and its key %s: %w", c.files.Certificate, c.files.Key, err)
	}
	return &loaded, nil
}

func (c *certificate) use(loaded *tls.Certificate) {
	c.current.Store(loaded)
	c.expiry.Set(float64(loaded.Leaf.NotAfter.Unix()))
}

// config returns how TLS is spoken.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil },
		// It is called for each handshake; a session that is resumed needs no certificate.
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if !hello.Conn.(*connection).shakeHands(slices.Contains(hello.SupportedProtos, "h2")) {
				return nil, errTooManyHTTP2
			}
			return nil, nil
		},
	}
}

// watch takes up new certificates until the context is done. Connections that
// are open keep the one that they began with.
func (c *certificate) watch(ctx context.Context) {
	interval := c.files.ReloadInterval
	if interval == 0 {
		interval = defaultReloadInterval
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			failures = c.reload(ctx, failures)
		}
	}
}

// reload reads the files again and returns how often that has failed in a row.
// The first failure may be half of an exchange, a certificate that is new beside
// a key that is old; the second is told, the others have nothing to add.
func (c *certificate) reload(ctx context.Context, failures int) int {
	logger := logr.FromContextOrDiscard(ctx)
	loaded, err := c.read()
	if err != nil {
		if failures == 1 {
			logger.Error(err, "keep the certificate that is served", "notAfter", c.current.Load().Leaf.NotAfter)
		}
		return failures + 1
	}
	if !slices.EqualFunc(loaded.Certificate, c.current.Load().Certificate, bytes.Equal) {
		c.use(loaded)
		logger.Info("serving a new certificate", "notAfter", loaded.Leaf.NotAfter)
	}
	return 0
}
