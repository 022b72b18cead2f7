package receiver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// The bounds of what one call may send and of what is kept; the oldest calls
// go first.
const (
	maxBody  = 4 << 20
	maxKept  = 128 << 20
	overhead = 1 << 10 // about what a kept call takes beside its texts
)

// maxDelay is the longest delay that an answer may have: twice the longest
// timeout of a callback.
const maxDelay = time.Minute

// Call is one call that was received.
type Call struct {
	// Time is when it had been read.
	Time time.Time `json:"time"`
	// Method, Path and Query are the request line's.
	Method string `json:"method"`
	Path   string `json:"path"`
	Query  string `json:"query,omitempty"`
	// Headers are by lower-case name; several values are joined by ", ".
	Headers map[string]string `json:"headers"`
	// Body is what was sent.
	Body string `json:"body"`
	// Status is what was answered.
	Status int `json:"status"`
}

// Answer is what calls are answered with.
type Answer struct {
	// Status is the HTTP status, 200 to 599. 200 by default.
	Status int
	// Delay is how long an answer takes, up to a minute.
	Delay time.Duration
}

// answerJSON is an Answer as PUT /answer takes it.
type answerJSON struct {
	Status int    `json:"status"`
	Delay  string `json:"delay,omitempty"`
}

// Receiver takes calls and keeps them. It is an http.Handler; New makes one.
type Receiver struct {
	tell func(line string)
	mux  *http.ServeMux

	mu     sync.Mutex
	answer Answer
	calls  []Call
	size   int
}

// New returns a receiver that answers 200 and tells of each call in one line.
func New(tell func(line string)) *Receiver {
	r := &Receiver{tell: tell, mux: http.NewServeMux(), answer: Answer{Status: http.StatusOK}}
	r.mux.HandleFunc("GET /received", r.list)
	r.mux.HandleFunc("DELETE /received", r.clear)
	r.mux.HandleFunc("GET /answer", r.showAnswer)
	r.mux.HandleFunc("PUT /answer", r.putAnswer)
	r.mux.HandleFunc("/", r.take)
	return r
}

// ServeHTTP serves one request.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.mux.ServeHTTP(w, request)
}

// Calls returns the calls that are kept, oldest first.
func (r *Receiver) Calls() []Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// Clear forgets all calls.
func (r *Receiver) Clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls, r.size = nil, 0
}

// SetAnswer sets what calls are answered with from now on.
func (r *Receiver) SetAnswer(answer Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

// Answer returns what calls are answered with.
func (r *Receiver) Answer() Answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.answer
}

// take takes a callback.
func (r *Receiver) take(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, maxBody))
	if err != nil {
		refuse(w, http.StatusBadRequest, fmt.Errorf("read the body: %w", err))
		return
	}
	answer := r.Answer()
	call := Call{
		Time: time.Now().UTC(), Method: request.Method, Path: request.URL.Path, Query: request.URL.RawQuery,
		Headers: flatten(request.Header), Body: string(body), Status: answer.Status,
	}
	r.keep(call)
	r.tell(call.String())
	if answer.Delay > 0 {
		timer := time.NewTimer(answer.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-request.Context().Done():
			return
		}
	}
	w.WriteHeader(answer.Status)
}

// keep appends a call. Where the bound is reached it drops the oldest eighth,
// so that dropping is rare.
func (r *Receiver) keep(call Call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, call)
	r.size += call.size()
	if r.size <= maxKept {
		return
	}
	drop := 0
	for ; r.size > maxKept/8*7; drop++ {
		r.size -= r.calls[drop].size()
	}
	r.calls = slices.Delete(r.calls, 0, drop)
}

func (c Call) size() int {
	n := overhead + len(c.Path) + len(c.Query) + len(c.Body)
	for name, value := range c.Headers {
		n += len(name) + len(value)
	}
	return n
}

// shownBody is how many characters of a body a line shows.
const shownBody = 160

// String shows the call in one line of printable characters.
func (c Call) String() string {
	body := []rune(strings.ToValidUTF8(c.Body, string(utf8.RuneError)))
	more := ""
	if len(body) > shownBody {
		body, more = body[:shownBody], "…"
	}
	line := fmt.Sprintf("%s %s -> %d  id=%s attempt=%s  %s%s", c.Method, c.Path, c.Status,
		c.Headers["webhook-id"], c.Headers["postbus-attempt"], string(body), more)
	return strings.Map(func(char rune) rune {
		if char < ' ' || char == 0x7f {
			return ' '
		}
		return char
	}, line)
}

func flatten(header http.Header) map[string]string {
	flat := make(map[string]string, len(header))
	for name, values := range header {
		flat[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	return flat
}

// Header returns the call's headers as net/http has them.
func (c Call) Header() http.Header {
	header := http.Header{}
	for name := range maps.Keys(c.Headers) {
		header.Set(name, c.Headers[name])
	}
	return header
}

func (r *Receiver) list(w http.ResponseWriter, _ *http.Request) {
	calls := r.Calls()
	if calls == nil {
		calls = []Call{}
	}
	write(w, http.StatusOK, calls)
}

func (r *Receiver) clear(w http.ResponseWriter, _ *http.Request) {
	r.Clear()
	w.WriteHeader(http.StatusNoContent)
}

func (r *Receiver) showAnswer(w http.ResponseWriter, _ *http.Request) {
	answer := r.Answer()
	write(w, http.StatusOK, answerJSON{Status: answer.Status, Delay: answer.Delay.String()})
}

func (r *Receiver) putAnswer(w http.ResponseWriter, request *http.Request) {
	answer, err := parseAnswer(http.MaxBytesReader(w, request.Body, maxBody))
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	r.SetAnswer(answer)
	r.tell(fmt.Sprintf("from now on the answer is %d, after %s", answer.Status, answer.Delay))
	r.showAnswer(w, request)
}

func parseAnswer(body io.Reader) (Answer, error) {
	decoder := json.NewDecoder(body)
	decoder.DisallowUnknownFields()
	var given answerJSON
	if err := decoder.Decode(&given); err != nil {
		return Answer{}, fmt.Errorf(`read the answer, which looks like {"status":500,"delay":"2s"}: %w`, err)
	}
	if given.Status < 200 || given.Status > 599 {
		return Answer{}, errors.New("status must be between 200 and 599")
	}
	answer := Answer{Status: given.Status}
	if given.Delay == "" {
		return answer, nil
	}
	delay, err := time.ParseDuration(given.Delay)
	if err != nil || delay < 0 || delay > maxDelay {
		return Answer{}, fmt.Errorf("delay must be a duration between 0s and %s, such as 2s", maxDelay)
	}
	answer.Delay = delay
	return answer, nil
}

func refuse(w http.ResponseWriter, status int, err error) {
	write(w, status, map[string]string{"error": err.Error()})
}

// write answers with JSON. An error means that the caller has gone.
func write(w http.ResponseWriter, status int, value any) {
	text := &bytes.Buffer{}
	if err := json.NewEncoder(text).Encode(value); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(text.Bytes())
}
