package dispatcher

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// TestAttemptsAreKept looks at what the store has of attempts: first ones and
// retries, tests and replays.
func TestAttemptsAreKept(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	r.declareList("newsletter", nil)
	crm := r.subscribe("crm", nil)
	r.receiver.Answer(http.StatusServiceUnavailable)
	stop := r.run()
	kept := func() []store.Attempt {
		attempts, err := r.store.LoadAttempts(t.Context(), keyOf(crm), store.MaxAttempts)
		g.Expect(err).NotTo(HaveOccurred())
		return attempts
	}
	id := r.post("ada@example.com")
	g.Eventually(kept, patience).ShouldNot(BeEmpty())
	g.Expect(kept()[0]).To(And(
		HaveField("EventID", id), HaveField("EventType", contact.EventSubscribe), HaveField("Number", 1),
		HaveField("Outcome", "HTTPStatus"), HaveField("HTTPStatus", 503), HaveField("Duration", BeNumerically(">", 0)),
		HaveField("Time", BeTemporally("~", time.Now(), patience)), HaveField("Replay", false), HaveField("Test", false)))

	r.receiver.Answer(http.StatusOK)
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Open", BeEmpty()))
	for _, request := range []store.Request{
		{Type: v1alpha1.RequestTest, Value: "one"}, {Type: v1alpha1.RequestReplayEvent, Value: id, EventID: id},
	} {
		request.Key = keyOf(crm)
		g.Expect(r.store.PutRequest(t.Context(), request)).To(Succeed())
	}
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Life", And(
		HaveField("Answers", HaveLen(2)), HaveField("Replay", HaveValue(HaveField("Sent", int64(1)))))))
	stop()

	all := kept()
	g.Expect(all).To(ContainElement(And(HaveField("EventID", id), HaveField("Number", 2))))
	g.Expect(all).To(ContainElement(And(HaveField("EventID", HavePrefix("test_")), HaveField("Test", true), HaveField("Outcome", "Delivered"))))
	g.Expect(all).To(ContainElement(And(HaveField("EventID", id), HaveField("Replay", true), HaveField("HTTPStatus", 200))))
	g.Expect(all).To(HaveLen(r.receiver.Count()), "the last ones are written at the end")
}

// What is written when is a matter of time alone, so the clock is the test's own.
func TestAttemptsAreWrittenSeldom(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	recent := newRecentAttempts(r.store)
	open := func(name string) (store.SubscriptionKey, int64) {
		key := store.SubscriptionKey{Namespace: r.namespace, Name: name}
		g.Expect(r.store.OpenDelivery(t.Context(), key)).To(Succeed())
		row, err := r.store.LoadDelivery(t.Context(), key)
		g.Expect(err).NotTo(HaveOccurred())
		return key, row.Token
	}
	after := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	key, token := open("crm")
	note := func(n int) { recent.note(key, token, store.Attempt{Number: n}) }
	written := func(key store.SubscriptionKey) (numbers []int) {
		attempts, err := r.store.LoadAttempts(t.Context(), key, store.MaxAttempts)
		g.Expect(err).NotTo(HaveOccurred())
		for _, attempt := range attempts {
			numbers = append(numbers, attempt.Number)
		}
		return numbers
	}

	note(1)
	recent.write(t.Context(), after(0), false)
	g.Expect(written(key)).To(Equal([]int{1}), "the first one at once")
	note(2)
	note(3)
	for _, at := range []float64{0.25, 0.5, 3.9} {
		recent.write(t.Context(), after(at), false)
	}
	g.Expect(written(key)).To(HaveLen(1), "later ones wait")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	recent.write(cancelled, after(4), false)
	note(4)
	recent.write(t.Context(), after(8), false)
	g.Expect(written(key)).To(Equal([]int{1, 2, 3, 4}), "what could not be written is written the next time")
	note(5)
	recent.write(t.Context(), after(8.25), true)
	g.Expect(written(key)).To(HaveLen(5), "the last time waits for nothing")

	recent.write(t.Context(), after(20), false)
	g.Expect(recent.unsaid).To(BeEmpty())
	g.Expect(recent.notBefore).To(BeEmpty(), "a quiet subscription takes no room")
	for n := range 10 * store.MaxAttempts {
		note(n)
	}
	g.Expect(len(recent.unsaid[key].Attempts)).To(BeNumerically("<=", 2*store.MaxAttempts), "a busy one takes a bounded room")
	recent.note(key, token+1, store.Attempt{Number: 1})
	g.Expect(recent.unsaid[key].Attempts).To(HaveLen(1), "another row begins anew")

	var keys []store.SubscriptionKey
	for n := range recentBatch + 1 {
		other, otherToken := open(fmt.Sprint(n))
		recent.note(other, otherToken, store.Attempt{Number: 1})
		keys = append(keys, other)
	}
	delete(recent.unsaid, key)
	recent.write(t.Context(), after(30), false)
	count := 0
	for _, other := range keys {
		count += len(written(other))
	}
	g.Expect(count).To(Equal(recentBatch), "no commit is long")
}
