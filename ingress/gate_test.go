package ingress

import (
	"testing"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

func TestGate(t *testing.T) {
	for name, row := range map[string]struct {
		// before is what happens at a gate for two, that first and second have entered.
		before     func(first, second *pass)
		cut        []string
		admitted   bool
		turnedAway float64
	}{
		"the one that waits the longest makes room": {
			func(_, _ *pass) {}, []string{"first"}, true, 1,
		},
		"whoever is at work is left alone": {
			func(first, _ *pass) { first.work() }, []string{"second"}, true, 1,
		},
		"a newcomer is refused when all are at work": {
			func(first, second *pass) { first.work(); second.work() }, nil, false, 1,
		},
		"after work one waits behind the others": {
			func(first, _ *pass) { first.work(); first.wait() }, []string{"second"}, true, 1,
		},
		"work lasts until all of it is done": {
			func(first, second *pass) { first.work(); first.work(); first.wait(); second.work() }, nil, false, 1,
		},
		"one that has left makes room": {
			func(_, second *pass) { second.leave() }, nil, true, 0,
		},
		"one that leaves twice makes room for one": {
			func(first, second *pass) { first.work(); second.leave(); second.leave(); second.wait() }, nil, true, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			var cut []string
			door := &gate{capacity: 2, turnedAway: prometheus.NewCounter(prometheus.CounterOpts{Name: "turned_away_total"})}
			first := door.enter(func() { cut = append(cut, "first") })
			second := door.enter(func() { cut = append(cut, "second") })
			row.before(first, second)
			third := door.enter(func() {})
			g.Expect(third != nil).To(Equal(row.admitted))
			g.Expect(cut).To(Equal(row.cut))
			g.Expect(count(t, door.turnedAway)).To(Equal(row.turnedAway))
			g.Expect(door.inside).To(Equal(2))
		})
	}
}

func count(t *testing.T, counter prometheus.Counter) float64 {
	t.Helper()
	var metric dto.Metric
	NewWithT(t).Expect(counter.Write(&metric)).To(Succeed())
	return metric.GetCounter().GetValue()
}

func TestWhoWasCutOffDoesNoWork(t *testing.T) {
	g := NewWithT(t)
	door := &gate{capacity: 1, turnedAway: prometheus.NewCounter(prometheus.CounterOpts{Name: "turned_away_total"})}
	first := door.enter(func() {})
	second := door.enter(func() {})
	g.Expect(first.isOut()).To(BeTrue())
	g.Expect(first.work()).To(BeFalse())
	first.leave()
	g.Expect(second.work()).To(BeTrue())
	g.Expect(door.inside).To(Equal(1))
}
