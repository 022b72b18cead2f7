package testkit

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// MailServer is a real SMTP server on the loopback interface that keeps every
// mail and answers as it is told. It is safe for concurrent use.
type MailServer struct {
	t       testing.TB
	options MailServerOptions
	address string

	mu     sync.Mutex
	server *smtp.Server
	// listener is the server's: it knows it once it has begun to serve.
	listener net.Listener
	ended    chan struct{}
	mails    []Mail
	logins   []string
	answer   MailAnswers
}

// MailServerOptions are what a MailServer is; the zero value offers neither TLS
// nor AUTH.
type MailServerOptions struct {
	// Certificate, when not nil, is what STARTTLS is offered with, or TLS from
	// the first byte where Implicit is set.
	Certificate *tls.Certificate
	Implicit    bool
	// Mechanisms are those of AUTH: PLAIN, LOGIN and SCRAM-SHA-256. Username and
	// Password are who may send then; see MailServer.SetPassword.
	Mechanisms         []string
	Username, Password string
	// UTF8 offers SMTPUTF8.
	UTF8 bool
}

// MailAnswers are what commands are answered with; nil is 250.
type MailAnswers struct {
	// Mail, Recipient and Message answer MAIL, RCPT and the mail itself.
	Mail, Recipient, Message func(mail Mail) error
	// Break breaks the connection when a mail was answered.
	Break bool
}

// Mail is one mail that a MailServer got.
type Mail struct {
	// From and To are the envelope's.
	From, To string
	// UTF8 tells that it came with SMTPUTF8, TLS that it came encrypted.
	UTF8, TLS bool
	// Login is the mechanism that the sender logged in with, empty for none.
	Login string
	// Content is the mail, headers and all.
	Content []byte
}

// MailStatus returns an answer such as 550, as MailAnswers have it.
func MailStatus(code int) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 1, 1}, Message: "told so for this test"}
}

// NewMailServer starts a MailServer that takes every mail and ends with the test.
func NewMailServer(t testing.TB, options MailServerOptions) *MailServer {
	t.Helper()
	s := &MailServer{t: t, options: options, address: "127.0.0.1:0"}
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// Certificate returns a certificate for 127.0.0.1, and who vouches for it.
func Certificate(t testing.TB) (*tls.Certificate, *x509.CertPool) {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	authorities := x509.NewCertPool()
	authorities.AddCert(server.Certificate())
	return &server.TLS.Certificates[0], authorities
}

// Start listens again, at the address of before. It does nothing while the
// server runs.
func (s *MailServer) Start() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != nil {
		return
	}
	listener, err := new(net.ListenConfig).Listen(s.t.Context(), "tcp", s.address)
	if err != nil {
		s.t.Fatalf("start the mail server: %v", err)
	}
	s.address = listener.Addr().String()
	server := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) { return &mailSession{server: s, conn: c}, nil }))
	server.ErrorLog = log.New(io.Discard, "", 0)
	server.EnableSMTPUTF8 = s.options.UTF8
	server.AllowInsecureAuth = true // whether it is used is what tests find out
	if s.options.Certificate != nil {
		config := &tls.Config{Certificates: []tls.Certificate{*s.options.Certificate}, MinVersion: tls.VersionTLS12}
		if s.options.Implicit {
			listener = tls.NewListener(listener, config)
		} else {
			server.TLSConfig = config
		}
	}
	ended := make(chan struct{})
	s.server, s.listener, s.ended = server, listener, ended
	go func() {
		defer close(ended)
		_ = server.Serve(listener) // it ends with Stop
	}()
}

// Stop breaks the open connections and stops listening, so that later ones are
// refused. It may be called twice.
func (s *MailServer) Stop() {
	s.mu.Lock()
	server, listener, ended := s.server, s.listener, s.ended
	s.server = nil
	s.mu.Unlock()
	if server == nil {
		return
	}
	_ = listener.Close()
	_ = server.Close()
	<-ended
}

// Address returns host and port.
func (s *MailServer) Address() string { return s.address }

