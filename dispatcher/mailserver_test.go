package dispatcher

import (
	"testing"

	. "github.com/onsi/gomega"
)

func TestParseMailServer(t *testing.T) {
	for name, row := range map[string]struct {
		text string
		want MailServer
	}{
		"STARTTLS on its usual port":  {"smtp://mail.example.com", MailServer{MailStartTLS, "mail.example.com", "587"}},
		"STARTTLS on another port":    {"smtp://mail.example.com:2525", MailServer{MailStartTLS, "mail.example.com", "2525"}},
		"TLS on its usual port":       {"smtps://mail.example.com/", MailServer{MailTLS, "mail.example.com", "465"}},
		"no TLS on its usual port":    {"smtp+plain://localhost", MailServer{MailPlain, "localhost", "25"}},
		"an IPv6 address and a port":  {"smtp+plain://[::1]:25", MailServer{MailPlain, "::1", "25"}},
		"a scheme in capital letters": {"SMTP://mail.example.com", MailServer{MailStartTLS, "mail.example.com", "587"}},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(ParseMailServer(row.text)).To(Equal(row.want))
		})
	}
}

func TestParseMailServerRefuses(t *testing.T) {
	for name, row := range map[string]struct{ text, says string }{
		"nothing":            {"", "must begin with smtp://"},
		"a host alone":       {"mail.example.com", "must begin with smtp://"},
		"a host and a port":  {"mail.example.com:587", "must begin with smtp://"},
		"another scheme":     {"https://mail.example.com", "must begin with smtp://"},
		"no host":            {"smtp://:587", "has no host"},
		"a path":             {"smtp://mail.example.com/inbox", "nothing behind host and port"},
		"a query":            {"smtp://mail.example.com?tls=no", "nothing behind host and port"},
		"a port too high":    {"smtp://mail.example.com:65536", `port is "65536"`},
		"port 0":             {"smtp://mail.example.com:0", `port is "0"`},
		"a user":             {"smtp://postbus@mail.example.com", "--smtp-credentials"},
		"a password":         {"smtp://postbus:hunter2@mail.example.com", "--smtp-credentials"},
		"a broken password":  {"smtp://postbus:hunter2%@mail.example.com", "no URL such as"},
		"a port that is not": {"smtp://hunter2:mail", "no URL such as"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseMailServer(row.text)
			NewWithT(t).Expect(err).To(MatchError(And(ContainSubstring(row.says), Not(ContainSubstring("hunter2")))))
		})
	}
}
