package ingress_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"

	"postbus.dev/postbus/ingress"
)

// mount is a Secret of the type kubernetes.io/tls as the kubelet mounts it:
// tls.crt is a link to ..data/tls.crt, and ..data one that is exchanged.
type mount struct {
	t      *testing.T
	folder string
	writes int
}

func newMount(t *testing.T) *mount {
	t.Helper()
	m := &mount{t: t, folder: t.TempDir()}
	for _, name := range []string{"tls.crt", "tls.key"} {
		NewWithT(t).Expect(os.Symlink(filepath.Join("..data", name), filepath.Join(m.folder, name))).To(Succeed())
	}
	return m
}

// write exchanges what is mounted.
func (m *mount) write(certificate, key []byte) {
	m.t.Helper()
	g := NewWithT(m.t)
	m.writes++
	version := fmt.Sprintf("..version-%d", m.writes)
	g.Expect(os.Mkdir(filepath.Join(m.folder, version), 0o700)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(m.folder, version, "tls.crt"), certificate, 0o600)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(m.folder, version, "tls.key"), key, 0o600)).To(Succeed())
	fresh := filepath.Join(m.folder, "..data_tmp")
	g.Expect(os.Symlink(version, fresh)).To(Succeed())
	g.Expect(os.Rename(fresh, filepath.Join(m.folder, "..data"))).To(Succeed())
	g.Expect(os.RemoveAll(filepath.Join(m.folder, fmt.Sprintf("..version-%d", m.writes-1)))).To(Succeed())
}

func (m *mount) files() ingress.CertificateFiles {
	return ingress.CertificateFiles{
		Certificate: filepath.Join(m.folder, "tls.crt"), Key: filepath.Join(m.folder, "tls.key"),
		ReloadInterval: 5 * time.Millisecond,
	}
}

// issueCertificate returns a certificate for 127.0.0.1 and its key, in PEM.
func issueCertificate(t *testing.T, name string) (certificate, key []byte) {
	t.Helper()
	g := NewWithT(t)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	g.Expect(err).NotTo(HaveOccurred())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(10, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	g.Expect(err).NotTo(HaveOccurred())
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	g.Expect(err).NotTo(HaveOccurred())
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}

// startTLS runs ingress with a certificate named "first".
func startTLS(t *testing.T, change ...func(*ingress.Options)) (*fixture, *mount) {
	t.Helper()
	mounted := newMount(t)
	mounted.write(issueCertificate(t, "first"))
	f := start(t, append(change, func(options *ingress.Options) {
		options.AllowPlainHTTP = false
		options.Certificate = mounted.files()
	})...)
	f.secure = true
	return f, mounted
}

// unverified is how the tests speak TLS: which certificate is served is what
// they find out.
func unverified() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10}
}

func (f *fixture) handshake(t *testing.T) *tls.Conn {
	t.Helper()
	connection := tls.Client(f.dial(t), unverified())
	NewWithT(t).Expect(connection.HandshakeContext(t.Context())).To(Succeed())
	return connection
}

