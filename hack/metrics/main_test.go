package main

import (
	"testing"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

func TestReference(t *testing.T) {
	g := NewWithT(t)
	text, err := reference([]component{{"Post office", func(registerer prometheus.Registerer) error {
		letters := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "letters_total", Help: "Letters taken."}, []string{"size"})
		letters.WithLabelValues("big")
		letters.WithLabelValues("small")
		return registerer.Register(letters)
	}}})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(text).To(HaveSuffix("\n## Post office\n\n| Metric | Type | Meaning | Labels |\n| --- | --- | --- | --- |\n" +
		"| `letters_total` | counter | Letters taken. | `size`: big, small |\n"))
}

func TestEveryComponentHasMetricsOfItsOwn(t *testing.T) {
	g := NewWithT(t)
	text, err := reference(components)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(text).To(And(ContainSubstring("`postbus_ingress_"), ContainSubstring("`postbus_dispatcher_"),
		ContainSubstring("`postbus_controller_"), ContainSubstring("`postbus_store_")))
}

// Prometheus' own linter knows its conventions of names, units and help texts.
func TestNamesFollowTheConventions(t *testing.T) {
	g := NewWithT(t)
	registry := prometheus.NewRegistry()
	for _, c := range components {
		g.Expect(c.register(registry)).To(Succeed())
	}
	families, err := registry.Gather()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(promlint.NewWithMetricFamilies(families).Lint()).To(BeEmpty())
}
