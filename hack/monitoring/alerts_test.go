package monitoring_test

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// evaluation is how often alerts are looked at, and series have a sample.
const evaluation = time.Minute

const ofCRM = `namespace="marketing",subscription="crm"`

// days writes how many seconds after the start something happens.
func days(n int) string { return strconv.Itoa(n * 86400) }

// Each alert fires when it should, by Prometheus' own engine, and does not when all is
// well. Series are written as promtool has them: "0+1x10" is 0, 1, 2 … 10.
func TestAlertsFire(t *testing.T) {
	all := alerts(t)
	tested := map[string][]bool{}
	for name, test := range map[string]struct {
		alert  string
		series []string
		at     time.Duration
		// fires are the labels of what fires, but for alertname and severity.
		fires []map[string]string
	}{
		"a callback fails for long": {
			"PostbusCallbackFailing",
			[]string{`postbus_dispatcher_subscription_state{` + ofCRM + `,state="Failing"} 1x60`},
			16 * time.Minute, crm,
		},
		"a callback fails and is handed over to another dispatcher": {
			"PostbusCallbackFailing",
			[]string{
				`postbus_dispatcher_subscription_state{` + ofCRM + `,state="Failing",pod="a"} 1x8 stale`,
				`postbus_dispatcher_subscription_state{` + ofCRM + `,state="Failing",pod="b"} _x9 1x60`,
			},
			16 * time.Minute, crm,
		},
		"a callback fails for a short time": {
			"PostbusCallbackFailing",
			[]string{`postbus_dispatcher_subscription_state{` + ofCRM + `,state="Failing"} 1x10 stale`},
			16 * time.Minute, nil,
		},
		"a callback is deactivated": {
			"PostbusCallbackDeactivated",
			[]string{`postbus_dispatcher_subscription_state{` + ofCRM + `,state="Failed"} 1x5`},
			time.Minute, crm,
		},
		"a callback is well": {
			"PostbusCallbackDeactivated",
			[]string{`postbus_dispatcher_subscription_state{` + ofCRM + `,state="Active"} 1x5`},
			time.Minute, nil,
		},
		"an event waits for long": {
			"PostbusBacklogOld",
			[]string{
				`postbus_dispatcher_subscription_oldest_pending_event_timestamp_seconds{` + ofCRM + `} 0x100`,
				`postbus_dispatcher_subscription_state{` + ofCRM + `,state="Active"} 1x100`,
			},
			70 * time.Minute, crm,
		},
		"an event of a suspended subscription waits for long": {
			"PostbusBacklogOld",
			[]string{
				`postbus_dispatcher_subscription_oldest_pending_event_timestamp_seconds{` + ofCRM + `} 0x100`,
				`postbus_dispatcher_subscription_state{` + ofCRM + `,state="Suspended"} 1x100`,
			},
			70 * time.Minute, nil,
		},
		"events are set aside": {
			"PostbusEventsSetAside",
			[]string{`postbus_dispatcher_subscription_set_aside_events_total{` + ofCRM + `} 0x5 1x60`},
			10 * time.Minute, crm,
		},
		"no event is set aside": {
			"PostbusEventsSetAside",
			[]string{`postbus_dispatcher_subscription_set_aside_events_total{` + ofCRM + `} 3x60`},
			10 * time.Minute, nil,
		},
		"a mail waits for long": {
			"PostbusMailsNotSent",
			[]string{`postbus_dispatcher_oldest_pending_mail_timestamp_seconds 0x60`, `postbus_dispatcher_oldest_pending_mail_timestamp_seconds{pod="b"} 1200x60`},
			40 * time.Minute,
			[]map[string]string{{}},
		},
		"no mail waits": {"PostbusMailsNotSent", []string{`postbus_dispatcher_pending_mails 0x60`}, 40 * time.Minute, nil},
		"there is no ingress": {
			"PostbusNoIngress", []string{`postbus_dispatcher_subscriptions{state="Active"} 1x10`}, 5 * time.Minute, []map[string]string{{}},
		},
		"there is an ingress": {"PostbusNoIngress", []string{`postbus_ingress_requests_total{code="200"} 1x10`}, 5 * time.Minute, nil},
		"ingress answers with errors": {
			"PostbusIngressErrors",
			[]string{`postbus_ingress_requests_total{code="200"} 0+90x20`, `postbus_ingress_requests_total{code="503"} 0+10x20`},
			15 * time.Minute,
			[]map[string]string{{}},
		},
		"ingress refuses what is wrong": {
			"PostbusIngressErrors",
			[]string{`postbus_ingress_requests_total{code="200"} 0+90x20`, `postbus_ingress_requests_total{code="422"} 0+90x20`, `postbus_ingress_requests_total{code="503"} 0+1x20`},
			15 * time.Minute, nil,
		},
		"a namespace fills the log": {
			"PostbusLogGrowsFast",
			[]string{
				`postbus_ingress_log_bytes_total{namespace="marketing",pod="a"} 0+10e6x60`,
				`postbus_ingress_log_bytes_total{namespace="marketing",pod="b"} 0+10e6x60`,
				`postbus_ingress_log_bytes_total{namespace="shop",pod="a"} 0+10e6x60`,
			},
			time.Hour,
			[]map[string]string{{"namespace": "marketing"}},
		},
		"a namespace writes much, but not too much": {
			"PostbusLogGrowsFast", []string{`postbus_ingress_log_bytes_total{namespace="marketing"} 0+15e6x60`}, time.Hour, nil,
		},
		"there is no dispatcher": {
			"PostbusNoDispatcher", []string{`postbus_ingress_requests_total{code="200"} 1x10`}, 5 * time.Minute, []map[string]string{{}},
		},
		"a dispatcher delivers for nobody": {"PostbusNoDispatcher", []string{`postbus_dispatcher_subscriptions{state="Active"} 0x10`}, 5 * time.Minute, nil},
		"a dispatcher can't join": {
			"PostbusDispatcherCannotJoin",
			[]string{`postbus_dispatcher_join_errors_total{pod="a"} 0+5x10`, `postbus_dispatcher_join_errors_total{pod="b"} 0x10`},
			5 * time.Minute,
			[]map[string]string{{"pod": "a"}},
		},
		"a dispatcher could not join once": {"PostbusDispatcherCannotJoin", []string{`postbus_dispatcher_join_errors_total{pod="a"} 0x3 1x10`}, 10 * time.Minute, nil},
		"all controllers wait": {
			"PostbusNoActingController",
			[]string{`leader_election_master_status{name="controller.postbus.dev",pod="a"} 0x10`},
			5 * time.Minute,
			[]map[string]string{{}},
		},
		"one of two controllers acts": {
			"PostbusNoActingController",
			[]string{`leader_election_master_status{name="controller.postbus.dev",pod="a"} 0x10`, `leader_election_master_status{name="controller.postbus.dev",pod="b"} 1x10`},
			5 * time.Minute, nil,
		},
		"a loop of the controller fails": {
			"PostbusReconcileErrors",
			[]string{`controller_runtime_reconcile_errors_total{controller="apikey"} 0+10x60`, `controller_runtime_reconcile_errors_total{controller="another"} 0+10x60`},
			40 * time.Minute,
			[]map[string]string{{"controller": "apikey"}},
		},
		"a loop of the controller failed once": {
			"PostbusReconcileErrors", []string{`controller_runtime_reconcile_errors_total{controller="apikey"} 0 1x60`}, 40 * time.Minute, nil,
		},
		"the store is away": {
			"PostbusStoreUnavailable",
			[]string{`postbus_store_up{instance="a"} 1 0x10`, `postbus_store_up{instance="b"} 1x10`},
			5 * time.Minute,
			[]map[string]string{{"instance": "a"}},
		},
		"the store is there": {"PostbusStoreUnavailable", []string{`postbus_store_up{instance="a"} 1x10`}, 5 * time.Minute, nil},
		"operations of the store fail": {
			"PostbusStoreErrors",
			[]string{`postbus_store_errors_total{operation="read_log"} 0+1x30`, `postbus_store_errors_total{operation="join"} 0x30`},
			15 * time.Minute,
			[]map[string]string{{"operation": "read_log"}},
		},
		"operations of the store failed": {"PostbusStoreErrors", []string{`postbus_store_errors_total{operation="read_log"} 9x30`}, 15 * time.Minute, nil},
		"checkpoints fail": {
			"PostbusCheckpointErrors", []string{`postbus_dispatcher_checkpoint_errors_total 0+4x20`}, 10 * time.Minute, []map[string]string{{}},
		},
		"a checkpoint failed": {"PostbusCheckpointErrors", []string{`postbus_dispatcher_checkpoint_errors_total 0 1x20`}, 10 * time.Minute, nil},
		"the log is not pruned": {
			"PostbusLogNotPruned",
			[]string{`postbus_store_oldest_event_timestamp_seconds -` + days(34) + `x100`, `postbus_controller_retention_seconds ` + days(30) + `x100`},
			65 * time.Minute,
			[]map[string]string{{}},
		},
		"the log is pruned": {
			"PostbusLogNotPruned",
			[]string{`postbus_store_oldest_event_timestamp_seconds -` + days(34) + `x100`, `postbus_controller_retention_seconds ` + days(33) + `x100`},
			65 * time.Minute,
			nil,
		},
		"a certificate expires": {
			"PostbusCertificateExpiring", []string{`postbus_ingress_certificate_expiry_timestamp_seconds ` + days(5) + `x30`}, 15 * time.Minute, []map[string]string{{}},
		},
		"there is no certificate": {"PostbusCertificateExpiring", []string{`postbus_ingress_certificate_expiry_timestamp_seconds 0x30`}, 15 * time.Minute, nil},
		"a key expires": {
			"PostbusKeyExpiring",
			[]string{
				`postbus_controller_apikey_expiry_timestamp_seconds{namespace="marketing",apikey="form",pod="a"} ` + days(5) + `x30`,
				`postbus_controller_apikey_expiry_timestamp_seconds{namespace="marketing",apikey="form",pod="b"} ` + days(5) + `x30`,
				`postbus_controller_apikey_expiry_timestamp_seconds{namespace="marketing",apikey="shop",pod="a"} ` + days(50) + `x30`,
			},
			15 * time.Minute,
			[]map[string]string{{"namespace": "marketing", "apikey": "form"}},
		},
		"a key has expired": {
			"PostbusKeyExpiring",
			[]string{`postbus_controller_apikey_expiry_timestamp_seconds{namespace="marketing",apikey="form"} -60x30`},
			15 * time.Minute, nil,
		},
	} {
		tested[test.alert] = append(tested[test.alert], test.fires != nil)
		t.Run(name, func(t *testing.T) {
			fires, ever := firing(t, all[test.alert], test.series, test.at)
			NewWithT(t).Expect(fires).To(ConsistOf(test.fires))
			NewWithT(t).Expect(ever).To(Equal(test.fires != nil), "it does not fire before either")
		})
	}
	for name := range all {
		NewWithT(t).Expect(tested[name]).To(ContainElements(true, false), "%s is tested to fire, and not to", name)
	}
}

