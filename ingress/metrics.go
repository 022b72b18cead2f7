package ingress

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postbus.dev/postbus/internal/contact"
)

// Metrics are what ingress counts. Health checks are not among the requests.
type Metrics struct {
	requests *prometheus.CounterVec
	duration prometheus.Histogram
	contacts *prometheus.CounterVec
	unknown  prometheus.Counter
	// turnedAway counts what the limits kept out or cut off.
	turnedAway *prometheus.CounterVec
	// logBytes counts what was appended to the log.
	logBytes *prometheus.CounterVec
	// certificateExpiry is when the served certificate ends.
	certificateExpiry prometheus.Gauge
}

// statusClientGone is what nginx logs for a caller that did not wait for the
// answer. No caller ever sees it.
const statusClientGone = 499

// statuses are all the status codes that ingress answers.
var statuses = []int{
	http.StatusOK, http.StatusSeeOther, http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound,
	http.StatusMethodNotAllowed, http.StatusRequestTimeout, http.StatusConflict, http.StatusGone, http.StatusRequestEntityTooLarge,
	http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity, http.StatusTooManyRequests,
	statusClientGone, http.StatusInternalServerError, http.StatusServiceUnavailable, http.StatusLoopDetected,
}

// What a call made of its contact.
const (
	resultCreated   = "created"
	resultUpdated   = "updated"
	resultRemoved   = "removed"
	resultUnchanged = "unchanged"
	resultRepeated  = "repeated"
)

// The limits that turn callers away. Requests, imports and exports have one for each
// key and each namespace as well.
const (
	limitConnections  = "connections"
	limitLargeHeaders = "large_headers"
	limitHTTP2        = "http2_connections"
	limitRequests     = "requests"
	limitLargeBodies  = "large_bodies"
	limitImports      = "imports"
	limitExports      = "exports"
	limitAnswers      = "answers"
	limitImportRate   = "import_rate"
	limitExportRate   = "export_rate"
	limitLogBytes     = "log_bytes"

	perKeySuffix       = "_per_key"
	perNamespaceSuffix = "_per_namespace"
)

var limitNames = []string{
	limitConnections, limitHTTP2, limitLargeHeaders, limitRequests, limitLargeBodies, limitImports, limitExports, limitAnswers,
	limitRequests + perKeySuffix, limitImports + perKeySuffix, limitExports + perKeySuffix,
	limitRequests + perNamespaceSuffix, limitImports + perNamespaceSuffix, limitExports + perNamespaceSuffix,
	limitImportRate, limitExportRate, limitLogBytes,
}

// NewMetrics registers ingress's metrics, each label value at zero.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postbus_ingress_requests_total",
			Help: "Requests answered, by HTTP status code (499: the caller did not wait).",
		}, []string{"code"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "postbus_ingress_request_duration_seconds",
			Help:    "Time from a request's header to its answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20},
		}),
		contacts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postbus_ingress_contacts_total",
			Help: "Calls accepted, by what they made of their contact; repeated: a call with a known Idempotency-Key, which makes nothing of it.",
		}, []string{"result"}),
		unknown: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "postbus_ingress_unknown_parameters_total",
			Help: "Parameters of accepted keys that were ignored because nothing is called so.",
		}),
		turnedAway: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postbus_ingress_turned_away_total",
			Help: "Connections and requests that were refused, or cut off to make room for others, by the limit that was reached.",
		}, []string{"limit"}),
		logBytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postbus_ingress_log_bytes_total",
			Help: "Bytes of encoded events that requests appended to the event log, by namespace.",
		}, []string{"namespace"}),
		certificateExpiry: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "postbus_ingress_certificate_expiry_timestamp_seconds",
			Help: "When the certificate that is served expires, in seconds since 1970; 0 without TLS.",
		}),
	}
	for _, collector := range []prometheus.Collector{
		m.requests, m.duration, m.contacts, m.unknown, m.turnedAway, m.logBytes, m.certificateExpiry,
	} {
		if err := registerer.Register(collector); err != nil {
			return nil, fmt.Errorf("register the metrics of ingress: %w", err)
		}
	}
	for _, status := range statuses {
		m.requests.WithLabelValues(strconv.Itoa(status))
	}
	for _, result := range []string{resultCreated, resultUpdated, resultRemoved, resultUnchanged, resultRepeated} {
		m.contacts.WithLabelValues(result)
	}
	for _, limit := range limitNames {
		m.turnedAway.WithLabelValues(limit)
	}
	return m, nil
}

// RegisterMetrics registers the metrics of ingress with a series of each, for the
// reference of metrics.
func RegisterMetrics(registerer prometheus.Registerer) error {
	m, err := NewMetrics(registerer)
	if err == nil {
		m.logBytes.WithLabelValues("…")
	}
	return err
}

func (m *Metrics) countRequest(status int, duration time.Duration) {
	m.requests.WithLabelValues(strconv.Itoa(status)).Inc()
	m.duration.Observe(duration.Seconds())
}

func (m *Metrics) countContact(decision *contact.Decision) {
	result := resultUnchanged
	switch {
	case decision.Repeated:
		result = resultRepeated
	case decision.Removed:
		result = resultRemoved
	case decision.Created:
		result = resultCreated
	case decision.Changed && decision.Contact.ID != 0: // forgetting somebody who had left changes no contact
		result = resultUpdated
	}
	m.contacts.WithLabelValues(result).Inc()
}
