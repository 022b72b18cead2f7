package ingress

import (
	"errors"
	"net/http"
	"time"
)

// pace holds a caller to a minimum rate while ingress waits for it, to send or
// to read. Time that ingress spends elsewhere, in the store, is not counted. The
// caller may fall behind the rate by slack; what it is ahead is not saved up.
type pace struct {
	bytesPerSecond int
	slack          time.Duration
	behind         time.Duration
}

// The minimum rates, and how far a caller may fall behind them. A reader of an
// export copies what ingress sends, so it needs no more than a slow line. An
// upload may come out of another system's API, a page at a time.
const (
	exportBytesPerSecond = 32 << 10
	exportSlack          = 20 * time.Second
	importBytesPerSecond = 4 << 10
	importSlack          = 30 * time.Second
)

// timeFor returns how long size bytes take at the minimum rate.
func (p *pace) timeFor(size int) time.Duration {
	return time.Duration(size) * time.Second / time.Duration(p.bytesPerSecond)
}

// allowance returns how long the next size bytes may take.
func (p *pace) allowance(size int) time.Duration { return p.slack - p.behind + p.timeFor(size) }

// moved records a transfer: size bytes took this long.
func (p *pace) moved(size int, took time.Duration) {
	p.behind = max(0, p.behind+took-p.timeFor(size))
}

// errSlowReader: a reader is slower than its minimum rate.
var errSlowReader = errors.New("the reader is too slow")

// pacedChunk is how many bytes a pacedWriter waits for at a time.
const pacedChunk = 32 << 10

// pacedWriter writes an answer to a caller who must keep a minimum rate.
type pacedWriter struct {
	http.ResponseWriter
	pace *pace
	// pass waits while the reader is waited for, so that the reader can be cut off
	// to make room; nil where it can't.
	pass *pass
}

// Write writes in chunks. Its error is errSlowReader where the reader is too
// slow, and errOverloaded where it was cut off.
func (w *pacedWriter) Write(p []byte) (written int, err error) {
	for written < len(p) && err == nil {
		part := p[written:min(len(p), written+pacedChunk)]
		err = w.send(len(part), func() error {
			n, err := w.ResponseWriter.Write(part)
			written += n
			return err
		})
	}
	return written, err
}

// flush sends what is buffered.
func (w *pacedWriter) flush() error {
	return w.send(0, http.NewResponseController(w.ResponseWriter).Flush)
}

// send waits for the reader to take size bytes.
func (w *pacedWriter) send(size int, write func() error) error {
	began, allowed := time.Now(), w.pace.allowance(size)
	control := http.NewResponseController(w.ResponseWriter)
	// Before the pass waits: whoever cuts it off sets another deadline. It fails only
	// when the connection is gone.
	_ = control.SetWriteDeadline(began.Add(allowed))
	if w.pass != nil {
		w.pass.wait(answerPatience)
	}
	err := write()
	took := time.Since(began)
	w.pace.moved(size, took)
	switch {
	case w.pass != nil && !w.pass.work():
		return errOverloaded
	case err != nil && took >= allowed:
		return errSlowReader
	case err != nil:
		return err
	}
	// HTTP/2 would hold the deadline against the reader while the store is busy.
	return control.SetWriteDeadline(time.Time{})
}