var crm = []map[string]string{{"namespace": "marketing", "subscription": "crm"}}

// firing returns the labels of what an alert fires at, when these series were seen, and
// whether it fired at all up to then.
func firing(t *testing.T, alert rule, series []string, at time.Duration) (fires []map[string]string, ever bool) {
	t.Helper()
	g := NewWithT(t)
	wait := model.Duration(0)
	if alert.For != "" {
		var err error
		wait, err = model.ParseDuration(alert.For)
		g.Expect(err).NotTo(HaveOccurred())
	}
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, LookbackDelta: 5 * time.Minute})
	defer func() { g.Expect(engine.Close()).To(Succeed()) }()
	seen := seriesOf(t, series)
	since := map[string]time.Duration{}
	for now := time.Duration(0); now <= at; now += evaluation {
		found := evaluate(t, engine, seen, alert.Expr, now)
		active := map[string]time.Duration{}
		fires = nil
		for _, sample := range found {
			key := sample.Metric.String()
			active[key] = now
			if began, before := since[key]; before {
				active[key] = began
			}
			if now-active[key] >= time.Duration(wait) {
				fires = append(fires, sample.Metric.DropReserved(func(name string) bool { return name == model.MetricNameLabel }).Map())
			}
		}
		since, ever = active, ever || len(fires) > 0
	}
	return fires, ever
}

