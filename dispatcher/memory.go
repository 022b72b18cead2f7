package dispatcher

import "github.com/prometheus/client_golang/prometheus"

// memory are the metrics of what the dispatcher holds of each budget of bytes, and of the
// limits.
type memory struct {
	bodyBytes, pendingBytes, windowBytes                                                prometheus.Gauge
	bodyLimit, subscriptionBodyLimit, pendingLimit, subscriptionPendingLimit, windowMax prometheus.Gauge
}

func newMemory() memory {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "postbus_dispatcher_" + name + "_bytes", Help: help})
	}
	return memory{
		bodyBytes: gauge("body",
			"Bytes that bodies of attempts in flight hold, beyond 64 KiB of each subscription. At the limit further attempts wait."),
		bodyLimit:             gauge("body_limit", "The limit of postbus_dispatcher_body_bytes (--max-body-bytes)."),
		subscriptionBodyLimit: gauge("each_body_limit", "The limit of the bytes that bodies of each subscription hold (--max-subscription-body-bytes)."),
		pendingBytes: gauge("pending",
			"Bytes that pending events hold in memory, beyond 32 KiB of each subscription. At the limit further events wait in the log."),
		pendingLimit:             gauge("pending_limit", "The limit of postbus_dispatcher_pending_bytes (--max-pending-bytes)."),
		subscriptionPendingLimit: gauge("each_pending_limit", "The limit of the bytes that pending events of each subscription hold, a third of it for a replay."),
		windowBytes:              gauge("window", "Bytes of the recent events that the dispatcher keeps in memory for all subscriptions."),
		windowMax:                gauge("window_limit", "The limit of postbus_dispatcher_window_bytes."),
	}
}

func (m *memory) all() []prometheus.Collector {
	return []prometheus.Collector{
		m.bodyBytes, m.bodyLimit, m.subscriptionBodyLimit, m.pendingBytes, m.pendingLimit, m.subscriptionPendingLimit, m.windowBytes, m.windowMax,
	}
}

// tellLimits sets the metrics of the limits.
func (m *memory) tellLimits(options *Options) {
	m.bodyLimit.Set(float64(options.MaxBodyBytes))
	m.subscriptionBodyLimit.Set(float64(options.MaxSubscriptionBodyBytes))
	m.pendingLimit.Set(float64(options.MaxPendingBytes))
	m.subscriptionPendingLimit.Set(maxOpenBytes + maxReplayedBytes)
	m.windowMax.Set(windowBytes)
}
