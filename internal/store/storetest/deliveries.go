package storetest

import (
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

var crm = store.SubscriptionKey{Namespace: "marketing", Name: "crm"}

func testOpenDelivery(t *testing.T, s store.Store) {
	g := NewWithT(t)
	_, err := s.LoadDelivery(t.Context(), crm)
	g.Expect(err).To(MatchError(store.ErrNotFound))

	before := mustChange(t, s, save(address(1), "Max"))
	g.Expect(s.OpenDelivery(t.Context(), crm)).To(Succeed())
	opened, err := s.LoadDelivery(t.Context(), crm)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(opened.Key).To(Equal(crm))
	g.Expect(opened.Cursor).To(Equal(before.Events[0].Position))
	g.Expect(opened.Open).To(BeEmpty())

	mustChange(t, s, save(address(2), "Max"))
	g.Expect(s.OpenDelivery(t.Context(), crm)).To(Succeed())
	again, err := s.LoadDelivery(t.Context(), crm)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(again).To(Equal(opened), "opening twice changes nothing")

	g.Expect(s.DropDelivery(t.Context(), crm)).To(Succeed())
	g.Expect(s.DropDelivery(t.Context(), crm)).To(Succeed(), "dropping twice is nothing new")
	_, err = s.LoadDelivery(t.Context(), crm)
	g.Expect(err).To(MatchError(store.ErrNotFound))
}

// testOpenDeliveryRace opens deliveries while writers write: what was committed
// after a delivery was opened must lie behind its cursor.
func testOpenDeliveryRace(t *testing.T, s store.Store) {
	g := NewWithT(t)
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for n := range 50 {
				mustChange(t, s, save(address(w*50+n), "Max"))
			}
		})
	}
	for n := range 20 {
		key := store.SubscriptionKey{Namespace: "marketing", Name: address(n)}
		g.Expect(s.OpenDelivery(t.Context(), key)).To(Succeed())
		after := mustChange(t, s, save(address(10000+n), "Max"))
		delivery, err := s.LoadDelivery(t.Context(), key)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(delivery.Cursor).To(BeNumerically("<", after.Events[0].Position))
	}
	all.Wait()
}

func testCheckpoint(t *testing.T, s store.Store) {
	g := NewWithT(t)
	shop := store.SubscriptionKey{Namespace: "marketing", Name: "shop"}
	written := store.Delivery{
		Key: crm, Token: open(t, s, crm), Cursor: 7, Behind: 3,
		Open: []store.OpenEvent{
			{Position: 5, Attempts: 2, Retries: 1, FirstAttempt: now, NextAttempt: now, WaitEnds: now.Add(time.Second), Replayed: true},
			{Position: 6, Held: 3},
			{Position: 7},
		},
		Health: store.Health{
			LastSuccess: now, FailingSince: now.Add(time.Second), DeactivationDue: now.Add(time.Minute),
			LastFailure: &store.Failure{Time: now, Reason: "HTTPStatus", HTTPStatus: 500, Attempts: 2},
		},
		Life: store.Life{
			Deactivation: &store.Deactivation{At: now, Until: now.Add(time.Hour), Ended: true, Lost: 2, LostFrom: now, LostTo: now},
			Owed:         store.Owed{Spans: []store.Span{{After: 1, UpTo: 3}, {After: 4, UpTo: 5}}, Aside: store.Span{UpTo: 9}, Events: 3},
			Replay:       &store.Replay{Of: v1alpha1.ReplayOfBuffer, Total: 9, Sent: 2, Failed: 1, StartedAt: now, FinishedAt: now, Interrupted: true},
			Answers: map[store.RequestType]store.Answer{
				v1alpha1.RequestReactivate: {Value: "a", Result: v1alpha1.RequestDone, Message: "Reactivated.", Time: now},
			},
			Notices: []store.SentNotice{{Subject: "a", Recipient: "b", At: now}},
		},
		Operations: 4,
	}
	gone, err := s.Checkpoint(t.Context(), []store.Progress{{Delivery: written}, {Delivery: store.Delivery{Key: shop}}})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(gone).To(Equal([]store.SubscriptionKey{shop}), "a checkpoint makes no row")

	read, err := s.LoadDelivery(t.Context(), crm)
	g.Expect(err).NotTo(HaveOccurred())
	written.Revision = read.Revision
	g.Expect(read).To(Equal(written))
	_, err = s.LoadDelivery(t.Context(), shop)
	g.Expect(err).To(MatchError(store.ErrNotFound))

	// Whoever still holds a row that was dropped and opened again is refused.
	g.Expect(s.DropDelivery(t.Context(), crm)).To(Succeed())
	g.Expect(open(t, s, crm)).NotTo(Equal(written.Token))
	written.Operations++
	g.Expect(s.Checkpoint(t.Context(), []store.Progress{{Delivery: written, Aside: []int64{1}, Raised: []contact.Event{failing()}}})).To(Equal([]store.SubscriptionKey{crm}))
	read, err = s.LoadDelivery(t.Context(), crm)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(read.Cursor).To(BeZero())
	g.Expect(read.SetAside).To(BeZero())
	g.Expect(s.Head(t.Context())).To(BeZero(), "nothing that belongs to it is written either")
}

// open opens a delivery and returns its token.
func open(t *testing.T, s store.Deliveries, key store.SubscriptionKey) int64 {
	t.Helper()
	g := NewWithT(t)
	g.Expect(s.OpenDelivery(t.Context(), key)).To(Succeed())
	delivery, err := s.LoadDelivery(t.Context(), key)
	g.Expect(err).NotTo(HaveOccurred())
	return delivery.Token
}

func testDeliveriesSince(t *testing.T, s store.Store) {
	g := NewWithT(t)
	keys := []store.SubscriptionKey{crm, {Namespace: "marketing", Name: "shop"}, {Namespace: "sales", Name: "crm"}}
	for _, key := range keys {
		g.Expect(s.OpenDelivery(t.Context(), key)).To(Succeed())
	}
	all, err := s.DeliveriesSince(t.Context(), 0)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(all).To(HaveLen(3))
	g.Expect(all[0].Revision).To(BeNumerically("<", all[1].Revision))
	last := all[2].Revision

	g.Expect(s.DropDelivery(t.Context(), keys[2])).To(Succeed()) // the row with the highest revision
	_, err = s.Checkpoint(t.Context(), []store.Progress{
		{Delivery: store.Delivery{Key: keys[1], Token: all[1].Token, Cursor: 9}},
		{Delivery: store.Delivery{Key: keys[0], Token: all[0].Token, Cursor: 9}},
	})
	g.Expect(err).NotTo(HaveOccurred())
	changed, err := s.DeliveriesSince(t.Context(), last)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(changed).To(HaveLen(2))
	g.Expect([]store.SubscriptionKey{changed[0].Key, changed[1].Key}).To(Equal([]store.SubscriptionKey{keys[1], keys[0]}))
	g.Expect(s.DeliveriesSince(t.Context(), changed[1].Revision)).To(BeEmpty())
}
