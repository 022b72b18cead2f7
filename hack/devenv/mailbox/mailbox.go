package mailbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

const (
	// maxMail is how large a mail may be, maxKept how many are kept; the oldest
	// go first.
	maxMail = 4 << 20
	maxKept = 1000
	// idleTimeout is when a silent connection is closed.
	idleTimeout = time.Minute
)

// Mail is one mail that was sent.
type Mail struct {
	// To is the recipient's address, Subject what the mail says it is about.
	To, Subject string
	// Text is its plain text.
	Text string
	// Confirm is the first link in the text that confirms, empty when it has none.
	Confirm string
}

// String shows the mail in one line of printable characters.
func (m Mail) String() string {
	line := fmt.Sprintf("to %s: %s  %s", m.To, m.Subject, m.Confirm)
	return strings.Map(func(char rune) rune {
		if char < ' ' || char == 0x7f {
			return ' '
		}
		return char
	}, line)
}

// Mailbox takes mails and keeps them. New makes one.
type Mailbox struct {
	tell func(line string)

	mu    sync.Mutex
	mails []Mail
}

// New returns a mailbox that tells of each mail in one line.
func New(tell func(line string)) *Mailbox { return &Mailbox{tell: tell} }

// Mails returns the mails that are kept, oldest first.
func (b *Mailbox) Mails() []Mail {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.mails)
}

// Serve takes mails until the context ends, and closes the listener.
func (b *Mailbox) Serve(ctx context.Context, listener net.Listener) error {
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &session{box: b}, nil }))
	server.EnableSMTPUTF8 = true
	server.MaxMessageBytes = maxMail
	server.ReadTimeout, server.WriteTimeout = idleTimeout, idleTimeout
	server.ErrorLog = log.New(io.Discard, "", 0)
	defer context.AfterFunc(ctx, func() {
		_ = listener.Close() // the server knows it only once it serves
		_ = server.Close()
	})()
	if err := server.Serve(listener); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve the mailbox: %w", err)
	}
	return nil
}

func (b *Mailbox) keep(m Mail) {
	b.mu.Lock()
	b.mails = append(b.mails, m)
	if len(b.mails) > maxKept {
		b.mails = slices.Delete(b.mails, 0, len(b.mails)-maxKept)
	}
	b.mu.Unlock()
	b.tell(m.String())
}

// session is one connection.
type session struct {
	box *Mailbox
	to  string
}

// Mail implements smtp.Session.
func (s *session) Mail(string, *smtp.MailOptions) error { return nil }

// Rcpt implements smtp.Session.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = to
	return nil
}

// Data implements smtp.Session.
func (s *session) Data(content io.Reader) error {
	parsed, err := read(content)
	if err != nil {
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 6, 0}, Message: err.Error()}
	}
	parsed.To = s.to
	s.box.keep(parsed)
	return nil
}

// Reset implements smtp.Session.
func (s *session) Reset() { s.to = "" }

// Logout implements smtp.Session.
func (s *session) Logout() error { return nil }

var confirmLink = regexp.MustCompile(`https?://\S+/confirm/[A-Za-z0-9_-]+`)

// read reads a mail of text, or of text and HTML.
func read(content io.Reader) (Mail, error) {
	message, err := mail.ReadMessage(content)
	if err != nil {
		return Mail{}, fmt.Errorf("read the mail: %w", err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(message.Header.Get("Subject"))
	if err != nil {
		return Mail{}, fmt.Errorf("read the subject: %w", err)
	}
	text, err := plainText(message)
	if err != nil {
		return Mail{}, fmt.Errorf("read the text: %w", err)
	}
	return Mail{Subject: subject, Text: text, Confirm: confirmLink.FindString(text)}, nil
}

// plainText returns the text/plain of a message.
func plainText(message *mail.Message) (string, error) {
	kind, parameters, err := mime.ParseMediaType(message.Header.Get("Content-Type"))
	if err != nil {
		return "", err
	}
	if !strings.HasPrefix(kind, "multipart/") {
		return decode(message.Body, message.Header.Get("Content-Transfer-Encoding"))
	}
	parts := multipart.NewReader(message.Body, parameters["boundary"])
	for {
		part, err := parts.NextPart() // it decodes quoted-printable
		if errors.Is(err, io.EOF) {
			return "", errors.New("there is no text/plain")
		}
		if err != nil {
			return "", err
		}
		if kind, _, err := mime.ParseMediaType(part.Header.Get("Content-Type")); err == nil && kind == "text/plain" {
			return decode(part, part.Header.Get("Content-Transfer-Encoding"))
		}
	}
}

func decode(body io.Reader, encoding string) (string, error) {
	if strings.EqualFold(encoding, "quoted-printable") {
		body = quotedprintable.NewReader(body)
	}
	var text bytes.Buffer
	_, err := io.Copy(&text, body)
	return text.String(), err
}