func served(connection *tls.Conn) string {
	return connection.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// postOver sends a contact on a connection and returns the answer's status.
func (f *fixture) postOver(t *testing.T, connection net.Conn, email string) int {
	t.Helper()
	g := NewWithT(t)
	_, err := fmt.Fprintf(connection, "POST %s?%s HTTP/1.1\r\nHost: x\r\n\r\n", contactPath, encode(f.with(email)))
	g.Expect(err).NotTo(HaveOccurred())
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	g.Expect(err).NotTo(HaveOccurred())
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	g.Expect(err).NotTo(HaveOccurred())
	return response.StatusCode
}

func TestCertificateIsReloaded(t *testing.T) {
	g := NewWithT(t)
	f, mounted := startTLS(t)
	open := f.handshake(t)
	g.Expect(served(open)).To(Equal("first"))
	g.Expect(f.postOver(t, open, "max@example.com")).To(Equal(http.StatusOK))
	g.Expect(f.metrics(t)).To(ContainSubstring(
		"postbus_ingress_certificate_expiry_timestamp_seconds " + strconv.FormatFloat(float64(now.AddDate(10, 0, 0).Unix()), 'g', -1, 64) + "\n"))

	mounted.write(issueCertificate(t, "second"))
	g.Eventually(func() string { return served(f.handshake(t)) }).WithTimeout(10 * time.Second).Should(Equal("second"))
	g.Expect(f.postOver(t, open, "max@example.com")).To(Equal(http.StatusOK), "an open connection goes on")

	certificate, _ := issueCertificate(t, "third")
	_, otherKey := issueCertificate(t, "stranger")
	mounted.write(certificate, otherKey)
	const kept = "keep the certificate that is served"
	g.Eventually(f.logs.String).WithTimeout(10 * time.Second).Should(ContainSubstring(kept))
	g.Expect(served(f.handshake(t))).To(Equal("second"))

	mounted.write(issueCertificate(t, "fourth"))
	g.Eventually(func() string { return served(f.handshake(t)) }).WithTimeout(10 * time.Second).Should(Equal("fourth"))
	g.Expect(strings.Count(f.logs.String(), kept)).To(Equal(1))
	g.Expect(f.logs.String()).NotTo(ContainSubstring("PRIVATE KEY"))
}

func TestUnreadableCertificateStopsTheStart(t *testing.T) {
	certificate, key := issueCertificate(t, "first")
	_, otherKey := issueCertificate(t, "stranger")
	for name, row := range map[string]struct {
		certificate, key []byte
		says             string
	}{
		"no certificate":                  {[]byte("none"), key, "failed to find any PEM data in certificate input"},
		"no key":                          {certificate, nil, "failed to find any PEM data in key input"},
		"a key of another certificate":    {certificate, otherKey, "private key does not match public key"},
		"certificate and key exchanged":   {key, certificate, "did find a private key"},
		"a certificate that is cut short": {certificate[:200], key, "failed to find any PEM data in certificate input"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			mounted := newMount(t)
			mounted.write(row.certificate, row.key)
			err := ingress.Run(t.Context(), ingress.Options{
				Address: "127.0.0.1:0", Certificate: mounted.files(), Registerer: prometheus.NewRegistry(),
			})
			g.Expect(err).To(MatchError(And(
				HavePrefix("read the certificate "+mounted.files().Certificate+" and its key "+mounted.files().Key+": "),
				ContainSubstring(row.says), Not(ContainSubstring("\n")),
			)))
		})
	}
}

func TestTLSVersionsAndProtocols(t *testing.T) {
	g := NewWithT(t)
	f, _ := startTLS(t)
	for version, speaks := range map[uint16]bool{
		tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true,
	} {
		config := unverified()
		config.MinVersion, config.MaxVersion = version, version
		err := tls.Client(f.dial(t), config).HandshakeContext(t.Context())
		g.Expect(err == nil).To(Equal(speaks), "%s: %v", tls.VersionName(version), err)
	}
	transport := f.http2(t)
	response := f.postBody(t, transport, encode(f.with("max@example.com")), strings.NewReader(""))
	g.Expect(response.ProtoMajor).To(Equal(2))
	g.Expect(response.StatusCode).To(Equal(http.StatusOK))

	plain := f.dial(t)
	_, err := fmt.Fprintf(plain, "POST %s?%s HTTP/1.1\r\nHost: x\r\n\r\n", contactPath, encode(f.with("eve@example.com")))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(readAnswer(t, plain).status).To(Equal(http.StatusBadRequest), "without TLS nothing is taken")
	g.Expect(f.contact(t, "eve@example.com")).To(BeNil())
}

