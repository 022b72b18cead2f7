package ingress

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"postbus.dev/postbus/api/v1alpha1"
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
			func(first, _ *pass) { first.work(); first.wait(0) }, []string{"second"}, true, 1,
		},
		"work lasts until all of it is done": {
			func(first, second *pass) { first.work(); first.work(); first.wait(0); second.work() }, nil, false, 1,
		},
		"an answer has time to be read": {
			func(first, second *pass) { first.work(); first.wait(time.Hour); second.work() }, nil, false, 1,
		},
		"an answer that nobody reads makes room": {
			func(first, second *pass) { first.work(); first.wait(time.Nanosecond); second.work() }, []string{"first"}, true, 1,
		},
		"whoever waits behind an answer makes room": {
			func(first, second *pass) { first.work(); first.wait(time.Hour); second.work(); second.wait(0) }, []string{"second"}, true, 1,
		},
		"one that has left makes room": {
			func(_, second *pass) { second.leave() }, nil, true, 0,
		},
		"one that leaves twice makes room for one": {
			func(first, second *pass) { first.work(); second.leave(); second.leave(); second.wait(0) }, nil, true, 0,
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

func TestSharesOfAKeyedGate(t *testing.T) {
	counter := func(name string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name})
	}
	key := func(namespace, name string) *v1alpha1.ApiKey {
		return &v1alpha1.ApiKey{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	}
	g := NewWithT(t)
	door := &keyedGate{
		gate: gate{capacity: 4, turnedAway: counter("all")}, requests: "imports", perKey: 2, perNamespace: 3,
		keyRefused: counter("key"), namespaceRefused: counter("namespace"),
	}
	enter := func(key *v1alpha1.ApiKey) *pass {
		p, err := door.enterFor(key, func() {})
		g.Expect(err).NotTo(HaveOccurred())
		return p
	}
	refused := func(key *v1alpha1.ApiKey) error {
		_, err := door.enterFor(key, func() {})
		return err
	}
	first := enter(key("a", "one"))
	enter(key("a", "one"))
	g.Expect(refused(key("a", "one"))).To(MatchError("the api key is at its limit of 2 imports at a time"))
	enter(key("a", "two"))
	g.Expect(refused(key("a", "two"))).To(MatchError("the api key's namespace is at its limit of 3 imports at a time"))
	other := enter(key("b", "one"))
	g.Expect(refused(key("b", "two"))).To(MatchError(errOverloaded), "all are at work")
	other.wait(0)
	next := enter(key("c", "one"))
	g.Expect(other.work()).To(BeFalse(), "whoever waits for its caller makes room")
	first.leave()
	first.leave()
	enter(key("a", "one"))
	next.leave()
	g.Expect(door.holding).To(Equal(map[owner]int{{"a", "one"}: 2, {"a", "two"}: 1, {"a", ""}: 3}), "what is not held takes no memory")
	g.Expect([]float64{count(t, door.turnedAway), count(t, door.keyRefused), count(t, door.namespaceRefused)}).To(Equal([]float64{2, 1, 1}))
}
