package dispatcher

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/store"
)

// latencyBuckets are few, because each subscription has them all. The first is for
// callbacks that are well, the last for those that had retries. A native histogram is
// beside them for servers that ask for it; its buckets are a fifth apart at most.
var latencyBuckets = []float64{.1, .5, 1, 5, 30, 300, 3600}

const (
	latencyName         = "postbus_dispatcher_subscription_delivery_latency_seconds"
	latencyHelp         = "The time from an event to the end of the call that delivered it, retries included and replays left out."
	nativeBucketFactor  = 1.2
	maxNativeBuckets    = 64
	nativeResetInterval = time.Hour
)

// subscriptionLabels name a subscription.
var subscriptionLabels = []string{"namespace", "subscription"}

// newLatencies returns what makes the histograms of subscriptions.
func newLatencies() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: latencyName, Help: latencyHelp, Buckets: latencyBuckets,
		NativeHistogramBucketFactor: nativeBucketFactor, NativeHistogramMaxBucketNumber: maxNativeBuckets,
		NativeHistogramMinResetDuration: nativeResetInterval,
	}, subscriptionLabels)
}

// newLatency returns a histogram of one subscription, which lives as long as its
// runner does: the vector that makes it keeps none.
func (m *metrics) newLatency(key store.SubscriptionKey) prometheus.Histogram {
	made := m.latencies.WithLabelValues(key.Namespace, key.Name).(prometheus.Histogram)
	m.latencies.DeleteLabelValues(key.Namespace, key.Name)
	return made
}

// subscriptionStates are all values of the label state.
var subscriptionStates = []v1alpha1.SubscriptionState{
	v1alpha1.StatePending, v1alpha1.StateActive, v1alpha1.StateFailing,
	v1alpha1.StateFailed, v1alpha1.StateReplaying, v1alpha1.StateSuspended,
}

// collector tells at each scrape of the runners that there are then. So the series of
// a subscription end where its runner does: when it is deleted, and when another
// dispatcher owns it.
type collector struct {
	// reports asks the runners.
	reports func() []report
	// sumsOnly leaves out the series of each subscription.
	sumsOnly bool

	subscriptions, pending, oldest, pendingMails, oldestMail *prometheus.Desc
	state, itsPending, itsOldest, itsAttempts, itsSetAside   *prometheus.Desc
	itsExpressions                                           *prometheus.Desc
	itsBodyBytes, itsPendingBytes                            *prometheus.Desc
}

func newCollector(reports func() []report, sumsOnly bool) *collector {
	sum := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("postbus_dispatcher_"+name, help, labels, nil)
	}
	its := func(name, help string, labels ...string) *prometheus.Desc {
		return sum("subscription_"+name, help, append(subscriptionLabels[:2:2], labels...)...)
	}
	return &collector{
		reports: reports, sumsOnly: sumsOnly,
		subscriptions: sum("subscriptions", "Subscriptions that this dispatcher delivers for, by state.", "state"),
		pending:       sum("pending_events", "Events that wait for their delivery, of all subscriptions that this dispatcher delivers for."),
		oldest: sum("oldest_pending_event_timestamp_seconds",
			"When the oldest event happened that waits for its delivery, in seconds since 1970; missing while none waits."),
		pendingMails: sum("pending_mails", "Opt-in mails and notices that wait to be sent."),
		oldestMail: sum("oldest_pending_mail_timestamp_seconds",
			"When the oldest mail was asked for that waits to be sent, in seconds since 1970; missing while none waits."),
		state: its("state", "1 for the state that the subscription is in; the others are missing.", "state"),
		itsPending: its("pending_events",
			"Events that wait for their delivery: those behind in the log, those that were taken from it, and those that are kept for a replay."),
		itsOldest: its("oldest_pending_event_timestamp_seconds",
			"When the oldest event happened that waits for its delivery, in seconds since 1970; missing while none waits. What a replay sends is left out."),
		itsAttempts: its("attempts_total", "Calls of the callback, by outcome as in postbus_dispatcher_attempts_total; an outcome that never was is missing, but for Delivered.", "outcome"),
		itsExpressions: its("expression_seconds_total",
			"CPU time of the filter and the template. A rate of 0.1 is all that a subscription may use: its events wait in the log then. Missing where nothing was evaluated."),
		itsBodyBytes: its("body_bytes", "Bytes that bodies of attempts in flight hold; missing while there are none."),
		itsPendingBytes: its("pending_bytes",
			"Bytes that pending events hold in memory; missing while there are none. What is still in the log takes no memory."),
		itsSetAside: its("set_aside_events_total", "Events that were set aside, because they could not be delivered beside others that were."),
	}
}

