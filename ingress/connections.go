package ingress

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
)

// A header of less than smallHeader bytes, as most calls have, needs no other
// room than its connection. Of larger ones maxLargeHeaders are held at a time:
// thousands of short headers take forty times their text in memory.
const (
	smallHeader     = 2 << 10
	maxLargeHeaders = 64
)

// gatedListener accepts connections through a gate. A connection is at work
// only while one of its calls is: one that is idle, or slow with its handshake,
// its header or its body, is closed when a new one needs the room.
type gatedListener struct {
	net.Listener
	gate         *gate
	largeHeaders *gate
}

// Accept returns the next connection that may come in.
func (l *gatedListener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if inside := l.gate.enter(func() { _ = accepted.Close() }); inside != nil {
			return &connection{Conn: accepted, pass: inside, largeHeaders: l.largeHeaders}, nil
		}
		_ = accepted.Close() // nothing was said on it
	}
}

// connection is one that is inside the gate until it is closed.
type connection struct {
	net.Conn
	pass         *pass
	largeHeaders *gate

	mutex    sync.Mutex
	header   int   // bytes that were read since there was no request
	large    *pass // nil while the header is small
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

// begin tells that the header of a request has been read.
func (c *connection) begin() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.requests++
}

// end tells that a request has been answered.
func (c *connection) end() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.requests--; c.requests == 0 {
		c.forget()
	}
}

// shakeHands tells that what was read was a TLS handshake, and no header.
func (c *connection) shakeHands() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.forget()
}

// forget forgets the header. The mutex is held.
func (c *connection) forget() {
	c.header = 0
	if c.large != nil {
		c.large.leave()
		c.large = nil
	}
}

// work tells that a request no longer waits for its caller. It returns false
// when the connection was closed to make room.
func (c *connection) work() bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.large != nil && !c.large.work() {
		return false
	}
	return c.pass.work()
}

// wait ends what work began. A large header is at work until its request ends.
func (c *connection) wait() { c.pass.wait() }

// Close closes the connection and makes room for another.
func (c *connection) Close() error {
	c.pass.leave()
	c.mutex.Lock()
	c.forget()
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
