package ingress

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"
)

// What Options says unless it says otherwise. They suit a pod of two cores: a
// call takes milliseconds, and what 256 of them and 1000 connections hold fits
// into the memory that docs/ingress.md states.
const (
	DefaultMaxConnections = 1000
	DefaultMaxRequests    = 256
)

// A body of less than smallBody bytes, and a call has a tenth of that, needs no
// other room than its call. Of larger ones maxLargeBodies are held at a time.
const (
	smallBody      = 16 << 10
	maxLargeBodies = 8
)

// maxImports is how many imports run at a time. They are no large bodies: an
// import holds one batch of its file, and goes on for as long as that lasts.
const maxImports = 8

// limits are the gates of one ingress.
type limits struct {
	connections  *gate
	largeHeaders *gate
	calls        *gate
	largeBodies  *gate
	imports      *gate
}

func newLimits(options Options, metrics *Metrics) *limits {
	connections, calls := options.MaxConnections, options.MaxRequests
	if connections == 0 {
		connections = DefaultMaxConnections
	}
	if calls == 0 {
		calls = DefaultMaxRequests
	}
	door := func(capacity int, limit string) *gate {
		return &gate{capacity: capacity, turnedAway: metrics.turnedAway.WithLabelValues(limit)}
	}
	return &limits{
		connections:  door(connections, limitConnections),
		largeHeaders: door(maxLargeHeaders, limitLargeHeaders),
		calls:        door(calls, limitRequests),
		largeBodies:  door(maxLargeBodies, limitLargeBodies),
		imports:      door(maxImports, limitImports),
	}
}

// admittedCall is a call that was let in. It is the body of its request, too:
// until that has been read to its end the call waits for its caller, from then
// on it is at work.
type admittedCall struct {
	io.ReadCloser
	limits     *limits
	pass       *pass
	large      *pass // nil while the body is small
	running    *pass // nil unless it is an import that runs
	connection *connection
	working    bool
	read       int
	cutBody    func()
}

// admit lets a call in, and returns it with the request to answer. It returns
// nil when all others are at work.
func (l *limits) admit(w http.ResponseWriter, r *http.Request) (*admittedCall, *http.Request) {
	call := &admittedCall{ReadCloser: r.Body, limits: l, connection: connectionOf(r.Context()), cutBody: func() {
		// Whoever reads the body gets an error at once. It fails only when the
		// connection is gone, and the body with it.
		_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
	}}
	if call.pass = l.calls.enter(call.cutBody); call.pass == nil {
		return nil, nil
	}
	if r.ContentLength == 0 {
		call.work()
		return call, r
	}
	admitted := r.WithContext(r.Context())
	admitted.Body = call
	return call, admitted
}

// Read reads the body. Its errors are problems where the body is not to blame.
func (c *admittedCall) Read(p []byte) (int, error) {
	if c.read+len(p) > smallBody && c.large == nil && c.running == nil {
		if c.read < smallBody {
			p = p[:smallBody-c.read]
		} else if c.large = c.limits.largeBodies.enter(c.cutBody); c.large == nil {
			return 0, errOverloaded
		}
	}
	n, err := c.ReadCloser.Read(p)
	c.read += n
	switch {
	case errors.Is(err, io.EOF):
		if !c.working && !c.work() {
			return n, errOverloaded
		}
	case errors.Is(err, os.ErrDeadlineExceeded):
		if c.isCut() {
			return n, errOverloaded
		}
		return n, errSlow
	}
	return n, err
}

// work tells that the call no longer waits for its caller. It returns false
// when the call was cut off before.
func (c *admittedCall) work() bool {
	c.working = c.pass.work() && (c.large == nil || c.large.work()) && c.connection.work()
	return c.working
}

// runImport lets an import run, for a caller whose key is good: nobody cuts it
// off any more to make room. Its error says that there are too many.
func runImport(r *http.Request) error {
	call, hasBody := r.Body.(*admittedCall)
	if !hasBody {
		return nil
	}
	call.running = call.limits.imports.enter(call.cutBody)
	if call.running == nil || !call.running.work() || !call.work() {
		return errOverloaded
	}
	return nil
}

func (c *admittedCall) isCut() bool {
	return c.pass.isOut() || c.large != nil && c.large.isOut()
}

// leave makes room for another call.
func (c *admittedCall) leave() {
	if c.working {
		c.connection.wait()
	}
	if c.large != nil {
		c.large.leave()
	}
	if c.running != nil {
		c.running.leave()
	}
	c.pass.leave()
}