// Answer makes the server answer so from now on.
func (s *MailServer) Answer(answers MailAnswers) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answers
}

// SetPassword changes the password of who may send.
func (s *MailServer) SetPassword(password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.options.Password = password
}

// Mails returns the mails that were answered with 250, oldest first.
func (s *MailServer) Mails() []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mails)
}

// Count returns the number of mails that were answered with 250.
func (s *MailServer) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mails)
}

// Logins returns the mechanisms of all attempts to log in, good or bad.
func (s *MailServer) Logins() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.logins)
}

func (s *MailServer) answers() MailAnswers {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answer
}

func (s *MailServer) password() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.options.Password
}

// logIn checks a user who comes by a mechanism.
func (s *MailServer) logIn(mechanism, username, password string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logins = append(s.logins, mechanism)
	if username != s.options.Username || password != s.options.Password {
		return &smtp.SMTPError{Code: 535, EnhancedCode: smtp.EnhancedCode{5, 7, 8}, Message: "not " + username + " with " + password}
	}
	return nil
}

// mailSession is one connection to a MailServer.
type mailSession struct {
	server *MailServer
	conn   *smtp.Conn
	login  string
	mail   Mail
	taken  bool
}

// Mail implements smtp.Session.
func (c *mailSession) Mail(from string, options *smtp.MailOptions) error {
	if len(c.server.options.Mechanisms) > 0 && c.login == "" {
		return &smtp.SMTPError{Code: 530, EnhancedCode: smtp.EnhancedCode{5, 7, 0}, Message: "log in first"}
	}
	_, encrypted := c.conn.TLSConnectionState()
	c.mail = Mail{From: from, UTF8: options != nil && options.UTF8, TLS: encrypted, Login: c.login}
	return told(c.server.answers().Mail, c.mail)
}

// Rcpt implements smtp.Session.
func (c *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	c.mail.To = to
	return told(c.server.answers().Recipient, c.mail)
}

// Data implements smtp.Session.
func (c *mailSession) Data(content io.Reader) error {
	var all bytes.Buffer
	if _, err := io.Copy(&all, content); err != nil {
		return err
	}
	c.mail.Content = all.Bytes()
	if err := told(c.server.answers().Message, c.mail); err != nil {
		return err
	}
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	c.server.mails = append(c.server.mails, c.mail)
	c.taken = true
	return nil
}

func told(answer func(Mail) error, mail Mail) error {
	if answer == nil {
		return nil
	}
	return answer(mail)
}

// Reset implements smtp.Session. It comes when a mail was answered.
func (c *mailSession) Reset() {
	if c.taken && c.server.answers().Break {
		_ = c.conn.Conn().Close()
	}
}

// Logout implements smtp.Session.
func (c *mailSession) Logout() error { return nil }

// AuthMechanisms implements smtp.AuthSession.
func (c *mailSession) AuthMechanisms() []string { return c.server.options.Mechanisms }

// Auth implements smtp.AuthSession.
func (c *mailSession) Auth(mechanism string) (sasl.Server, error) {
	check := func(username, password string) error {
		err := c.server.logIn(mechanism, username, password)
		if err == nil {
			c.login = mechanism
		}
		return err
	}
	switch mechanism {
	case sasl.Plain:
		return sasl.NewPlainServer(func(_, username, password string) error { return check(username, password) }), nil
	case sasl.Login:
		return &loginServer{check: check}, nil
	case "SCRAM-SHA-256":
		return &scramServer{password: c.server.password, check: check}, nil
	}
	return nil, smtp.ErrAuthUnknownMechanism
}

// loginServer is the mechanism LOGIN, which asks for the name, then for the
// password.
type loginServer struct {
	check    func(username, password string) error
	username *string
	asked    bool
}

// Next implements sasl.Server.
func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case !l.asked && response == nil:
		l.asked = true
		return []byte("Username:"), false, nil
	case l.username == nil:
		username := string(response)
		l.username = &username
		return []byte("Password:"), false, nil
	case response == nil:
		return nil, false, errors.New("no password")
	}
	return nil, true, l.check(*l.username, string(response))
}
