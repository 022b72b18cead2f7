package dispatcher

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postbus.dev/postbus/api/v1alpha1"
)

// metrics are the dispatcher's.
type metrics struct {
	attempts        *prometheus.CounterVec
	attemptDuration prometheus.Histogram
	latency         prometheus.Histogram
	mails           *prometheus.CounterVec
	mailLatency     prometheus.Histogram
	sharedCalls     prometheus.Gauge
	memory
	checkpointErrors prometheus.Counter
	owned            prometheus.Gauge
	joinErrors       prometheus.Counter
	expressions      prometheus.Counter
	// latencies makes the histograms of subscriptions.
	latencies *prometheus.HistogramVec
}

// RegisterMetrics registers the dispatcher's metrics, each label value at zero,
// for the reference of metrics. Run registers its own.
func RegisterMetrics(registerer prometheus.Registerer) error {
	m := newMetrics(registerer)
	return registerer.Register(newCollector(func() []report { return exampleReports(m) }, false))
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	m := &metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postbus_dispatcher_attempts_total",
			Help: "Calls of callbacks, by outcome: Delivered, or the reason of the failure.",
		}, []string{"outcome"}),
		attemptDuration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "postbus_dispatcher_attempt_duration_seconds",
			Help:    "How long a call of a callback took.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "postbus_dispatcher_delivery_latency_seconds",
			Help:    "The time from an event to the end of the call that delivered it, retries included.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30, 300, 1800, 86400},
		}),
		mails: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postbus_dispatcher_mails_total",
			Help: "Attempts to send an opt-in mail or a notice, by outcome: Delivered, the reason of the failure, or the reason to give up (Expired, Obsolete, RecipientForbidden, Rejected).",
		}, []string{"outcome"}),
		mailLatency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "postbus_dispatcher_mail_latency_seconds",
			Help:    "The time from an opt-in request, or a deactivation, until the mail server had taken its mail, retries included.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 5, 30, 300, 1800, 86400, 432000},
		}),
		sharedCalls: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "postbus_dispatcher_shared_calls",
			Help: "Calls under way beyond 4 of each subscription. There are --max-calls of them at most, and what comes after waits.",
		}),
		memory: newMemory(),
		checkpointErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "postbus_dispatcher_checkpoint_errors_total",
			Help: "Checkpoints that could not be written and were tried again.",
		}),
		owned: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "postbus_dispatcher_owned_deliveries",
			Help: "Subscriptions that this dispatcher owns, with the opt-in mails of lists and the notices of namespaces.",
		}),
		joinErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "postbus_dispatcher_join_errors_total",
			Help: "Times that this dispatcher could not tell the others that it lives. After 6 s of them it begins no call until it can again.",
		}),
		expressions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "postbus_dispatcher_expression_seconds_total",
			Help: "CPU time of filters and templates. Those of one subscription may use 10 % of a CPU on average.",
		}),
		latencies: newLatencies(),
	}
	m.beginOutcomes()
	registerer.MustRegister(m.all()...)
	registerer.MustRegister(m.attempts, m.sharedCalls, m.attemptDuration, m.latency, m.mails, m.mailLatency, m.checkpointErrors, m.owned, m.joinErrors, m.expressions)
	return m
}

// beginOutcomes begins the counters of outcomes at 0.
func (m *metrics) beginOutcomes() {
	m.attempts.WithLabelValues(outcomeDelivered)
	for _, reason := range []v1alpha1.FailureReason{
		v1alpha1.FailureHTTPStatus, v1alpha1.FailureRedirect, v1alpha1.FailureTimeout, v1alpha1.FailureConnectionRefused,
		v1alpha1.FailureConnectionBroken, v1alpha1.FailureDNS, v1alpha1.FailureTLS, v1alpha1.FailureRender, v1alpha1.FailureFilter,
		v1alpha1.FailureSigning, v1alpha1.FailureEncryption, v1alpha1.FailureSecret, v1alpha1.FailureToken, v1alpha1.FailureAddressForbidden, v1alpha1.FailureNetwork,
	} {
		m.attempts.WithLabelValues(string(reason))
	}
	m.mails.WithLabelValues(outcomeDelivered)
	for _, reason := range mailReasons {
		m.mails.WithLabelValues(string(reason))
	}
}

// observeMail notes an attempt to send a mail, and how old its request was then, which
// is less than nothing where the clock of who took it is ahead.
func (m *metrics) observeMail(o outcome, _, age time.Duration) {
	if o.verdict == aborted {
		return
	}
	m.mails.WithLabelValues(o.label()).Inc()
	if o.verdict == delivered {
		m.mailLatency.Observe(max(0, age.Seconds()))
	}
}

// observe notes a call of a callback: how long it took, and how old its event was then,
// as in observeMail.
func (m *metrics) observe(o outcome, took, age time.Duration) {
	if o.verdict == aborted {
		return
	}
	m.attempts.WithLabelValues(o.label()).Inc()
	if o.verdict == delivered {
		m.latency.Observe(max(0, age.Seconds()))
	}
	m.attemptDuration.Observe(took.Seconds())
}
