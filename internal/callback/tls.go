package callback

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// The data keys of the Secrets for TLS, as cert-manager and kubectl write them.
const (
	CAKey          = "ca.crt"
	CertificateKey = "tls.crt"
	PrivateKeyKey  = "tls.key"
)

// ParseCA reads a bundle of certificates in PEM: those of whom to trust. Anything in
// it that is no certificate is an error.
func ParseCA(bundle []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	for count := 1; ; count++ {
		var block *pem.Block
		if block, bundle = pem.Decode(bundle); block == nil {
			if count == 1 {
				return nil, errors.New("no certificate in PEM is in it")
			}
			return pool, nil
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("part %d of it is no certificate", count)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of it can't be read", count)
		}
		pool.AddCert(certificate)
	}
}

// ParseClientCertificate reads a certificate with its chain, and its key, both in PEM.
func ParseClientCertificate(certificate, key []byte) (tls.Certificate, error) {
	if _, err := ParseCA(certificate); err != nil {
		return tls.Certificate{}, fmt.Errorf("%s: %w", CertificateKey, err)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil { // in words of our own, as nobody promises that those have no key in them
		return tls.Certificate{}, fmt.Errorf("%s is no key in PEM of the first certificate in %s", PrivateKeyKey, CertificateKey)
	}
	return pair, nil
}
