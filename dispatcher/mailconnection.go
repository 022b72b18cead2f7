package dispatcher

import (
	"errors"
	"fmt"
	"net"
)

const (
	// maxMailAnswer is how many bytes a mail server may send in answer to one command,
	// or before the first. RFC 5321, section 4.5.3.1.5, allows 512 bytes a line, and the
	// answer to EHLO has a line for each extension. A TLS handshake counts as an answer.
	maxMailAnswer = 64 << 10
	// maxMailSession is how many bytes a mail server may send over one connection.
	maxMailSession = 1 << 20
)

var (
	errAnswerTooLong  = fmt.Errorf("mail server's answer has more than %d KiB", maxMailAnswer>>10)
	errSessionTooLong = fmt.Errorf("mail server sent more than %d KiB over one connection", maxMailSession>>10)
)

// answerLimit is a connection to a mail server that bounds what the server may send:
// the SMTP client keeps whole answers in memory, however long they are. It is below TLS,
// so that it bounds the handshake and what comes before STARTTLS too. Reads and writes
// must not run at the same time, as the SMTP client and crypto/tls keep them.
type answerLimit struct {
	net.Conn

	answer, session int
	// err is the limit that was exceeded. It ends the connection.
	err error
}

// Read implements net.Conn. It never reads more than the limits allow.
func (c *answerLimit) Read(p []byte) (int, error) {
	left := min(maxMailAnswer-c.answer, maxMailSession-c.session)
	if left <= 0 && c.err == nil {
		c.err = errAnswerTooLong
		if c.session >= maxMailSession {
			c.err = errSessionTooLong
		}
		c.err = errors.Join(c.err, c.Close())
	}
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.Conn.Read(p[:min(len(p), left)])
	c.answer += n
	c.session += n
	return n, err
}

// Write implements net.Conn. What comes after it is another answer.
func (c *answerLimit) Write(p []byte) (int, error) {
	c.answer = 0
	return c.Conn.Write(p)
}
