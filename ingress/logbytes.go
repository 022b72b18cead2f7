package ingress

import (
	"cmp"
	"context"
	"maps"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
)

// LogByteCounter keeps how many bytes namespaces append to the log in a day.
type LogByteCounter interface {
	// AddLogBytes adds to what namespaces have appended on a day, and returns what
	// each has appended on it so far, in all processes.
	AddLogBytes(ctx context.Context, at time.Time, appended map[string]int64) (total map[string]int64, err error)
}

// logBytes counts what requests append to the log, and holds each namespace to a
// limit per day, in UTC. The count costs no request a write: it is added to the store
// now and then, which answers with what all processes have added. So several
// processes together can go over the limit by what they append in one interval, and a
// process that is killed loses the count of its last interval.
type logBytes struct {
	store    LogByteCounter
	limit    int64 // 0: none, and nothing is written to the store
	appended *prometheus.CounterVec
	refused  prometheus.Counter

	mu sync.Mutex
	// day is the day that is counted. total is what the store knows of it, fresh what
	// it does not know yet, by namespace.
	day          time.Time
	total, fresh map[string]int64
}

func newLogBytes(options Options, metrics *Metrics) *logBytes {
	return &logBytes{
		store: options.LogBytes, limit: options.MaxLogBytes,
		appended: metrics.logBytes, refused: metrics.turnedAway.WithLabelValues(limitLogBytes),
	}
}

// check returns a problem when a namespace has reached its limit.
func (b *logBytes) check(namespace string, now time.Time) error {
	if b.limit == 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.beginDayLocked(now)
	if b.total[namespace]+b.fresh[namespace] < b.limit {
		return nil
	}
	b.refused.Inc()
	return overLogLimit(namespace, b.limit, b.day.Add(24*time.Hour).Sub(now))
}

// add counts what a request appended.
func (b *logBytes) add(namespace string, size int, now time.Time) {
	if size == 0 {
		return
	}
	b.appended.WithLabelValues(namespace).Add(float64(size))
	if b.limit == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.beginDayLocked(now)
	b.fresh[namespace] += int64(size)
}

func (b *logBytes) beginDayLocked(now time.Time) {
	if today := now.UTC().Truncate(24 * time.Hour); !today.Equal(b.day) {
		b.day, b.total, b.fresh = today, map[string]int64{}, map[string]int64{}
	}
}

// write adds what is counted to the store, and keeps it when that fails.
func (b *logBytes) write(ctx context.Context, now time.Time) error {
	b.mu.Lock()
	b.beginDayLocked(now)
	day, written := b.day, maps.Clone(b.fresh)
	b.mu.Unlock()

	total, err := b.store.AddLogBytes(ctx, day, written)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.day.Equal(day) {
		return nil
	}
	b.total = total
	for namespace, size := range written {
		b.fresh[namespace] -= size
	}
	return nil
}

// startUpkeep writes at the beginning, at every interval and, when the function that
// it returns is called, for the last time.
func (b *logBytes) startUpkeep(ctx context.Context, interval time.Duration, now func() time.Time) (stop func()) {
	if b.limit == 0 {
		return func() {}
	}
	upkeep, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.upkeep(upkeep, cmp.Or(interval, defaultKeyUseInterval), now)
	}()
	return func() {
		cancel()
		<-ended
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWriteTimeout)
		defer cancel()
		if err := b.write(last, now()); err != nil {
			logr.FromContextOrDiscard(ctx).Error(err, "Failed to count the last bytes of the log")
		}
	}
}

// upkeep runs until the context ends. Of failures that follow each other only the
// first is logged.
func (b *logBytes) upkeep(ctx context.Context, interval time.Duration, now func() time.Time) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	broken := false
	for {
		err := b.write(ctx, now())
		if err != nil && !broken && ctx.Err() == nil {
			logr.FromContextOrDiscard(ctx).Error(err, "Failed to count the bytes of the log, retrying")
		}
		broken = err != nil
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
