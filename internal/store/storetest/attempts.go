package storetest

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

func attempt(n int) store.Attempt {
	return store.Attempt{
		Time: now.Add(time.Duration(n) * time.Second), EventID: fmt.Sprintf("evt_%d", n), EventType: contact.EventSubscribe,
		Number: 2, Outcome: "HTTPStatus", HTTPStatus: 503, Duration: 12 * time.Millisecond, Replay: true, Test: n == 1,
	}
}

func testAttempts(t *testing.T, s store.Store) {
	g := NewWithT(t)
	token := open(t, s, crm)
	shop := store.SubscriptionKey{Namespace: "marketing", Name: "shop"}
	shopToken := open(t, s, shop)
	g.Expect(s.LoadAttempts(t.Context(), crm, store.MaxAttempts)).To(BeEmpty())
	before, err := s.LoadDelivery(t.Context(), shop)
	g.Expect(err).NotTo(HaveOccurred())

	first, second := attempt(1), attempt(2)
	g.Expect(s.AddAttempts(t.Context(), []store.AttemptLog{
		{Key: crm, Token: token, Attempts: []store.Attempt{first}},
		{Key: shop, Token: shopToken + 1, Attempts: []store.Attempt{second}},
		{Key: store.SubscriptionKey{Namespace: "marketing", Name: "gone"}, Token: 1, Attempts: []store.Attempt{second}},
	})).To(Succeed())
	g.Expect(s.LoadAttempts(t.Context(), crm, store.MaxAttempts)).To(Equal([]store.Attempt{first}))
	g.Expect(s.LoadAttempts(t.Context(), shop, store.MaxAttempts)).To(BeEmpty(), "its row is another one")
	changed, err := s.DeliveriesSince(t.Context(), before.Revision)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(changed).To(ConsistOf(HaveField("Key", crm)), "a watcher of rows sees it")

	g.Expect(s.AddAttempts(t.Context(), []store.AttemptLog{{Key: crm, Token: token, Attempts: []store.Attempt{second}}})).To(Succeed())
	g.Expect(s.LoadAttempts(t.Context(), crm, store.MaxAttempts)).To(Equal([]store.Attempt{first, second}))

	var many []store.Attempt
	for n := range store.MaxAttempts {
		many = append(many, attempt(n+3))
	}
	g.Expect(s.AddAttempts(t.Context(), []store.AttemptLog{{Key: crm, Token: token, Attempts: many}})).To(Succeed())
	g.Expect(s.LoadAttempts(t.Context(), crm, store.MaxAttempts)).To(Equal(many), "the oldest make room")
	g.Expect(s.LoadAttempts(t.Context(), crm, 3)).To(Equal(many[store.MaxAttempts-3:]))

	g.Expect(s.DropDelivery(t.Context(), crm)).To(Succeed())
	g.Expect(s.LoadAttempts(t.Context(), crm, store.MaxAttempts)).To(BeEmpty())
}
