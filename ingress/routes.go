package ingress

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// The paths that ingress serves beside those of operations.
const (
	healthPath = "/healthz"
	readyPath  = "/readyz"
)

// route returns what a request's path may be called in logs: it names neither
// a contact, nor what a caller made up who puts the key where it does not belong.
func route(r *http.Request) string {
	_, isOperation := operations[r.URL.Path]
	if isOperation || slices.Contains([]string{importPath, healthPath, readyPath}, r.URL.Path) {
		return r.URL.Path
	}
	if wanted, ours := parseReading(r.URL.EscapedPath()); ours {
		return wanted.template()
	}
	if purpose, _, ours := parsePagePath(r.URL.Path); ours {
		return purpose.Path() + tokenTemplate
	}
	return "(unknown)"
}

// server answers requests.
type server struct {
	options  Options
	metrics  *Metrics
	limits   *limits
	logBytes *logBytes
	keys     *keyring
	now      func() time.Time
	looks    singleflight.Group // of ready
	stopping atomic.Bool
}

func newServer(options Options, metrics *Metrics) *server {
	now := options.Now
	if now == nil {
		now = time.Now
	}
	return &server{
		options: options,
		metrics: metrics,
		limits:  newLimits(options, metrics), logBytes: newLogBytes(options, metrics),
		keys: &keyring{
			objects:  options.Objects,
			bindings: newBindings(options.Bindings),
			now:      now,
			uses:     keyUses{store: options.KeyUses, objects: options.Objects},
		},
		now: now,
	}
}

// ServeHTTP routes by the exact path. http.ServeMux would answer a path such as
// //webhooks with a redirect whose Location repeats the query, and so the key.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	recorder := s.newRecorder(w, r)
	call := &recorder.call
	defer call.connection.end()
	defer call.leave()
	if r.TLS != nil {
		w.Header().Set("Strict-Transport-Security", strictTransport)
	}
	switch {
	case !call.begin(r):
		s.refuse(recorder, r, errOverloaded)
	case r.URL.Path == healthPath:
		call.probe()
		s.answerHealth(recorder, r, func(context.Context) error { return nil })
	case r.URL.Path == readyPath:
		call.probe()
		s.answerHealth(recorder, r, s.ready)
	default:
		s.admitCall(recorder, r)
		s.metrics.countRequest(recorder.status, time.Since(start))
	}
	call.finish(r.ProtoMajor)
	logAccess(r, recorder.status, time.Since(start))
}

// strictTransport tells browsers to come by HTTPS for a year. It says nothing about
// subdomains, which may not be ours.
const strictTransport = "max-age=31536000"

// statusRecorder is the writer of an answer. It remembers the status for logs and
// metrics, and has its call wait for the reader.
type statusRecorder struct {
	http.ResponseWriter
	status int
	call   admittedCall
}

func (s *server) newRecorder(w http.ResponseWriter, r *http.Request) *statusRecorder {
	recorder := &statusRecorder{
		ResponseWriter: w, status: http.StatusOK,
		call: admittedCall{body: r.Body, writer: w, limits: s.limits, connection: connectionOf(r.Context())},
	}
	recorder.call.cut = recorder.call.cutOff
	return recorder
}

// WriteHeader remembers the status and writes it.
func (r *statusRecorder) WriteHeader(status int) {
	r.status = status
	r.call.answer()
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *statusRecorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// admitCall answers whatever is not a health check, if there is room for it.
func (s *server) admitCall(w *statusRecorder, r *http.Request) {
	admitted := w.call.admit(r)
	if admitted == nil {
		s.refuse(w, r, errOverloaded)
		return
	}
	s.answerCall(w, admitted)
}

// answerCall answers a call that was let in.
func (s *server) answerCall(w *statusRecorder, r *http.Request) {
	defer func() {
		value := recover()
		if value == http.ErrAbortHandler { //nolint:errorlint // net/http means this very value
			panic(value)
		}
		if value != nil {
			logPanic(r.Context(), value)
			s.refuse(w, r, errInternal)
		}
	}()
	switch {
	case strings.HasPrefix(r.URL.Path, readPrefix):
		s.answerRead(w, r)
		return
	case r.URL.Path == importPath:
		s.answerImport(w, r)
		return
	case isPage(r):
		s.answerPage(w, r)
		return
	}
	operation, ours := operations[r.URL.Path]
	if !ours {
		writeProblem(w, errNoRoute)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	answer, err := s.operate(&w.call, r.WithContext(ctx), operation)
	if err != nil {
		writeProblem(w, problemOf(ctx, err))
		return
	}
	writeJSON(w, http.StatusOK, answer)
}

// refuse answers a request that was not looked at: with a page where a person
// asked for one.
func (s *server) refuse(w http.ResponseWriter, r *http.Request, p *problem) {
	if isPage(r) {
		s.refusePage(w, r, p)
		return
	}
	writeProblem(w, p)
}

// checkCaller checks what is known before anything of the request is read.
func (s *server) checkCaller(r *http.Request, method string) error {
	switch {
	case !s.isHTTPS(r) && !s.options.AllowPlainHTTP:
		return errPlainHTTP
	case len(r.Header.Values("Origin")) > 0: // browsers send it with every POST
		return errBrowser
	case r.Method != method:
		return methodNotAllowed(method)
	}
	return nil
}

// isHTTPS tells whether the caller speaks HTTPS, to ingress or to a proxy that
// an operator trusts. Anybody can send the header, and a proxy that adds its
// value to that of the caller leaves several: then it says nothing.
func (s *server) isHTTPS(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	said := r.Header.Values("X-Forwarded-Proto")
	return len(said) == 1 && said[0] == "https" && s.isTrusted(r.RemoteAddr)
}

// isTrusted tells whether the other end of the connection is a trusted proxy.
func (s *server) isTrusted(remote string) bool {
	end, err := netip.ParseAddrPort(remote)
	if err != nil {
		return false
	}
	address := end.Addr().Unmap().WithZone("")
	return slices.ContainsFunc(s.options.TrustedProxies, func(network netip.Prefix) bool {
		return network.Contains(address)
	})
}

// readyTimeout bounds a readiness check; a kubelet waits a second by default.
const readyTimeout = time.Second

var errStopping = errors.New("shutting down")

// ready returns nil, or what is missing. Whoever asks while somebody else's question
// is looked into gets the same answer, and looking goes on when they hang up: anybody
// can ask, and must not keep the store from calls.
func (s *server) ready(ctx context.Context) error {
	if check := s.options.Ready; check != nil {
		_, err, _ := s.looks.Do("", func() (any, error) {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyTimeout)
			defer cancel()
			return nil, check(ctx)
		})
		if err != nil {
			return err
		}
	}
	if s.stopping.Load() {
		return errStopping
	}
	return nil
}

// answerHealth answers a health check in plain text, as kubelets and people
// expect it. HTTPS is not asked for: a kubelet has nothing to hide.
func (s *server) answerHealth(w http.ResponseWriter, r *http.Request, check func(context.Context) error) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		writeProblem(w, methodNotAllowed("GET, HEAD"))
		return
	}
	status, text := http.StatusOK, "ok"
	if err := check(r.Context()); err != nil {
		status, text = http.StatusServiceUnavailable, "not ready: "+err.Error()
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, text) // a write error means that nobody is left to tell
}
