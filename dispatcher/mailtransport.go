package dispatcher

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wneessen/go-mail/smtp"
)

const (
	// messageTimeout is how long the server may take to answer once it has the
	// whole mail. Whoever goes earlier may send a mail twice, so it is what RFC
	// 5321, section 4.5.3.2.6, asks for.
	messageTimeout = 10 * time.Minute
	// quitTimeout bounds the goodbye, which decides nothing.
	quitTimeout = 5 * time.Second
)

var (
	// errNoStartTLS: the server has no STARTTLS, and the mail is not sent without.
	errNoStartTLS = errors.New("mail server does not offer STARTTLS")
	// errNoUTF8: the address needs SMTPUTF8 (RFC 6531), and the server can't.
	errNoUTF8 = errors.New("mail server does not offer SMTPUTF8, which the address needs")
)

// envelope is a mail as it is handed over.
type envelope struct {
	from, to string
	// needsUTF8: an address has more than ASCII before its @.
	needsUTF8 bool
	message   []byte
}

// transport hands mails to the server, each over a connection of its own.
type transport struct {
	server      MailServer
	credentials string
	rootCAs     *x509.CertPool
	// connections holds a value for each connection that is in use, to the
	// transports of other lists too.
	connections chan struct{}
	// goodbyes are the connections that are being closed.
	goodbyes sync.WaitGroup
}

// newTransport returns a transport whose connections count with those of others.
func newTransport(options *Options, connections chan struct{}) *transport {
	return &transport{
		server: options.Mail.Server, credentials: options.Mail.Credentials, rootCAs: options.RootCAs, connections: connections,
	}
}

// handOver returns nil once the server has answered the mail with 250, whatever
// becomes of the connection then. The time limit is that of everything before
// the server has the whole mail.
func (t *transport) handOver(ctx context.Context, mail envelope, limit time.Duration) error {
	select {
	case t.connections <- struct{}{}:
		defer func() { <-t.connections }()
	case <-ctx.Done():
		return ctx.Err()
	}
	dialing, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	connection, err := new(net.Dialer).DialContext(dialing, "tcp", t.server.address())
	if err != nil {
		return cause(ctx, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = connection.Close() })
	defer stop()
	session, err := t.open(connection, limit)
	if err != nil {
		_ = connection.Close()
		return cause(ctx, err)
	}
	if err := send(session, mail); err != nil {
		_ = session.Close()
		return cause(ctx, err)
	}
	t.goodbyes.Go(func() {
		_ = session.UpdateDeadline(quitTimeout) // the mail is delivered, so nothing matters any more
		_ = session.Quit()
		_ = session.Close()
	})
	return nil
}

// cause returns the context's error where that ended the connection.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// open brings a connection to where a mail can be sent.
func (t *transport) open(connection net.Conn, limit time.Duration) (*smtp.Client, error) {
	if err := connection.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, fmt.Errorf("bound the connection: %w", err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.server.Host, RootCAs: t.rootCAs}
	connection = &answerLimit{Conn: connection}
	encrypted := t.server.Security == MailTLS
	if encrypted {
		connection = tls.Client(connection, config)
	}
	session, err := smtp.NewClient(connection, t.server.Host)
	if err != nil {
		return nil, stepError("the connection", err)
	}
	if err := session.Hello(localName()); err != nil {
		return nil, stepError("EHLO", err)
	}
	if t.server.Security == MailStartTLS {
		if offered, _ := session.Extension("STARTTLS"); !offered {
			return nil, errNoStartTLS
		}
		if err := session.StartTLS(config); err != nil {
			return nil, stepError("STARTTLS", err)
		}
		encrypted = true
	}
	if t.credentials == "" {
		return session, nil
	}
	return session, t.logIn(session, encrypted)
}

// localName is how this host calls itself.
func localName() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "localhost"
	}
	return name
}

// logIn logs in with the credentials that are in the folder now.
func (t *transport) logIn(session *smtp.Client, encrypted bool) error {
	username, err := t.credential("username")
	if err != nil {
		return authError{err}
	}
	password, err := t.credential("password")
	if err != nil {
		return authError{err}
	}
	_, offered := session.Extension("AUTH")
	var login smtp.Auth
	switch mechanism := chooseMechanism(offered, encrypted); mechanism {
	case "SCRAM-SHA-256":
		login = smtp.ScramSHA256Auth(username, password)
	case "PLAIN":
		login = smtp.PlainAuth("", username, password, t.server.Host, false)
	case "LOGIN":
		login = smtp.LoginAuth(username, password, t.server.Host, false)
	default:
		return authError{errors.New("mail server offers no mechanism to log in that is safe here: SCRAM-SHA-256, or PLAIN or LOGIN over TLS")}
	}
	if err := stepError(stepAuth, session.Auth(login)); err != nil {
		return authError{err}
	}
	return nil
}

// credential reads a file of the Secret, without the line end that editors add.
func (t *transport) credential(name string) (string, error) {
	content, err := os.ReadFile(filepath.Join(t.credentials, name))
	if err != nil {
		return "", fmt.Errorf("read the credentials of the mail server: %w", err)
	}
	return strings.TrimRight(string(content), "\r\n"), nil
}

// chooseMechanism returns the strongest mechanism that a server offers, empty
// for none. PLAIN and LOGIN show the password to whoever reads along.
func chooseMechanism(offered string, encrypted bool) string {
	known := []string{"SCRAM-SHA-256"}
	if encrypted {
		known = append(known, "PLAIN", "LOGIN")
	}
	all := strings.Fields(strings.ToUpper(offered))
	for _, mechanism := range known {
		if slices.Contains(all, mechanism) {
			return mechanism
		}
	}
	return ""
}

// send returns nil once the server has answered the mail with 250.
func send(session *smtp.Client, mail envelope) error {
	if offered, _ := session.Extension("SMTPUTF8"); mail.needsUTF8 && !offered {
		return errNoUTF8
	}
	session.SkipSMTPUTF8(!mail.needsUTF8)
	if err := session.Mail("<" + mail.from + ">"); err != nil {
		return stepError("MAIL", err)
	}
	if err := session.Rcpt("<" + mail.to + ">"); err != nil {
		return stepError(stepRecipient, err)
	}
	content, err := session.Data()
	if err != nil {
		return stepError(stepData, err)
	}
	// Closing the writer ends the mail, so that one which could not be written
	// whole must not be closed.
	if _, err := content.Write(mail.message); err != nil {
		return stepError(stepMessage, err)
	}
	if err := session.UpdateDeadline(messageTimeout); err != nil {
		return stepError(stepMessage, err)
	}
	return stepError(stepMessage, content.Close())
}