// Describe implements prometheus.Collector. The histograms of subscriptions describe
// themselves.
func (c *collector) Describe(descriptions chan<- *prometheus.Desc) {
	for _, described := range []*prometheus.Desc{
		c.subscriptions, c.pending, c.oldest, c.pendingMails, c.oldestMail,
		c.state, c.itsPending, c.itsOldest, c.itsAttempts, c.itsSetAside, c.itsExpressions, c.itsBodyBytes, c.itsPendingBytes,
	} {
		descriptions <- described
	}
	newLatencies().Describe(descriptions)
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(metrics chan<- prometheus.Metric) {
	var events, mails backlog
	states := map[v1alpha1.SubscriptionState]int{}
	for _, told := range c.reports() {
		if told.latency == nil {
			mails.add(told)
			continue
		}
		events.add(told)
		states[told.state]++
		if !c.sumsOnly {
			c.collect(metrics, told)
		}
	}
	for _, state := range subscriptionStates {
		metrics <- gauge(c.subscriptions, float64(states[state]), string(state))
	}
	metrics <- gauge(c.pending, float64(events.pending))
	metrics <- gauge(c.pendingMails, float64(mails.pending))
	collectTime(metrics, c.oldest, events.oldest)
	collectTime(metrics, c.oldestMail, mails.oldest)
}

// collect tells of one subscription.
func (c *collector) collect(metrics chan<- prometheus.Metric, told report) {
	its := []string{told.key.Namespace, told.key.Name}
	metrics <- gauge(c.state, 1, append(its, string(told.state))...)
	metrics <- gauge(c.itsPending, float64(told.pending), its...)
	metrics <- counter(c.itsSetAside, float64(told.setAside), its...)
	if told.expressions > 0 { // most have none
		metrics <- counter(c.itsExpressions, told.expressions.Seconds(), its...)
	}
	for outcome, attempts := range told.attempts {
		metrics <- counter(c.itsAttempts, float64(attempts), append(its, outcome)...)
	}
	metrics <- told.latency
	collectBytes(metrics, c.itsBodyBytes, told.bodyBytes, its...)
	collectBytes(metrics, c.itsPendingBytes, told.pendingBytes, its...)
	collectTime(metrics, c.itsOldest, told.oldest, its...)
}

// collectTime tells of a time, unless it is none.
func collectTime(metrics chan<- prometheus.Metric, description *prometheus.Desc, at time.Time, labels ...string) {
	if !at.IsZero() {
		metrics <- gauge(description, float64(at.UnixMilli())/1000, labels...)
	}
}

// collectBytes tells of bytes, unless there are none: most subscriptions are idle.
func collectBytes(metrics chan<- prometheus.Metric, description *prometheus.Desc, bytes int64, labels ...string) {
	if bytes > 0 {
		metrics <- gauge(description, float64(bytes), labels...)
	}
}

func gauge(description *prometheus.Desc, value float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(description, prometheus.GaugeValue, value, labels...)
}

func counter(description *prometheus.Desc, value float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(description, prometheus.CounterValue, value, labels...)
}

// backlog sums up what waits.
type backlog struct {
	pending int64
	oldest  time.Time
}

func (b *backlog) add(told report) {
	b.pending += told.pending
	if !told.oldest.IsZero() && (b.oldest.IsZero() || told.oldest.Before(b.oldest)) {
		b.oldest = told.oldest
	}
}

// exampleReports are for the reference of metrics: a subscription and a mail, whose
// labels stand for any.
func exampleReports(m *metrics) []report {
	const whichever = "…"
	key, now := store.SubscriptionKey{Namespace: whichever, Name: whichever}, time.Unix(1, 0)
	return []report{
		{key: key, state: whichever, oldest: now, expressions: 1, bodyBytes: 1, pendingBytes: 1, attempts: map[string]int{outcomeDelivered: 0, whichever: 0}, latency: m.newLatency(key)},
		{oldest: now},
	}
}
