package dispatcher

import (
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/url"
	"strconv"

	"postbus.dev/postbus/internal/mailpolicy"
)

// MailServer is the server that opt-in mails are handed to. The zero value is
// none.
type MailServer struct {
	// Security is how the way to the server is protected.
	Security MailSecurity
	// Host and Port are where it listens. Its certificate must be for Host.
	Host, Port string
}

// MailSecurity is how the way to a mail server is protected.
type MailSecurity string

// The kinds of protection, each by the scheme that names it in a URL.
const (
	// MailStartTLS: the connection is upgraded to TLS (RFC 3207), or not used.
	MailStartTLS MailSecurity = "smtp"
	// MailTLS: TLS from the first byte (RFC 8314).
	MailTLS MailSecurity = "smtps"
	// MailPlain: none, for a relay on the same host.
	MailPlain MailSecurity = "smtp+plain"
)

// defaultPorts are the ports of URLs without one: submission, submission over
// TLS, and relay.
var defaultPorts = map[MailSecurity]string{MailStartTLS: "587", MailTLS: "465", MailPlain: "25"}

// ParseMailServer reads a URL such as smtp://mail.example.com:587. Errors show
// nothing of a user or a password that somebody wrote into it.
func ParseMailServer(text string) (MailServer, error) {
	address, err := url.Parse(text)
	if err != nil {
		return MailServer{}, errors.New("it is no URL such as smtp://mail.example.com:587")
	}
	if address.User != nil {
		return MailServer{}, errors.New("it must not have a user or a password; --smtp-credentials names the folder with them")
	}
	server := MailServer{Security: MailSecurity(address.Scheme), Host: address.Hostname(), Port: address.Port()}
	usual, known := defaultPorts[server.Security]
	if !known || address.Opaque != "" {
		return MailServer{}, errors.New("it must begin with smtp:// (STARTTLS), smtps:// (TLS) or smtp+plain:// (no TLS)")
	}
	if server.Host == "" {
		return MailServer{}, errors.New("it has no host, it must be like smtp://mail.example.com:587")
	}
	if (address.Path != "" && address.Path != "/") || address.RawQuery != "" || address.Fragment != "" {
		return MailServer{}, errors.New("it must have nothing behind host and port")
	}
	if server.Port == "" {
		server.Port = usual
	}
	if port, err := strconv.ParseUint(server.Port, 10, 16); err != nil || port == 0 {
		return MailServer{}, fmt.Errorf("its port is %q, it must be between 1 and 65535", server.Port)
	}
	return server, nil
}

// address returns host and port as they are dialled.
func (s MailServer) address() string { return net.JoinHostPort(s.Host, s.Port) }

// MailOptions are how opt-in mails are sent.
type MailOptions struct {
	// Server takes the mails; they wait in the log while there is none.
	Server MailServer
	// Credentials is the folder with the files username and password, as a
	// Secret of type kubernetes.io/basic-auth is mounted. They are read for each
	// mail. Empty for a server that asks for none.
	Credentials string
	// From is the sender where a mailing names none.
	From *mail.Address
	// Policy says which senders and recipients are allowed. The controller has it too, and
	// the dispatcher looks again before each mail.
	Policy mailpolicy.Policy
	// PublicURL is what links begin with.
	PublicURL *url.URL
}
