package controllers

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/store"
)

// The pacer is fed by hand here: row changes and the time are the input, what
// is due is the output.
func TestPacer(t *testing.T) {
	g := NewWithT(t)
	key := store.SubscriptionKey{Namespace: "marketing", Name: "crm"}
	start := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	after := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	p := newPacer(5 * time.Second)
	row := store.Delivery{Key: key}

	p.observe(row, after(0))
	g.Expect(p.due(after(0))).To(ConsistOf(key), "the first change is due at once")
	g.Expect(p.due(after(0.5))).To(BeEmpty(), "nothing changed since")

	row.Behind = 10
	p.observe(row, after(1))
	g.Expect(p.due(after(1))).To(BeEmpty(), "a counter waits")
	row.Behind = 20
	p.observe(row, after(4))
	g.Expect(p.due(after(4.9))).To(BeEmpty(), "it still waits")
	g.Expect(p.due(after(5))).To(ConsistOf(key), "both changes of the counter are due together")

	row.Health.FailingSince = after(5)
	row.Health.LastFailure = &store.Failure{Reason: v1alpha1.FailureTimeout, Attempts: 1}
	p.observe(row, after(5.5))
	g.Expect(p.due(after(5.5))).To(ConsistOf(key), "a change of state does not wait")

	row.Health.LastFailure = &store.Failure{Reason: v1alpha1.FailureTimeout, Attempts: 2}
	p.observe(row, after(6))
	g.Expect(p.due(after(6))).To(BeEmpty(), "another attempt is a counter")

	row.Health.LastFailure = &store.Failure{Reason: v1alpha1.FailureHTTPStatus, HTTPStatus: 500, Attempts: 3}
	p.observe(row, after(6.5))
	g.Expect(p.due(after(6.5))).To(ConsistOf(key), "another reason is a change of state")

	row.Health = store.Health{LastSuccess: after(7)}
	p.observe(row, after(7))
	g.Expect(p.due(after(7))).To(ConsistOf(key), "so is the recovery")
	row.Health.LastSuccess = after(7.5)
	p.observe(row, after(7.5))
	g.Expect(p.due(after(8))).To(BeEmpty(), "a later success is a counter")
	g.Expect(p.due(after(12))).To(ConsistOf(key))

	g.Expect(p.due(after(17))).To(BeEmpty())
	g.Expect(p.paces).To(BeEmpty(), "a quiet subscription is forgotten")
}

// However many are busy, their counters are sent a hundred times in an interval.
func TestPacerOfMany(t *testing.T) {
	g := NewWithT(t)
	const many, interval = 5 * sharesOfInterval, 5 * time.Second
	start := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	p, sent := newPacer(interval), 0
	for at := time.Duration(0); at < time.Hour; at += time.Second {
		for n := range many {
			row := store.Delivery{Key: store.SubscriptionKey{Namespace: "marketing", Name: fmt.Sprint("crm-", n)}, Behind: int64(at)}
			p.observe(row, start.Add(at))
		}
		sent += len(p.due(start.Add(at)))
	}
	g.Expect(sent).To(Equal(sharesOfInterval * int(time.Hour/interval)))
}

func TestRowsThatChangedAreSent(t *testing.T) {
	b := newBench(t)
	subscription := b.newSubscription()
	b.pass(subscription)
	changed := make(changes, 10)
	watch := &deliveryWatch{
		store: b.store, now: func() time.Time { return b.now }, pacer: newPacer(5 * time.Second), changed: changed,
	}
	b.Expect(watch.look(t.Context())).To(Succeed())
	b.Expect(changed).To(HaveLen(1))
	sent := <-changed
	b.Expect(sent.Object.GetNamespace()).To(Equal(b.namespace))
	b.Expect(sent.Object.GetName()).To(Equal("crm"))

	b.Expect(watch.look(t.Context())).To(Succeed())
	b.Expect(changed).To(BeEmpty(), "nothing changed")

	b.deliver(subscription, func(row *store.Delivery) { row.Behind = 3 })
	b.Expect(watch.look(t.Context())).To(Succeed())
	b.Expect(changed).To(BeEmpty(), "a counter waits")
	b.now = b.now.Add(5 * time.Second)
	b.Expect(watch.look(t.Context())).To(Succeed())
	b.Expect(changed).To(HaveLen(1))
}
