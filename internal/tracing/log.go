package tracing

import (
	"errors"
	"net/url"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
)

// complaintInterval is how often the log tells that traces can't be sent.
const complaintInterval = time.Minute

// LogErrors has this process log what goes wrong with traces, which disturbs nothing
// else.
func LogErrors(logger logr.Logger) {
	var mu sync.Mutex
	var last time.Time
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		mu.Lock()
		now := time.Now()
		due := now.Sub(last) >= complaintInterval
		if due {
			last = now
		}
		mu.Unlock()
		if due { // not with the lock held: whoever reads the log may be slow
			logger.Info("traces can't be sent", "cause", withoutAnswer(err).Error())
		}
	}))
}

var errRefused = errors.New("the collector does not take them")

// withoutAnswer returns an error without what a collector answered, which may repeat
// the headers that it was sent.
func withoutAnswer(err error) error {
	var unreachable *url.Error
	if errors.As(err, &unreachable) {
		return unreachable.Err
	}
	return errRefused
}
