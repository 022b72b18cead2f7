package testkit

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"
)

// Receiver is a callback: a real HTTP server on the loopback interface that
// records every call and answers as it is told. It is safe for concurrent use.
type Receiver struct {
	server *httptest.Server

	mu     sync.Mutex
	calls  []Call
	answer http.HandlerFunc
}

// Call is one call that a Receiver got.
type Call struct {
	// Time is when the whole body had arrived.
	Time time.Time
	// Method, Path and Query are the request line's; Query is as it was sent.
	Method, Path, Query string
	// Header has the request's headers.
	Header http.Header
	// Body is the request's body.
	Body []byte
}

// NewReceiver starts a Receiver that answers 200 and ends with the test.
func NewReceiver(t testing.TB) *Receiver {
	t.Helper()
	receiver := &Receiver{}
	receiver.Answer(http.StatusOK)
	receiver.server = httptest.NewServer(receiver)
	t.Cleanup(receiver.Close)
	return receiver
}

// URL returns the address to call, without a path.
func (r *Receiver) URL() string { return r.server.URL }

// Answer makes the Receiver answer with a status and an empty body.
func (r *Receiver) Answer(status int) {
	r.AnswerWith(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
}

// AnswerWith makes the Receiver answer through a handler. The call is recorded
// before the handler runs, and the request's body can be read again. A handler
// that hangs should wait for the request's context, which ends with the test.
func (r *Receiver) AnswerWith(handler http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = handler
}

// Calls returns the calls so far, oldest first.
func (r *Receiver) Calls() []Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// Count returns the number of calls so far.
func (r *Receiver) Count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.calls)
}

// Close breaks the open connections and stops listening, so that later calls
// are refused. It may be called twice.
func (r *Receiver) Close() {
	r.server.CloseClientConnections()
	r.server.Close()
}

// ServeHTTP records a call and answers it.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return // the caller went away: that is no call
	}
	answer := r.record(Call{
		Time:   time.Now(),
		Method: request.Method,
		Path:   request.URL.Path,
		Query:  request.URL.RawQuery,
		Header: request.Header.Clone(),
		Body:   body,
	})
	request.Body = io.NopCloser(bytes.NewReader(body))
	answer(w, request)
}

// record keeps a call and returns the handler that answers it.
func (r *Receiver) record(call Call) http.HandlerFunc {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, call)
	return r.answer
}
