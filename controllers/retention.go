package controllers

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"postbus.dev/postbus/internal/store"
)

// DefaultRetention is for how long events are kept where nobody says.
const DefaultRetention = 30 * 24 * time.Hour

// MinRetention is the shortest time that events may be kept for: the buffer of a
// callback that was deactivated has those of 5 days by default, and somebody is to
// have a day to see that.
const MinRetention = 6 * 24 * time.Hour

// LogPruner removes old events.
type LogPruner interface {
	// PositionBefore returns the position behind which the events of this time
	// and later begin.
	PositionBefore(ctx context.Context, at time.Time) (int64, error)
	// PrepareLog makes room for the events of the next days.
	PrepareLog(ctx context.Context) error
	// Prune removes the events from before this time, whoever has them still to be
	// sent, and returns how many it removed.
	Prune(ctx context.Context, before time.Time) (removed int64, err error)
}

// retention removes events that are old enough, and makes room for those of the next days. It runs
// in the acting controller alone.
type retention struct {
	log        LogPruner
	deliveries DeliveryChanges
	// keep is for how long events are kept.
	keep, interval time.Duration
	now            func() time.Time
	removed        prometheus.Counter
}

func newRemovedEvents() prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{
		Name: "postbus_controller_removed_events_total",
		Help: "Events that this controller has removed from the log because they were older than the retention.",
	})
}

// Start runs until the context ends. Pruning may wait for days for those who read the log, and
// new days don't.
func (r *retention) Start(ctx context.Context) error {
	var preparing sync.WaitGroup
	preparing.Go(func() { poll(ctx, r.interval, r.log.PrepareLog) })
	poll(ctx, r.interval, r.prune)
	preparing.Wait()
	return nil
}

// newRetentionGauge tells for how long events are kept, so that an alert knows it.
func newRetentionGauge(keep time.Duration) prometheus.Gauge {
	kept := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "postbus_controller_retention_seconds",
		Help: "For how long events are kept in the log: --retention.",
	})
	kept.Set(keep.Seconds())
	return kept
}

func (r *retention) prune(ctx context.Context) error {
	before := r.now().Add(-r.keep)
	horizon, err := r.log.PositionBefore(ctx, before)
	if err != nil {
		return fmt.Errorf("look for old events: %w", err)
	}
	removed, err := r.log.Prune(ctx, before)
	r.removed.Add(float64(removed))
	if err != nil {
		return fmt.Errorf("remove old events: %w", err)
	}
	if removed == 0 {
		return nil
	}
	rows, err := r.deliveries.DeliveriesSince(ctx, 0)
	if err != nil {
		return fmt.Errorf("look who had old events to come: %w", err)
	}
	behind := 0
	for i := range rows {
		if hadToCome(&rows[i], horizon) {
			behind++
		}
	}
	log.FromContext(ctx).Info("Old events are removed from the log", "events", removed, "before", before, "subscriptionsThatHadSomeToCome", behind)
	return nil
}

// hadToCome tells whether events up to a position may have been still to be sent to
// a subscription, which gets them no more.
func hadToCome(row *store.Delivery, upTo int64) bool {
	return row.Cursor < upTo ||
		slices.ContainsFunc(row.Open, func(open store.OpenEvent) bool { return open.Position <= upTo }) ||
		slices.ContainsFunc(row.Life.Owed.Spans, func(span store.Span) bool { return span.After < upTo })
}
