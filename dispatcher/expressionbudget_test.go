package dispatcher

import (
	"context"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	clocktesting "k8s.io/utils/clock/testing"
)

func newTestBudget(fake *clocktesting.FakeClock, lane chan struct{}) *expressionBudget {
	return newExpressionBudget(fake, logr.Discard(), lane, prometheus.NewCounter(prometheus.CounterOpts{Name: "seconds"}))
}

// A subscription that overspends waits until its share makes up for it.
func TestBudgetOfExpressions(t *testing.T) {
	g := NewWithT(t)
	b := newTestBudget(clocktesting.NewFakeClock(start), make(chan struct{}, 1))
	g.Expect(b.allows(start)).To(BeTrue())
	b.spend(900 * time.Millisecond)
	g.Expect(b.allows(start)).To(BeTrue(), "there is something left of the first second")
	b.spend(300 * time.Millisecond)
	g.Expect(b.next(start)).To(BeTemporally("~", start.Add(2*time.Second), time.Millisecond), "0.2 s too much, of a tenth of a CPU")
	g.Expect(b.allows(start.Add(3 * time.Second))).To(BeTrue())
	g.Expect(b.spent()).To(Equal(1200 * time.Millisecond))

	b.next(start.Add(time.Hour)) // it has a second again, and no more
	b.clock.(*clocktesting.FakeClock).SetTime(start.Add(time.Hour))
	b.spend(time.Second)
	g.Expect(b.allows(start.Add(time.Hour))).To(BeFalse())
}

// One expression of a subscription is evaluated at a time. Whoever waits for it, or for the
// budget, ends with the context.
func TestBudgetEndsWithItsContext(t *testing.T) {
	g := NewWithT(t)
	fake := clocktesting.NewFakeClock(start)
	b := newTestBudget(fake, make(chan struct{}, 1))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	evaluated := 0
	evaluate := func() { evaluated++ }
	g.Expect(b.run(t.Context(), func() {
		g.Expect(b.run(ended, evaluate)).To(MatchError(context.Canceled))
	})).To(Succeed())
	b.spend(time.Minute)
	g.Expect(b.run(ended, evaluate)).To(MatchError(context.Canceled))
	g.Expect(evaluated).To(BeZero())

	done := make(chan error, 1)
	go func() { done <- b.run(t.Context(), evaluate) }()
	g.Eventually(fake.HasWaiters, patience).Should(BeTrue(), "it waits for its share")
	fake.Step(time.Hour)
	g.Eventually(done, patience).Should(Receive(BeNil()))
	g.Expect(evaluated).To(Equal(1))
}

// Costly expressions share a lane, and those of other subscriptions need no place in it.
func TestLaneOfCostlyExpressions(t *testing.T) {
	g := NewWithT(t)
	lane := make(chan struct{}, 1)
	costly, another := newTestBudget(clocktesting.NewFakeClock(start), lane), newTestBudget(clocktesting.NewFakeClock(start), lane)
	light := newTestBudget(clocktesting.NewFakeClock(start), lane)
	for _, b := range []*expressionBudget{costly, another} {
		b.spend(lightBurst)
	}
	g.Expect(costly.run(t.Context(), func() {
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		g.Expect(another.run(ended, func() { t.Error("two costly expressions at a time") })).To(MatchError(context.Canceled))
		passed := false
		g.Expect(light.run(t.Context(), func() { passed = true })).To(Succeed())
		g.Expect(passed).To(BeTrue())
	})).To(Succeed())
}
