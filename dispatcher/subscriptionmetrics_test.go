package dispatcher

import (
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"k8s.io/utils/ptr"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// scrape returns what the dispatcher's metrics show.
func (r *rig) scrape() string {
	r.t.Helper()
	g := NewWithT(r.t)
	families, err := r.metrics.Gather()
	g.Expect(err).NotTo(HaveOccurred())
	var text strings.Builder
	for _, family := range families {
		_, err := expfmt.MetricFamilyToText(&text, family)
		g.Expect(err).NotTo(HaveOccurred())
	}
	return text.String()
}

// series returns a line of a scrape of one subscription, without its value.
func (r *rig) series(metric, subscription string, more ...string) string {
	labels := append([]string{fmt.Sprintf("namespace=%q", r.namespace)}, more...)
	labels = append(labels, fmt.Sprintf("subscription=%q", subscription))
	return "postbus_dispatcher_subscription_" + metric + "{" + strings.Join(labels, ",") + "}"
}

func TestSubscriptionMetrics(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	crm := r.subscribe("crm", nil)
	r.subscribe("held", func(object *v1alpha1.WebhookSubscription) { object.Spec.Suspend = ptr.To(true) })
	first := time.Now().Add(-time.Hour)
	r.postAt("ada@example.com", first)
	r.run()

	g.Eventually(r.scrape, patience).Should(And(
		ContainSubstring(r.series("delivery_latency_seconds_count", "crm")+" 1\n"),
		ContainSubstring(r.series("attempts_total", "crm", `outcome="Delivered"`)+" 1\n"),
		ContainSubstring(r.series("pending_events", "crm")+" 0\n"),
		ContainSubstring(r.series("set_aside_events_total", "crm")+" 0\n"),
		Not(ContainSubstring(r.series("oldest_pending_event_timestamp_seconds", "crm"))),
		ContainSubstring(r.series("pending_events", "held")+" 1\n"),
		ContainSubstring(r.series("oldest_pending_event_timestamp_seconds", "held")+" "+seconds(first)),
		ContainSubstring("postbus_dispatcher_pending_events 1\n"),
		ContainSubstring(`postbus_dispatcher_subscriptions{state="Suspended"} 1`+"\n"),
		ContainSubstring(`postbus_dispatcher_subscriptions{state="Failed"} 0`+"\n"),
	))
	g.Expect(r.scrape()).To(And(ContainSubstring(r.stateOf("crm", "Active")), ContainSubstring(r.stateOf("held", "Suspended"))))

	r.receiver.Answer(http.StatusInternalServerError)
	second := time.Now()
	r.postAt("grace@example.com", second)
	g.Eventually(r.scrape, patience).Should(And(
		ContainSubstring(r.stateOf("crm", "Failing")),
		ContainSubstring(r.series("attempts_total", "crm", `outcome="HTTPStatus"`)),
		ContainSubstring(r.series("oldest_pending_event_timestamp_seconds", "crm")+" "+seconds(second)),
	))
	g.Expect(r.scrape()).NotTo(ContainSubstring(r.stateOf("crm", "Active")))

	g.Expect(plane.Client.Delete(t.Context(), crm)).To(Succeed())
	g.Eventually(r.scrape, patience).Should(And(
		Not(ContainSubstring(`subscription="crm"`)), ContainSubstring(r.series("pending_events", "held")+" 2\n"),
	))
}

// stateOf is the line that tells of a subscription's state.
func (r *rig) stateOf(subscription, state string) string {
	return fmt.Sprintf("postbus_dispatcher_subscription_state{namespace=%q,state=%q,subscription=%q} 1\n", r.namespace, state, subscription)
}

// seconds is a time as a scrape shows it.
func seconds(at time.Time) string {
	return strconv.FormatFloat(float64(at.UnixMilli())/1000, 'g', -1, 64)
}

func TestSubscriptionMetricsOfABuffer(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	r.receiver.Answer(http.StatusGone)
	crm := r.subscribe("crm", nil)
	r.run()
	r.post("ada@example.com")
	g.Eventually(r.scrape, patience).Should(ContainSubstring(r.stateOf("crm", "Failed")))
	r.post("grace@example.com")
	g.Eventually(r.scrape, patience).Should(And(
		ContainSubstring(r.series("pending_events", "crm")+" 2\n"),
		ContainSubstring(r.series("oldest_pending_event_timestamp_seconds", "crm")),
	))

	r.receiver.Answer(http.StatusOK)
	g.Expect(r.store.PutRequest(t.Context(), store.Request{
		Key: keyOf(crm), Type: v1alpha1.RequestReactivate, Value: "1", Replay: true,
	})).To(Succeed())
	g.Eventually(r.scrape, patience).Should(And(
		ContainSubstring(r.stateOf("crm", "Active")),
		ContainSubstring(r.series("attempts_total", "crm", `outcome="Delivered"`)+" 2\n"),
		ContainSubstring(r.series("pending_events", "crm")+" 0\n"),
	))
	g.Expect(r.scrape()).To(ContainSubstring(r.series("delivery_latency_seconds_count", "crm")+" 0\n"),
		"what a replay sends late was not late on its way")
}

func TestSubscriptionMetricsCanBeLeftOut(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	r.options.OmitSubscriptionMetrics = true
	r.subscribe("crm", nil)
	r.run()
	r.post("ada@example.com")
	g.Eventually(r.receiver.Count, patience).Should(Equal(1))
	g.Expect(r.scrape()).To(And(
		ContainSubstring(`postbus_dispatcher_subscriptions{state="Active"} 1`+"\n"),
		ContainSubstring("postbus_dispatcher_pending_events "),
		Not(ContainSubstring("postbus_dispatcher_subscription_")),
	))
}

func TestOldestEvent(t *testing.T) {
	at := time.Unix(1000, 0)
	event := func(position int64) *contact.Event {
		return eventAt(position, position, at.Add(time.Duration(position)*time.Second))
	}
	for name, test := range map[string]struct {
		edit func(l *ledger)
		want time.Time
	}{
		"nothing waits": {func(*ledger) {}, time.Time{}},
		"the first of those that wait": {func(l *ledger) {
			l.take(event(1), at)
			l.take(event(2), at)
		}, at.Add(time.Second)},
		"what a replay sends is left out": {func(l *ledger) {
			l.add(&openEvent{event: event(1), replayed: true})
			l.take(event(2), at)
		}, at.Add(2 * time.Second)},
		"a buffer has what was open": {func(l *ledger) {
			l.add(&openEvent{event: event(1), replayed: true})
			l.life.Deactivation = &store.Deactivation{At: at.Add(time.Minute)}
		}, at.Add(time.Second)},
		"a buffer without open events begins with the deactivation": {func(l *ledger) {
			l.life.Deactivation = &store.Deactivation{At: at.Add(time.Minute)}
			l.life.Owed.Events = 1
		}, at.Add(time.Minute)},
		"an empty buffer has none": {func(l *ledger) {
			l.life.Deactivation = &store.Deactivation{At: at.Add(time.Minute)}
		}, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger(store.Delivery{}, nil, v1alpha1.OrderingPerContact)
			test.edit(l)
			NewWithT(t).Expect(l.oldest()).To(Equal(test.want))
		})
	}
}

