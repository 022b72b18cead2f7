package ingress

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
)

// A header of less than smallHeader bytes, as most requests have, needs no other
// room than its connection. Of larger ones maxLargeHeaders are held at a time, each
// of at most maxHeaderBytes, so 2 MiB: thousands of short fields take forty times
// their text in memory. A header is counted for its connection while it is read, and
// for its request from then on: an HTTP/2 connection reads one header at a time, and
// can have many requests.
const (
	smallHeader     = 2 << 10
	maxLargeHeaders = 64
	// fieldOverhead is what HTTP/2 counts for a field beside its text (RFC 9113,
	// section 6.5.2). Compressed fields can be a byte long on the wire.
	fieldOverhead = 32
)

// headerSize returns the bytes of a header that was read over HTTP/2.
func headerSize(r *http.Request) int {
	size := len(r.RequestURI) + len(r.Host)
	for name, values := range r.Header {
		for _, value := range values {
			size += len(name) + len(value) + fieldOverhead
		}
	}
	for name := range r.Trailer {
		size += len(name) + fieldOverhead
	}
	return size
}

// gatedListener accepts connections through a gate. A connection is at work
// only while one of its calls is: one that is idle, or slow with its handshake,
// its header or its body, is closed when a new one needs the room.
type gatedListener struct {
	net.Listener
	gate         *gate
	largeHeaders *gate
	http2        *gate
}

// Accept returns the next connection that may come in.
func (l *gatedListener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if inside := l.gate.enter(func() { _ = accepted.Close() }); inside != nil {
			return &connection{Conn: accepted, pass: inside, largeHeaders: l.largeHeaders, http2: l.http2}, nil
		}
		_ = accepted.Close() // nothing was said on it
	}
}

// connection is one that is inside the gate until it is closed.
type connection struct {
	net.Conn
	pass         *pass
	largeHeaders *gate
	http2        *gate

	mutex    sync.Mutex
	streams  *pass // of http2; nil over HTTP/1
	header   int   // bytes that were read since there was no request
	large    *pass // of the header that is read, nil while that is small
	requests int   // those whose header has been read
}

// Read reads what the caller sent. It closes the connection when it begins a
// large header and there is no room for one.
func (c *connection) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.requests > 0 {
		return n, err // a body
	}
	c.header += n
	if c.header >= smallHeader && c.large == nil {
		if c.large = c.largeHeaders.enter(func() { _ = c.Conn.Close() }); c.large == nil {
			_ = c.Conn.Close()
			return c.Conn.Read(p) // which says that it is closed
		}
	}
	return n, err
}

// begin records that the header of a request has been read. Over HTTP/1 it returns
// the header's pass, which the request has to leave; nil while the header is small.
func (c *connection) begin(protocol int) *pass {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.requests++
	large := c.large
	if protocol < 2 {
		c.large = nil
		return large
	}
	c.forget()
	return nil
}

// end records that a request has been answered.
func (c *connection) end() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.requests--; c.requests == 0 {
		c.forget()
	}
}

// shakeHands records that what was read was a TLS handshake, and no header. Where the
// caller speaks HTTP/2 it returns false when there is no room for another such
// connection.
func (c *connection) shakeHands(http2 bool) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.forget()
	if http2 && c.streams == nil {
		c.streams = c.http2.enter(func() { _ = c.Conn.Close() })
		return c.streams != nil
	}
	return true
}

// forget forgets the header. The mutex is held.
func (c *connection) forget() {
	c.header = 0
	c.large.leave()
	c.large = nil
}

// work records that a request no longer waits for its caller. It returns false when
// the connection was closed to make room.
func (c *connection) work() bool {
	if streams := c.overHTTP2(); streams != nil && !streams.work() {
		return false
	}
	return c.pass.work()
}

// wait ends what work began.
func (c *connection) wait() {
	if streams := c.overHTTP2(); streams != nil {
		streams.wait(0)
	}
	c.pass.wait(0)
}

// overHTTP2 returns the pass of a connection that speaks HTTP/2.
func (c *connection) overHTTP2() *pass {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.streams
}

// Close closes the connection and makes room for another.
func (c *connection) Close() error {
	c.pass.leave()
	c.mutex.Lock()
	c.forget()
	c.streams.leave()
	c.mutex.Unlock()
	return c.Conn.Close()
}

// CloseWrite closes one half, as net/http does so that a caller that still
// sends gets to read its answer.
func (c *connection) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// connectionKey is where a request's context has its connection.
type connectionKey struct{}

func withConnection(ctx context.Context, served net.Conn) context.Context {
	if secure, ok := served.(*tls.Conn); ok {
		served = secure.NetConn()
	}
	return context.WithValue(ctx, connectionKey{}, served)
}

// connectionOf returns the connection of a request that gatedListener accepted.
func connectionOf(ctx context.Context) *connection {
	return ctx.Value(connectionKey{}).(*connection)
}
