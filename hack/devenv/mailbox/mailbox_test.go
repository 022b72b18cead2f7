package mailbox

import (
	"context"
	"net"
	"net/smtp"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

const multipartMail = `Subject: =?UTF-8?q?Bitte_best=C3=A4tigen?=
Content-Type: multipart/alternative; boundary=b

--b
Content-Type: text/plain; charset=UTF-8
Content-Transfer-Encoding: quoted-printable

Best=C3=A4tigen: http://127.0.0.1:8080/confirm/abc-_=
def
--b
Content-Type: text/html

<a href="http://127.0.0.1:8080/confirm/html">
--b--
`

func TestMailIsKeptAndTold(t *testing.T) {
	for name, row := range map[string]struct {
		mail string
		want Mail
		line string
	}{
		"text and HTML": {
			multipartMail,
			Mail{To: "ada@example.com", Subject: "Bitte bestätigen", Text: "Bestätigen: http://127.0.0.1:8080/confirm/abc-_def", Confirm: "http://127.0.0.1:8080/confirm/abc-_def"},
			"to ada@example.com: Bitte bestätigen  http://127.0.0.1:8080/confirm/abc-_def",
		},
		"text alone": {
			"Subject: Hello\nContent-Type: text/plain\n\nno link",
			Mail{To: "ada@example.com", Subject: "Hello", Text: "no link\r\n"},
			"to ada@example.com: Hello  ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
			g.Expect(err).NotTo(HaveOccurred())
			lines := make(chan string, 1)
			box := New(func(line string) { lines <- line })
			ctx, cancel := context.WithCancel(t.Context())
			served := make(chan error, 1)
			go func() { served <- box.Serve(ctx, listener) }()
			content := strings.ReplaceAll(row.mail, "\n", "\r\n")
			g.Expect(smtp.SendMail(listener.Addr().String(), nil, "news@example.com", []string{"ada@example.com"}, []byte(content))).To(Succeed())
			g.Expect(box.Mails()).To(Equal([]Mail{row.want}))
			g.Expect(<-lines).To(Equal(row.line))
			cancel()
			g.Eventually(served, 10*time.Second).Should(Receive(BeNil()))
		})
	}
}

func TestWhatIsNoMailIsRefused(t *testing.T) {
	for name, content := range map[string]string{
		"no headers":            "hello",
		"a subject in no known": "Subject: =?x-unknown?q?a?=\r\n\r\nhello",
		"no type":               "Subject: a\r\n\r\nhello",
		"no text":               "Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\na\r\n--b--\r\n",
		"an end too early":      "Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := read(strings.NewReader(content))
			NewWithT(t).Expect(err).To(HaveOccurred())
		})
	}
}
