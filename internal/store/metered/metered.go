// Package metered answers: how does an operator see how the store does?
//
// It stands in front of an engine, whichever that is, and measures what its callers
// wait for.
package metered

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/tracing"
)

// The operations that are measured: those that people or deliveries wait for.
const (
	opChange     = "change_contact"
	opImport     = "import_contacts"
	opCheckpoint = "checkpoint"
	opRead       = "read_log"
	opJoin       = "join"
	opPrune      = "prune"
)

var operations = []string{opChange, opImport, opCheckpoint, opRead, opJoin, opPrune}

// Store is a store whose use is measured.
type Store struct {
	store.Store
	metrics *metrics
}

var _ store.Store = (*Store)(nil)

// New has the use of a store be measured. The context is for what a scrape asks the
// store.
func New(ctx context.Context, measured store.Store, registerer prometheus.Registerer) (*Store, error) {
	made := newMetrics()
	look := func() state { return lookAt(ctx, measured) }
	if err := made.register(registerer, look); err != nil {
		return nil, err
	}
	return &Store{Store: measured, metrics: made}, nil
}

// RegisterMetrics registers the metrics of a store, each label value at zero, for the
// reference of metrics.
func RegisterMetrics(registerer prometheus.Registerer) error {
	return newMetrics().register(registerer, func() state { return state{up: true, oldest: time.Unix(1, 0)} })
}

// Change implements store.Contacts.
func (s *Store) Change(ctx context.Context, change store.Change) (contact.Decision, error) {
	began := time.Now()
	ctx, span := tracing.Child(ctx, "commit")
	decision, err := s.Store.Change(ctx, change)
	s.metrics.observe(opChange, began, err)
	tracing.End(span, isFault(err))
	return decision, err
}

// ChangeAll implements store.Contacts.
func (s *Store) ChangeAll(ctx context.Context, changes []store.Change) ([]store.ChangeResult, error) {
	began := time.Now()
	results, err := s.Store.ChangeAll(ctx, changes)
	s.metrics.observe(opImport, began, err)
	return results, err
}

// Checkpoint implements store.Deliveries.
func (s *Store) Checkpoint(ctx context.Context, progress []store.Progress) ([]store.SubscriptionKey, error) {
	began := time.Now()
	gone, err := s.Store.Checkpoint(ctx, progress)
	s.metrics.observe(opCheckpoint, began, err)
	return gone, err
}

// Read implements store.Log.
func (s *Store) Read(ctx context.Context, query store.Query) ([]contact.Event, error) {
	began := time.Now()
	events, err := s.Store.Read(ctx, query)
	s.metrics.observe(opRead, began, err)
	return events, err
}

// Join implements store.Owners.
func (s *Store) Join(ctx context.Context, dispatcher string, lasting time.Duration) ([]string, error) {
	began := time.Now()
	living, err := s.Store.Join(ctx, dispatcher, lasting)
	s.metrics.observe(opJoin, began, err)
	return living, err
}

// Prune implements store.Log.
func (s *Store) Prune(ctx context.Context, before time.Time) (int64, error) {
	began := time.Now()
	removed, err := s.Store.Prune(ctx, before)
	s.metrics.observe(opPrune, began, err)
	if err == nil {
		s.metrics.lastPrune.SetToCurrentTime()
	}
	return removed, err
}

// state is what a scrape is told of the store.
type state struct {
	up   bool
	head int64
	// oldest is when the oldest event of the log happened; zero when there is none.
	oldest time.Time
}

// lookTimeout bounds a look at the store, so that a scrape is answered while the store
// is away. Prometheus waits 10 s by default.
const lookTimeout = 2 * time.Second

func lookAt(ctx context.Context, looked store.Log) state {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	head, err := looked.Head(ctx)
	if err != nil {
		return state{}
	}
	oldest, err := looked.OldestEvent(ctx)
	if err != nil {
		return state{}
	}
	return state{up: true, head: head, oldest: oldest}
}

// isFault tells whether an error says that the store does not do its work. Refusals
// are no fault, nor are callers that went away.
func isFault(err error) bool {
	var input *contact.InputError
	if errors.As(err, &input) {
		return false
	}
	for _, refusal := range []error{
		store.ErrExternalIDTaken, store.ErrOnceReused, store.ErrNotFound, store.ErrOwned, context.Canceled,
	} {
		if errors.Is(err, refusal) {
			return false
		}
	}
	return err != nil
}

// metrics are those of the store.
type metrics struct {
	duration  *prometheus.HistogramVec
	errors    *prometheus.CounterVec
	lastPrune prometheus.Gauge
}

func newMetrics() *metrics {
	m := &metrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "postbus_store_operation_duration_seconds",
			Help:    "How long callers waited for the store; of those that change something, until the change was durable.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30},
		}, []string{"operation"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postbus_store_errors_total",
			Help: "Operations that the store could not do; what it refuses is not among them.",
		}, []string{"operation"}),
		lastPrune: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "postbus_store_last_prune_timestamp_seconds",
			Help: "When this process last removed what was old from the log, in seconds since 1970; 0 when it never did.",
		}),
	}
	for _, operation := range operations {
		m.duration.WithLabelValues(operation)
		m.errors.WithLabelValues(operation)
	}
	return m
}

func (m *metrics) register(registerer prometheus.Registerer, look func() state) error {
	for _, registered := range []prometheus.Collector{m.duration, m.errors, m.lastPrune, newCollector(look)} {
		if err := registerer.Register(registered); err != nil {
			return fmt.Errorf("register the metrics of the store: %w", err)
		}
	}
	return nil
}

func (m *metrics) observe(operation string, began time.Time, err error) {
	m.duration.WithLabelValues(operation).Observe(time.Since(began).Seconds())
	if isFault(err) {
		m.errors.WithLabelValues(operation).Inc()
	}
}

// collector looks at the store at each scrape.
type collector struct {
	look             func() state
	up, head, oldest *prometheus.Desc
}

func newCollector(look func() state) *collector {
	return &collector{
		look: look,
		up:   prometheus.NewDesc("postbus_store_up", "1 while the store answers, 0 while it does not.", nil, nil),
		head: prometheus.NewDesc("postbus_store_log_head_position",
			"The position of the newest event in the log. It rises by one with each event.", nil, nil),
		oldest: prometheus.NewDesc("postbus_store_oldest_event_timestamp_seconds",
			"When the oldest event happened that is in the log, in seconds since 1970; missing while the log is empty.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- c.up
	descriptions <- c.head
	descriptions <- c.oldest
}

// Collect implements prometheus.Collector. What is not known is left out.
func (c *collector) Collect(metrics chan<- prometheus.Metric) {
	gauge := func(description *prometheus.Desc, value float64) {
		metrics <- prometheus.MustNewConstMetric(description, prometheus.GaugeValue, value)
	}
	seen := c.look()
	if !seen.up {
		gauge(c.up, 0)
		return
	}
	gauge(c.up, 1)
	gauge(c.head, float64(seen.head))
	if !seen.oldest.IsZero() {
		gauge(c.oldest, float64(seen.oldest.UnixMilli())/1000)
	}
}
