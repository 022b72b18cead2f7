package dispatcher

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
)

// An event can be of a clock that is ahead of ours. Sums of histograms must not sink for
// that: a server of metrics takes it for a restart.
func TestLatencyIsNotBelowZero(t *testing.T) {
	g := NewWithT(t)
	registry := prometheus.NewRegistry()
	m := newMetrics(registry)
	m.observe(good, time.Second, -time.Minute)
	m.observeMail(good, time.Second, -time.Minute)
	families, err := registry.Gather()
	g.Expect(err).NotTo(HaveOccurred())
	looked := 0
	for _, family := range families {
		if strings.HasSuffix(family.GetName(), "_latency_seconds") {
			looked++
			g.Expect(family.GetMetric()[0].GetHistogram().GetSampleCount()).To(BeEquivalentTo(1), family.GetName())
			g.Expect(family.GetMetric()[0].GetHistogram().GetSampleSum()).To(BeZero(), family.GetName())
		}
	}
	g.Expect(looked).To(Equal(2))
}
