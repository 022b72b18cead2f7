package main

import (
	"testing"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
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
	g.Expect(text).To(And(ContainSubstring("`postbus_ingress_"), ContainSubstring("`postbus_dispatcher_")))
}
