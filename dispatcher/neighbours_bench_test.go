package dispatcher

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/testkit"
)

// What a round of the benchmark is: this many events, one after the other at this
// distance, which is 200 a second.
const (
	roundEvents   = 1000
	roundDistance = 5 * time.Millisecond
)

// BenchmarkNeighbours measures how much slower a healthy callback gets its events
// when there are callbacks beside it that hang, answer 500 and send their answer byte
// by byte. Each round measures both, so that what else the machine does is in both;
// the figures are the medians of the rounds. See docs/benchmarks.md.
func BenchmarkNeighbours(b *testing.B) {
	alone, beside := newRig(b), newRig(b)
	for _, r := range []*rig{alone, beside} {
		r.subscribe("healthy", nil)
	}
	for name, answer := range map[string]http.HandlerFunc{
		"hangs":    raw("", holdIt),
		"fails":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"trickles": raw(okChunked, repeat("1\r\nx\r\n", 100*time.Millisecond)),
	} {
		receiver := testkit.NewReceiver(b)
		receiver.AnswerWith(answer)
		beside.subscribe(name, func(s *v1alpha1.WebhookSubscription) {
			s.Spec.Callback.URL = receiver.URL()
			s.Spec.Retry.Intervals = []metav1.Duration{{Duration: 5 * time.Minute}} // the default
		})
	}
	alone.run()
	beside.run()
	for _, r := range []*rig{alone, beside} { // connections are there, and those that hang hang
		r.round(b, "warm", 200)
	}
	var aloneP99, besideP99 []time.Duration
	for b.Loop() {
		name := fmt.Sprint("round", len(aloneP99))
		aloneP99 = append(aloneP99, alone.round(b, name, roundEvents))
		besideP99 = append(besideP99, beside.round(b, name, roundEvents))
	}
	b.ReportMetric(0, "ns/op") // which is the length of a round
	b.ReportMetric(median(aloneP99).Seconds()*1000, "ms-p99-alone")
	b.ReportMetric(median(besideP99).Seconds()*1000, "ms-p99-beside")
	b.ReportMetric(median(besideP99).Seconds()/median(aloneP99).Seconds(), "ratio")
}

// round stores events and returns the 99th percentile of the time that the healthy
// callback got them after.
func (r *rig) round(b *testing.B, name string, events int) time.Duration {
	b.Helper()
	stored := make(map[string]time.Time, events)
	ticker := time.NewTicker(roundDistance)
	defer ticker.Stop()
	before := r.receiver.Count()
	for n := range events {
		<-ticker.C
		id := r.post(fmt.Sprintf("%s.%d@example.com", name, n))
		stored[id] = time.Now()
	}
	NewWithT(b).Eventually(r.receiver.Count, patience).Should(Equal(before + events))
	took := make([]time.Duration, 0, events)
	for _, call := range r.receiver.Calls()[before:] {
		took = append(took, call.Time.Sub(stored[call.Header.Get(signature.HeaderID)]))
	}
	slices.Sort(took)
	return took[len(took)*99/100]
}

func median(values []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}
