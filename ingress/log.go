package ingress

import (
	"context"
	"log"
	"net/http"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/go-logr/logr"
)

// connectionLog takes what net/http says about connections, such as a TLS
// handshake that went wrong. Any port scan causes it, so nobody acts on it.
func connectionLog(ctx context.Context) *log.Logger {
	return log.New(connectionWriter{logr.FromContextOrDiscard(ctx).V(1)}, "", 0)
}

type connectionWriter struct{ logger logr.Logger }

func (w connectionWriter) Write(line []byte) (int, error) {
	w.logger.Info("connection trouble", "text", string(line))
	return len(line), nil
}

// logAccess writes one line for a request.
func logAccess(r *http.Request, status int, duration time.Duration) {
	logr.FromContextOrDiscard(r.Context()).V(1).Info("answered a request",
		"method", r.Method, "path", route(r), "status", status, "duration", duration)
}

// logPanic writes where a handler panicked. The value is shown only when it is
// the runtime's own, which holds nothing of the request.
func logPanic(ctx context.Context, value any) {
	err, _ := value.(runtime.Error)
	logr.FromContextOrDiscard(ctx).Error(err, "request panicked", "stack", string(debug.Stack()))
}
