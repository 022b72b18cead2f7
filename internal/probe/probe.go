// Package probe answers: how does an operator's cluster see that a process is
// well?
//
// Every process serves /healthz, /readyz and /metrics on an address of its own,
// apart from what strangers reach; profiles too, where somebody wants them.
package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Options are what Run needs.
type Options struct {
	// Address is the TCP address to listen on, such as ":8081".
	Address string
	// Metrics are what /metrics shows.
	Metrics prometheus.Gatherer
	// Ready returns nil once the process can do its work, before that an error
	// that says what is missing, which /readyz shows.
	Ready func(ctx context.Context) error
	// Profiling: Go's profiles are served under /debug/pprof/ (package
	// net/http/pprof). They tell nothing of people, but cost time while they are made.
	Profiling bool
}

// readyTimeout bounds one look at whether the process is ready.
const readyTimeout = 5 * time.Second

// Run serves until the context ends. It returns an error when the address
// can't be listened on.
func Run(ctx context.Context, options Options) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", options.Address)
	if err != nil {
		return fmt.Errorf("listen on %s for probes and metrics: %w", options.Address, err)
	}
	server := &http.Server{Handler: NewHandler(options), ReadHeaderTimeout: readyTimeout}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // Serve returns then
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve probes and metrics on %s: %w", options.Address, err)
	}
	return nil
}

// NewHandler returns the handler of /healthz, /readyz and /metrics, and of
// /debug/pprof/ with Options.Profiling.
func NewHandler(options Options) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, nil) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		answer(w, options.Ready(ctx))
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(options.Metrics, promhttp.HandlerOpts{}))
	if options.Profiling {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}

func answer(w http.ResponseWriter, problem error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if problem != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = fmt.Fprintln(w, problem) // whoever asked may have gone
		return
	}
	_, _ = fmt.Fprintln(w, "ok")
}