// evaluate returns what an expression yields at a time.
func evaluate(t *testing.T, engine *promql.Engine, seen storage.Queryable, expression string, now time.Duration) promql.Vector {
	t.Helper()
	g := NewWithT(t)
	query, err := engine.NewInstantQuery(t.Context(), seen, nil, expression, time.UnixMilli(now.Milliseconds()))
	g.Expect(err).NotTo(HaveOccurred())
	defer query.Close()
	result, err := query.Exec(t.Context()).Vector()
	g.Expect(err).NotTo(HaveOccurred())
	return slices.Clone(result)
}

// memory has series in memory, as a server has scraped them.
type memory []storage.Series

// seriesOf reads series in the notation of promtool, a sample at each evaluation.
func seriesOf(t *testing.T, texts []string) (seen memory) {
	t.Helper()
	for _, text := range texts {
		name, values, err := parser.NewParser(parser.Options{}).ParseSeriesDesc(text)
		NewWithT(t).Expect(err).NotTo(HaveOccurred(), text)
		scraped := promql.Series{Metric: name}
		for i, value := range values {
			if !value.Omitted {
				scraped.Floats = append(scraped.Floats, promql.FPoint{T: int64(i) * evaluation.Milliseconds(), F: value.Value})
			}
		}
		seen = append(seen, promql.NewStorageSeries(scraped))
	}
	return seen
}

// Querier implements storage.Queryable.
func (m memory) Querier(int64, int64) (storage.Querier, error) { return querier{seen: m}, nil }

// querier answers from memory.
type querier struct {
	storage.LabelQuerier
	seen memory
}

// Close implements storage.Querier.
func (querier) Close() error { return nil }

// Select implements storage.Querier.
func (q querier) Select(_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	set := &seriesSet{}
	for _, series := range q.seen {
		if !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(series.Labels().Get(m.Name)) }) {
			set.series = append(set.series, series)
		}
	}
	return set
}

// seriesSet goes through series.
type seriesSet struct {
	series []storage.Series
	next   int
}

// Next implements storage.SeriesSet.
func (s *seriesSet) Next() bool {
	s.next++
	return s.next <= len(s.series)
}

// At implements storage.SeriesSet.
func (s *seriesSet) At() storage.Series { return s.series[s.next-1] }

// Err implements storage.SeriesSet.
func (s *seriesSet) Err() error { return nil }

// Warnings implements storage.SeriesSet.
func (s *seriesSet) Warnings() annotations.Annotations { return nil }
