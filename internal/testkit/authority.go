package testkit

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"
)

// Authority issues certificates that nobody trusts but who is told to.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority returns an Authority with a key of its own.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{certificate: certificateOf("Test Authority"), key: newKey(t)}
	a.certificate.IsCA = true
	a.certificate.KeyUsage = x509.KeyUsageCertSign
	a.certificate = a.sign(t, a.certificate, a.key)
	return a
}

// PEM returns the Authority's certificate.
func (a *Authority) PEM() []byte { return certificatePEM(a.certificate) }

// Pool returns a pool of nothing but the Authority.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// Issue returns a certificate for 127.0.0.1, for servers and clients, valid from
// an hour ago for a day, and its key, both in PEM. Edit, when not nil, changes it
// before it is signed.
func (a *Authority) Issue(t testing.TB, edit func(*x509.Certificate)) (certificate, key []byte) {
	t.Helper()
	template := certificateOf("Test")
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	if edit != nil {
		edit(template)
	}
	private := newKey(t)
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatalf("encode a key: %v", err)
	}
	return certificatePEM(a.sign(t, template, private)), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}

// IssuePair is Issue for those who serve TLS.
func (a *Authority) IssuePair(t testing.TB, edit func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(a.Issue(t, edit))
	if err != nil {
		t.Fatalf("pair a certificate with its key: %v", err)
	}
	return pair
}

// sign has the Authority sign a certificate of this key.
func (a *Authority) sign(t testing.TB, template *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatalf("sign a certificate: %v", err)
	}
	signed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("parse a certificate: %v", err)
	}
	return signed
}

func certificateOf(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour), BasicConstraintsValid: true,
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("make a key: %v", err)
	}
	return key
}

func certificatePEM(certificate *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})
}
