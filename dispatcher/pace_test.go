package dispatcher

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
)

// callsOf returns the calls that a pace lets go in a time, as often as they want to,
// looked at when it says, but not before another tick.
func callsOf(p *pace, from time.Time, during, tick time.Duration) (calls []time.Time) {
	for now := from; now.Before(from.Add(during)); {
		for p.allows(now) {
			p.begin(now)
			calls = append(calls, now)
		}
		now = later(p.next(now), now.Add(tick))
	}
	return calls
}

// most returns the most calls within any time of this length.
func most(calls []time.Time, within time.Duration) (count int) {
	first := 0
	for i, at := range calls {
		for !calls[first].After(at.Add(-within)) {
			first++
		}
		count = max(count, i-first+1)
	}
	return count
}

func TestPace(t *testing.T) {
	begin := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	for _, perSecond := range []int{1, 2, 3, 7, 50, 99, 100, 333, 1000, 10000} {
		for _, tick := range []time.Duration{time.Nanosecond, time.Millisecond} {
			t.Run(fmt.Sprint(perSecond, " a second, looked at every ", tick), func(t *testing.T) {
				g := NewWithT(t)
				p := &pace{}
				p.set(perSecond, begin)
				calls := callsOf(p, begin, 10*time.Second, tick)
				g.Expect(len(calls)).To(BeNumerically("~", 10*perSecond, max(1, perSecond/10)), "1 % and the first")
				g.Expect(most(calls, time.Second)).To(BeNumerically("<=", perSecond+burst(perSecond)))
				g.Expect(most(calls, 100*time.Millisecond)).To(BeNumerically("<=", (perSecond+9)/10+burst(perSecond)), "evenly")
			})
		}
	}
}

func TestPaceThatChanges(t *testing.T) {
	g := NewWithT(t)
	now := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	p := &pace{}
	g.Expect(p.next(now)).To(Equal(now))
	p.begin(now)
	g.Expect(p.allows(now)).To(BeTrue(), "without a limit")

	p.set(10, now)
	g.Expect(p.allows(now)).To(BeTrue())
	p.begin(now)
	g.Expect(p.allows(now)).To(BeFalse())
	g.Expect(p.next(now)).To(BeTemporally("~", now.Add(100*time.Millisecond), time.Microsecond))

	p.set(10, now)
	g.Expect(p.allows(now)).To(BeFalse(), "the same limit again is none more")
	p.set(2, now)
	g.Expect(p.next(now)).To(BeTemporally("~", now.Add(500*time.Millisecond), time.Microsecond))
	p.set(0, now)
	g.Expect(p.allows(now)).To(BeTrue())

	p.set(2, now)
	now = now.Add(time.Hour)
	g.Expect(callsOf(p, now, time.Second-1, time.Nanosecond)).To(HaveLen(2), "a quiet hour is not saved up")
}

func TestRateOfASubscription(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	const perSecond, events = 40, 60
	crm := r.subscribe("crm", func(s *v1alpha1.WebhookSubscription) { s.Spec.RateLimit.RequestsPerSecond = perSecond })
	r.run()
	r.postMany("before", 1)
	g.Eventually(r.delivery(crm), patience).Should(settled, "it has read its Secret, and has a connection")
	r.postMany("contact", events)
	g.Eventually(r.receiver.Count, patience).Should(BeNumerically(">=", events+1))
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Open", BeEmpty()))
	calls := r.receiver.Calls()
	took := calls[events].Time.Sub(calls[1].Time)
	g.Expect(took).To(BeNumerically(">=", events*time.Second/perSecond*3/4), "the first may have been on its way for longer than the last")
}