func TestStatesOfMetrics(t *testing.T) {
	failing := store.Health{FailingSince: time.Unix(1, 0)}
	running := &store.Replay{StartedAt: time.Unix(1, 0)}
	for name, test := range map[string]struct {
		sub    subscription
		health store.Health
		life   store.Life
		want   v1alpha1.SubscriptionState
	}{
		"one that is not accepted is pending":        {subscription{held: true}, failing, store.Life{}, v1alpha1.StatePending},
		"a deactivated one has failed, if suspended": {subscription{accepted: true, held: true}, failing, store.Life{Deactivation: &store.Deactivation{}}, v1alpha1.StateFailed},
		"a suspended one does not fail":              {subscription{accepted: true, held: true}, failing, store.Life{}, v1alpha1.StateSuspended},
		"one that fails":                             {subscription{accepted: true}, failing, store.Life{Replay: running}, v1alpha1.StateFailing},
		"one with a replay":                          {subscription{accepted: true}, store.Health{}, store.Life{Replay: running}, v1alpha1.StateReplaying},
		"one that is well":                           {subscription{accepted: true}, store.Health{}, store.Life{}, v1alpha1.StateActive},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger(store.Delivery{Health: test.health, Life: test.life}, nil, v1alpha1.OrderingPerContact)
			r := &runner{sub: &test.sub, ledger: l}
			NewWithT(t).Expect(r.state()).To(Equal(test.want))
		})
	}
}

// BenchmarkSubscriptionMetrics tells what the metrics of 5,000 subscriptions cost that
// had a thousand deliveries each: memory, and time and size of a scrape.
func BenchmarkSubscriptionMetrics(b *testing.B) {
	g := NewWithT(b)
	const subscriptions = 5000
	m := newMetrics(prometheus.NewRegistry())
	before := bytesInUse()
	reports := make([]report, subscriptions)
	tallies := make([]*tally, subscriptions)
	for i := range reports {
		key := store.SubscriptionKey{Namespace: "marketing", Name: fmt.Sprintf("subscription-%d", i)}
		tallies[i] = newTally(m.newLatency(key))
		reports[i] = report{key: key, state: v1alpha1.StateActive, latency: tallies[i].latency}
	}
	idle := bytesInUse()
	for i, t := range tallies {
		for n := range 1000 {
			t.note(call{}, outcome{verdict: delivered}, time.Duration(5+(n*7+i)%50)*time.Millisecond)
		}
	}
	busy := bytesInUse()
	registry := prometheus.NewRegistry()
	registry.MustRegister(newCollector(func() []report {
		for i, t := range tallies {
			reports[i].attempts = t.count()
		}
		return reports
	}, false))
	var text strings.Builder
	for b.Loop() {
		text.Reset()
		families, err := registry.Gather()
		g.Expect(err).NotTo(HaveOccurred())
		for _, family := range families {
			_, err := expfmt.MetricFamilyToText(&text, family)
			g.Expect(err).NotTo(HaveOccurred())
		}
	}
	b.ReportMetric(float64(idle-before)/subscriptions, "idle-B/subscription")
	b.ReportMetric(float64(busy-before)/subscriptions, "busy-B/subscription")
	b.ReportMetric(float64(strings.Count(text.String(), "\n"))/subscriptions, "series/subscription")
	b.ReportMetric(float64(text.Len())/subscriptions, "scraped-B/subscription")
}

// bytesInUse returns how many bytes are in use.
func bytesInUse() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