// http2 returns a transport of its own, so one connection of its own.
func (f *fixture) http2(t *testing.T) *http.Transport {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: unverified(), ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// postBody posts a form over TLS and returns the answer, whose body is closed.
func (f *fixture) postBody(t *testing.T, transport *http.Transport, query string, body io.Reader) *http.Response {
	t.Helper()
	g := NewWithT(t)
	sent, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+f.address+contactPath+"?"+query, body)
	g.Expect(err).NotTo(HaveOccurred())
	sent.Header.Set("Content-Type", formType)
	response, err := transport.RoundTrip(sent)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(response.Body.Close()).To(Succeed())
	return response
}

func TestTrustedProxies(t *testing.T) {
	ours := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/30")}
	for name, row := range map[string]struct {
		proxies []netip.Prefix
		header  string
		status  int
	}{
		"a trusted proxy that was spoken to by HTTPS": {ours, "X-Forwarded-Proto: https\r\n", 200},
		"the header in another spelling":              {ours, "x-forwarded-proto:https\r\n", 200},
		"a trusted proxy that was spoken to by HTTP":  {ours, "X-Forwarded-Proto: http\r\n", 403},
		"a trusted proxy that says nothing":           {ours, "", 403},
		"the value in capitals":                       {ours, "X-Forwarded-Proto: HTTPS\r\n", 403},
		"an empty value":                              {ours, "X-Forwarded-Proto:\r\n", 403},
		"a list":                                      {ours, "X-Forwarded-Proto: https, https\r\n", 403},
		"a list that the caller began":                {ours, "X-Forwarded-Proto: https,http\r\n", 403},
		"the header twice":                            {ours, "X-Forwarded-Proto: https\r\nX-Forwarded-Proto: https\r\n", 403},
		"the header twice, empty once":                {ours, "X-Forwarded-Proto: https\r\nX-Forwarded-Proto:\r\n", 403},
		"another header that some proxies send":       {ours, "Forwarded: proto=https\r\n", 403},
		"a caller that is no proxy":                   {ours[:1], "X-Forwarded-Proto: https\r\n", 403},
		"no proxies":                                  {nil, "X-Forwarded-Proto: https\r\n", 403},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			f := start(t, func(options *ingress.Options) {
				options.AllowPlainHTTP = false
				options.TrustedProxies = row.proxies
			})
			connection := f.dial(t)
			_, err := fmt.Fprintf(connection, "POST %s?%s HTTP/1.1\r\nHost: x\r\n%s\r\n",
				contactPath, encode(f.with("max@example.com")), row.header)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(readAnswer(t, connection).status).To(Equal(row.status))
		})
	}
}

func TestStrictTransportSecurity(t *testing.T) {
	g := NewWithT(t)
	const name, value = "Strict-Transport-Security", "max-age=31536000"
	f, _ := startTLS(t)
	transport := f.http2(t)
	for path, status := range map[string]int{
		"/healthz": http.StatusOK, "/readyz": http.StatusOK, "/nowhere": http.StatusNotFound, "/confirm/x": http.StatusNotFound,
		contactPath: http.StatusMethodNotAllowed, importPath: http.StatusMethodNotAllowed, "/v1/lists/newsletter/contacts": http.StatusUnauthorized,
	} {
		sent, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+f.address+path, http.NoBody)
		g.Expect(err).NotTo(HaveOccurred())
		response, err := transport.RoundTrip(sent)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(response.Body.Close()).To(Succeed())
		g.Expect(response.StatusCode).To(Equal(status), path)
		g.Expect(response.Header.Values(name)).To(Equal([]string{value}), path)
	}
	plain := start(t)
	for _, path := range []string{"/healthz", "/confirm/x"} {
		got := plain.send(t, request{method: http.MethodGet, path: path, header: map[string]string{"X-Forwarded-Proto": "https"}})
		g.Expect(got.header).NotTo(HaveKey(name), "a proxy says it where it terminates TLS")
	}
}
