package main

import (
	"crypto/tls"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/testkit"
)

// gossip is a mail server over TLS that lets nobody in, and says to each what
// they logged in with.
type gossip struct {
	address string
	// tries is how many logged in with the password.
	tries    atomic.Int64
	password string
}

func newGossip(t *testing.T, password string) *gossip {
	t.Helper()
	g := NewWithT(t)
	s := &gossip{password: password}
	certificate, _ := testkit.Certificate(t)
	// The process that is tested believes whoever has this certificate.
	trusted := filepath.Join(t.TempDir(), "ca.crt")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}
	g.Expect(os.WriteFile(trusted, pem.EncodeToMemory(block), 0o600)).To(Succeed())
	t.Setenv("SSL_CERT_FILE", trusted)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	g.Expect(err).NotTo(HaveOccurred())
	s.address = listener.Addr().String()
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return gossipSession{server: s}, nil }))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{*certificate}, MinVersion: tls.VersionTLS12}))
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
	})
	return s
}

// gossipSession is a connection to it. Whoever gets past AUTH panics.
type gossipSession struct {
	smtp.Session
	server *gossip
}

func (gossipSession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s gossipSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, username, password string) error {
		if password == s.server.password {
			s.server.tries.Add(1)
		}
		return &smtp.SMTPError{
			Code: 535, EnhancedCode: smtp.EnhancedCode{5, 7, 8}, Message: "no " + username + " has the password " + password,
		}
	}), nil
}

func (gossipSession) Reset() {}

func (gossipSession) Logout() error { return nil }
