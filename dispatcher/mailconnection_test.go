package dispatcher

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	clocktesting "k8s.io/utils/clock/testing"

	"postbus.dev/postbus/internal/testkit"
)

const (
	// hostileMost is how much a hostile mail server sends, should nothing stop it.
	hostileMost = 32 << 20
	// hostileBuffers is what the buffers of both ends of a loopback connection may hold.
	hostileBuffers = 8 << 20
	// hostileText is in all that a hostile mail server sends.
	hostileText = "EVIL"
)

// hostileMailServer is a mail server that never ends an answer.
type hostileMailServer struct {
	net.Listener

	certificate *tls.Certificate
	// sent is how many bytes were written before the connection was closed, ended how
	// many connections were.
	sent, ended atomic.Int64
}

// newHostileMailServer starts a server that talks by a script until the test ends.
func newHostileMailServer(t *testing.T, certificate *tls.Certificate, talk func(*hostileMailServer, net.Conn)) *hostileMailServer {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	server := &hostileMailServer{Listener: listener, certificate: certificate}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			talk(server, connection)
			_ = connection.Close()
			server.ended.Add(1)
		}
	}()
	t.Cleanup(func() { NewWithT(t).Expect(listener.Close()).To(Succeed()) })
	return server
}

// flood writes a text again and again.
func (s *hostileMailServer) flood(to io.Writer, text string) {
	block := []byte(strings.Repeat(text, 1+(32<<10)/len(text)))
	for written := 0; written < hostileMost; {
		n, err := to.Write(block)
		written += n
		s.sent.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// say writes an answer and reads the command that follows.
func (s *hostileMailServer) say(connection net.Conn, answer string) bool {
	_, err := io.WriteString(connection, answer)
	if err == nil {
		_, err = bufio.NewReaderSize(connection, 512).ReadString('\n')
	}
	return err == nil
}

func TestEndlessAnswersOfAMailServer(t *testing.T) {
	certificate, authorities := testkit.Certificate(t)
	const greeting = "220 mail.example.com\r\n"
	for name, row := range map[string]struct {
		security MailSecurity
		talk     func(*hostileMailServer, net.Conn)
	}{
		"a greeting of endless lines": {MailStartTLS, func(s *hostileMailServer, c net.Conn) {
			s.flood(c, "220-"+hostileText+"\r\n")
		}},
		"a greeting of one endless line": {MailStartTLS, func(s *hostileMailServer, c net.Conn) {
			s.flood(c, hostileText)
		}},
		"endless lines after EHLO": {MailStartTLS, func(s *hostileMailServer, c net.Conn) {
			if s.say(c, greeting) {
				s.flood(c, "250-"+hostileText+"\r\n")
			}
		}},
		"an endless refusal": {MailPlain, func(s *hostileMailServer, c net.Conn) {
			if s.say(c, greeting) && s.say(c, "250 mail.example.com\r\n") {
				s.flood(c, "550-"+hostileText+"\r\n")
			}
		}},
		"an endless line after STARTTLS": {MailStartTLS, func(s *hostileMailServer, c net.Conn) {
			if !s.say(c, greeting) || !s.say(c, "250-mail.example.com\r\n250 STARTTLS\r\n") {
				return
			}
			if _, err := io.WriteString(c, "220 go on\r\n"); err != nil {
				return
			}
			s.flood(tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*s.certificate}, MinVersion: tls.VersionTLS12}), "250-"+hostileText)
		}},
		"an endless TLS handshake": {MailTLS, func(s *hostileMailServer, c net.Conn) {
			// Records of a handshake message that says it has 64 KiB, the most that
			// crypto/tls takes, after one that is whole.
			s.flood(c, "\x16\x03\x03\x00\x04\x00\x00\x00\x00")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := NewWithT(t)
			hostile := newHostileMailServer(t, certificate, row.talk)
			good := testkit.NewMailServer(t, testkit.MailServerOptions{})
			r := newMailRig(t, good, nil)
			r.options.RootCAs = authorities
			host, port, err := net.SplitHostPort(hostile.Addr().String())
			g.Expect(err).NotTo(HaveOccurred())
			options := r.options.Mail
			r.options.Mail.Server = MailServer{Security: row.security, Host: host, Port: port}
			fake := clocktesting.NewFakeClock(time.Now())
			r.options.Clock = fake
			stop := r.run()
			r.optIn("ada@example.com", nil)

			g.Eventually(hostile.ended.Load, mailTimeout).Should(Equal(int64(1)), "the connection is closed before the time limit")
			g.Expect(hostile.sent.Load()).To(BeNumerically("<", hostileBuffers), "the dispatcher reads no more than its limit")
			wanted := string(mailAnswerTooLong)
			if row.security == MailTLS {
				wanted = "NetworkError" // crypto/tls refuses such messages itself
			}
			g.Eventually(r.mailsBy(wanted), patience).Should(Equal(1))
			stop()
			g.Expect(r.mailRow().Open).To(ConsistOf(HaveField("Attempts", 1)), "it is tried again")
			g.Expect(r.log.String()).NotTo(ContainSubstring(hostileText))

			r.options.Mail = options
			fake.Step(time.Minute)
			r.run()
			g.Eventually(good.Count, patience).Should(Equal(1))
		})
	}
}

// Answers that end are bounded too, over the whole of a connection.
func TestAnswerLimit(t *testing.T) {
	g := NewWithT(t)
	here, there := net.Pipe()
	defer func() { _ = there.Close() }()
	answer := make([]byte, maxMailAnswer)
	go func() {
		command := make([]byte, 1)
		for {
			if _, err := there.Write(answer); err != nil {
				return
			}
			if _, err := there.Read(command); err != nil {
				return
			}
		}
	}()
	limited := &answerLimit{Conn: here}
	for range maxMailSession / maxMailAnswer {
		_, err := io.ReadFull(limited, answer)
		g.Expect(err).NotTo(HaveOccurred(), "an answer as long as the limit is read")
		_, err = limited.Write([]byte("\n"))
		g.Expect(err).NotTo(HaveOccurred())
	}
	_, err := limited.Read(answer)
	g.Expect(err).To(MatchError(errSessionTooLong))
	_, err = there.Write(answer)
	g.Expect(err).To(MatchError(io.ErrClosedPipe), "the connection is closed")
	_, err = limited.Write(nil)
	g.Expect(err).To(HaveOccurred())
	_, err = limited.Read(answer)
	g.Expect(err).To(MatchError(errSessionTooLong), "a limit that was exceeded stays so")
	g.Expect(clippedError{errors.New(strings.Repeat("é", maxErrorText))}.Error()).To(HaveLen(maxErrorText + len("…")))
}
