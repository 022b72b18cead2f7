package postgres

import (
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"slices"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/store/storetest"
)

// ping is how a pool looks whether a connection is whole that has rested for a second.
const ping = "-- ping\x00"

// wire stands between a store and its server, and reads what the store sends. What
// the store asks by itself, to see how far the log is, is left out, and so are pings.
type wire struct {
	mu      sync.Mutex
	traffic storetest.Traffic
}

// newWire returns a wire to the server of a connection string, and the string to
// use in its place.
func newWire(t *testing.T, dsn string) (w *wire, through string) {
	t.Helper()
	g := NewWithT(t)
	parsed, err := url.Parse(dsn)
	g.Expect(err).NotTo(HaveOccurred())
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	g.Expect(err).NotTo(HaveOccurred())
	w = &wire{}
	server := parsed.Host
	var parts sync.WaitGroup
	parts.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return // the test has ended
			}
			parts.Go(func() { w.serve(t, client, server) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		parts.Wait()
	})
	parsed.Host = listener.Addr().String()
	parsed.RawQuery = url.Values{"sslmode": {"disable"}, poolParameter: {"1"}}.Encode() // which has everything prepared then
	return w, parsed.String()
}

func (w *wire) serve(t *testing.T, client net.Conn, address string) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", address)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = server.Close() }()
	go func() {
		_, _ = io.Copy(client, server) // until either is closed
		_ = client.Close()             // who cancels a query waits for that
	}()
	c := &conversation{t: t, wire: w, texts: map[string]string{}}
	c.forward(client, server)
}

func (w *wire) take() storetest.Traffic {
	w.mu.Lock()
	defer w.mu.Unlock()
	taken := w.traffic
	w.traffic = storetest.Traffic{}
	return taken
}

// conversation is one connection's part of what a wire has read.
type conversation struct {
	t    *testing.T
	wire *wire
	// texts are those of prepared statements, bound is that of the one to be executed.
	texts map[string]string
	bound string
	// waiting: something was sent that the server has not been asked to answer yet.
	waiting bool
}

// forward sends messages on, each after it was read as a whole, until a side is
// closed.
func (c *conversation) forward(from io.Reader, to io.Writer) {
	const lengthSize = 4
	for kind := 0; ; kind = 1 { // the first message has no byte that says its type
		head := make([]byte, kind+lengthSize)
		if _, err := io.ReadFull(from, head); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[kind:])-lengthSize)
		if _, err := io.ReadFull(from, body); err != nil {
			return
		}
		if kind > 0 {
			c.read(head[0], body)
		}
		if _, err := to.Write(slices.Concat(head, body)); err != nil {
			return
		}
	}
}

// read takes note of a message, see "Message Formats" in PostgreSQL's manual.
func (c *conversation) read(kind byte, body []byte) {
	switch kind {
	case 'P':
		var parse pgproto3.Parse
		if err := parse.Decode(body); err != nil {
			c.t.Error(err)
		}
		c.texts[parse.Name] = parse.Query
		c.waiting = parse.Query != selectHead
	case 'B':
		var bind pgproto3.Bind
		if err := bind.Decode(body); err != nil {
			c.t.Error(err)
		}
		c.bound = c.texts[bind.PreparedStatement]
	case 'E':
		c.note(c.bound)
	case 'Q':
		c.note(string(body))
		c.synchronise()
	case 'S':
		c.synchronise()
	}
}

func (c *conversation) note(text string) {
	if text == selectHead || text == ping {
		return
	}
	c.waiting = true
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	c.wire.traffic.Statements = append(c.wire.traffic.Statements, text)
}

func (c *conversation) synchronise() {
	if !c.waiting {
		return
	}
	c.waiting = false
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	c.wire.traffic.RoundTrips++
}
