package controllers

import (
	"strconv"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// addAttempts adds attempts with these numbers as the dispatcher does.
func (b *bench) addAttempts(subscription *v1alpha1.WebhookSubscription, numbers ...int) {
	b.t.Helper()
	row, err := b.store.LoadDelivery(b.t.Context(), keyOf(subscription))
	b.Expect(err).NotTo(HaveOccurred())
	log := store.AttemptLog{Key: row.Key, Token: row.Token}
	for _, n := range numbers {
		log.Attempts = append(log.Attempts, store.Attempt{
			Time: b.now.Add(time.Duration(n)*time.Second + 123456*time.Microsecond), EventID: "evt_" + strconv.Itoa(n),
			EventType: contact.EventSubscribe, Number: n, Outcome: "HTTPStatus", HTTPStatus: 503,
			Duration: 12345678 * time.Nanosecond, Replay: n%2 == 0, Test: n%2 == 1,
		})
	}
	b.Expect(b.store.AddAttempts(b.t.Context(), []store.AttemptLog{log})).To(Succeed())
}

func TestStatusTellsOfAttempts(t *testing.T) {
	b := newBench(t)
	subscription := b.newSubscription()
	b.pass(subscription)
	b.Expect(subscription.Status.RecentAttempts).To(BeEmpty())
	b.addAttempts(subscription, 1, 2)
	b.pass(subscription)
	recent := subscription.Status.RecentAttempts
	b.Expect(recent).To(HaveExactElements(HaveField("EventID", "evt_2"), HaveField("EventID", "evt_1")))
	b.Expect(recent[0].Time.Time).To(BeTemporally("==", b.now.Add(2*time.Second+123456*time.Microsecond)))
	b.Expect(recent[0]).To(And(
		HaveField("EventType", "Subscribe"), HaveField("Attempt", int32(2)), HaveField("Outcome", "HTTPStatus"),
		HaveField("HTTPStatus", HaveValue(BeEquivalentTo(503))), HaveField("Duration.Duration", 12300*time.Microsecond),
		HaveField("Replay", HaveValue(BeTrue())), HaveField("Test", BeNil())))
	b.Expect(recent[1]).To(And(HaveField("Replay", BeNil()), HaveField("Test", HaveValue(BeTrue()))))

	version := subscription.ResourceVersion
	b.pass(subscription)
	b.Expect(subscription.ResourceVersion).To(Equal(version), "what is read back equals what was written")

	b.addAttempts(subscription, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
	b.pass(subscription)
	b.Expect(subscription.Status.RecentAttempts).To(HaveLen(10))
	b.Expect(subscription.Status.RecentAttempts[0].EventID).To(Equal("evt_12"))
	b.Expect(subscription.Status.RecentAttempts[9].EventID).To(Equal("evt_3"))
}

// Attempts reach status with the counters, so that they cost no write more.
func TestAttemptsWaitLikeCounters(t *testing.T) {
	b := newBench(t)
	subscription := b.newSubscription()
	b.pass(subscription)
	changed := make(changes, 10)
	watch := &deliveryWatch{
		store: b.store, now: func() time.Time { return b.now }, pacer: newPacer(5 * time.Second), changed: changed,
	}
	looks := func() int {
		b.Expect(watch.look(t.Context())).To(Succeed())
		count := len(changed)
		for range count {
			<-changed
		}
		return count
	}
	b.Expect(looks()).To(Equal(1))
	b.now = b.now.Add(5 * time.Second)
	b.deliver(subscription, func(row *store.Delivery) { row.Health.LastSuccess = b.now })
	b.addAttempts(subscription, 1)
	b.Expect(looks()).To(Equal(1), "with the checkpoint of the same moment")
	b.now = b.now.Add(4 * time.Second)
	b.addAttempts(subscription, 2)
	b.Expect(looks()).To(BeZero())
	b.now = b.now.Add(time.Second)
	b.Expect(looks()).To(Equal(1), "the next time the counters are told")
}
