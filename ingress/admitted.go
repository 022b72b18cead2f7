package ingress

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"postbus.dev/postbus/api/v1alpha1"
)

// admittedCall is a request on its way through the gates. It waits for its caller
// while it is read and while it is answered, and is at work in between.
//
// It is the body of its request, too.
type admittedCall struct {
	body       io.ReadCloser
	writer     http.ResponseWriter
	limits     *limits
	connection *connection
	// cut cuts the request off; it is made once, for all passes.
	cut func()

	header *pass // nil while the header is small
	pass   *pass // of limits.calls, imports or exports
	large  *pass // nil while the body is small
	share  *pass // of limits.requests, once the key is known
	// sending is the pass of limits.answers, once the answer begins.
	sending *pass

	working   bool
	answering atomic.Bool // set before a pass waits, which is when it may be cut off
	read      int
	// pace bounds how slowly an import is sent; nil where it is none.
	pace *pace
}

// answerPatience is how long a caller may take to read its answer, or a part of it,
// before it can be cut off to make room. What it asked for is done by then.
const answerPatience = time.Second

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// cutOff has whoever reads the body or writes the answer get an error at once.
func (c *admittedCall) cutOff() {
	control := http.NewResponseController(c.writer)
	// These fail only when the connection is gone, and what is waited for with it.
	_ = control.SetReadDeadline(past)
	if c.answering.Load() {
		_ = control.SetWriteDeadline(past)
	}
}

// begin takes over the header, which net/http has read. It returns false when it
// is large and all others are at work.
func (c *admittedCall) begin(r *http.Request) bool {
	c.header = c.connection.begin(r.ProtoMajor)
	if r.ProtoMajor < 2 || headerSize(r) < smallHeader {
		return true
	}
	c.header = c.limits.largeHeaders.enter(c.cut)
	return c.header != nil
}

// admit lets a call in, and returns the request to answer. It returns nil when
// all others are at work, and when the call was cut off at once.
func (c *admittedCall) admit(r *http.Request) *http.Request {
	if c.pass = c.limits.calls.enter(c.cut); c.pass == nil {
		return nil
	}
	if r.ContentLength == 0 {
		if !c.work() {
			return nil
		}
		return r
	}
	admitted := r.WithContext(r.Context())
	c.body, admitted.Body = r.Body, c
	return admitted
}

// Close closes the body.
func (c *admittedCall) Close() error { return c.body.Close() }

// Read reads the body. Its errors are problems where the body is not to blame.
func (c *admittedCall) Read(p []byte) (int, error) {
	if c.pace != nil {
		return c.readPaced(p)
	}
	if c.read+len(p) > smallBody && c.large == nil {
		if c.read < smallBody {
			p = p[:smallBody-c.read]
		} else if c.large = c.limits.largeBodies.enter(c.cut); c.large == nil {
			return 0, errOverloaded
		}
	}
	n, err := c.body.Read(p)
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

// readPaced reads the body of an import.
func (c *admittedCall) readPaced(p []byte) (int, error) {
	began, control := time.Now(), http.NewResponseController(c.writer)
	_ = control.SetReadDeadline(began.Add(c.pace.allowance(0))) // it fails only when the connection is gone
	n, err := c.body.Read(p)
	c.pace.moved(n, time.Since(began))
	_ = control.SetReadDeadline(time.Time{}) // HTTP/2 would hold it against the caller while the store is busy
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return n, errSlowImport
	}
	return n, err
}

// work records that the caller is no longer waited for. It returns false when the
// call was cut off before.
func (c *admittedCall) work() bool {
	c.working = c.pass.work() && (c.large == nil || c.large.work()) && (c.header == nil || c.header.work()) && c.connection.work()
	if !c.working {
		c.pass.leave()
	}
	return c.working
}

// claim counts the call for its key, whose body has been read.
func (c *admittedCall) claim(key *v1alpha1.ApiKey) (err error) {
	c.share, err = c.limits.requests.enterFor(key, c.cut)
	return err
}

// stream has the call go on as an import or export. It takes no room of other
// calls any more, and the time limits of other calls don't hold for it.
func (c *admittedCall) stream(g *keyedGate, key *v1alpha1.ApiKey) error {
	if !c.working && !c.work() {
		return errOverloaded
	}
	streaming, err := g.enterFor(key, c.cut)
	if err != nil {
		return err
	}
	c.pass.leave()
	c.pass = streaming
	c.answering.Store(true)
	control := http.NewResponseController(c.writer)
	return errors.Join(control.SetReadDeadline(time.Time{}), control.SetWriteDeadline(time.Time{}))
}

// finish sends what is left of the answer.
func (c *admittedCall) finish(protocol int) {
	control := http.NewResponseController(c.writer)
	if c.pass != nil && c.pass.owner != (owner{}) { // what streams has no time limit
		_ = control.SetWriteDeadline(time.Now().Add(stuckByteAfter))
	}
	if protocol > 1 {
		// net/http would wait for a reader that is slow once the gates are left.
		_ = control.Flush()
	}
}

// answer records that the answer begins: the call needs no work any more and waits
// for its caller, among all answers. Where there are too many, the oldest is cut off,
// so that answers that nobody reads take no room of calls.
func (c *admittedCall) answer() {
	if c.answering.Swap(true) {
		return
	}
	c.share.leave()
	c.pass.leave()
	if c.working {
		for _, p := range []*pass{c.large, c.header} {
			if p != nil {
				p.wait(answerPatience)
			}
		}
	}
	c.sending = c.limits.answers.enter(c.cut)
}

// probe has the request wait among those that are answered: it needs no work.
func (c *admittedCall) probe() { c.answer() }

func (c *admittedCall) isCut() bool {
	return c.pass.isOut() || c.large != nil && c.large.isOut() || c.header != nil && c.header.isOut()
}

// leave makes room for others.
func (c *admittedCall) leave() {
	if c.working {
		c.connection.wait()
		c.working = false
	}
	for _, p := range []*pass{c.sending, c.share, c.large, c.pass, c.header} {
		p.leave()
	}
}
