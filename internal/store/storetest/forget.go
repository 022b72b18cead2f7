package storetest

import (
	"encoding/json"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

func forget(address string) store.Change {
	removal := contact.Removal{Event: contact.EventDelete, EventSource: contact.SourceAPI, Time: now, Forget: true}
	return store.Change{List: list, Address: address, Apply: removal.Decide}
}

func testForget(t *testing.T, s store.Store) {
	g := NewWithT(t)
	shop := store.SubscriptionKey{Namespace: list.Namespace, Name: "shop"}
	crmToken, shopToken := open(t, s, crm), open(t, s, shop)
	mustChange(t, s, save(address(1), "Max"))
	mustChange(t, s, remove(address(1))) // an earlier life of the same address
	created := mustChange(t, s, save(address(1), "Max"))
	other := mustChange(t, s, save(address(2), "Max"))
	forgotten := mustChange(t, s, forget(address(1)))
	g.Expect(forgotten.Removed).To(BeTrue())
	g.Expect(forgotten.Contact).To(Equal(created.Contact))
	position := forgotten.Events[0].Position

	left := mustRead(t, s, store.Query{})
	g.Expect(positions(left)).To(Equal([]int64{other.Events[0].Position, position}), "the past is gone at once")
	g.Expect(left[1]).To(Equal(forgotten.Events[0]), "the Delete event still says who it was")
	g.Expect(left[1].Forget).To(BeTrue())
	g.Expect(left[1].Address).To(Equal(address(1)))

	scrub := func() int {
		scrubbed, err := s.ScrubForgotten(t.Context())
		g.Expect(err).NotTo(HaveOccurred())
		return scrubbed
	}
	checkpoint := func(delivery store.Delivery) {
		gone, err := s.Checkpoint(t.Context(), []store.Progress{{Delivery: delivery}})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(gone).To(BeEmpty())
	}
	g.Expect(scrub()).To(BeZero(), "nobody has it yet")
	checkpoint(store.Delivery{Key: crm, Token: crmToken, Cursor: position, Open: []store.OpenEvent{{Position: position, Attempts: 1}}})
	checkpoint(store.Delivery{Key: shop, Token: shopToken, Cursor: position})
	g.Expect(scrub()).To(BeZero(), "crm is still being told")
	checkpoint(store.Delivery{Key: crm, Token: crmToken, Cursor: position, Open: []store.OpenEvent{{Position: position - 1}, {Position: position}}})
	g.Expect(scrub()).To(BeZero(), "crm is still to be told")
	checkpoint(store.Delivery{Key: crm, Token: crmToken, Cursor: position})
	g.Expect(scrub()).To(Equal(1))
	g.Expect(scrub()).To(BeZero(), "once")

	for _, event := range mustRead(t, s, store.Query{}) {
		text, err := json.Marshal(event)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(string(text)).NotTo(ContainSubstring(address(1)))
	}
	tombstone := mustRead(t, s, store.Query{Positions: []int64{position}})
	g.Expect(tombstone).To(HaveLen(1))
	g.Expect(tombstone[0].Type).To(Equal(contact.EventDelete))
	g.Expect(tombstone[0].Contact).To(BeZero())

	// Somebody who has left already is forgotten by what the log still has.
	mustChange(t, s, remove(address(2)))
	absent := mustChange(t, s, forget(address(2)))
	g.Expect(absent.Removed).To(BeFalse())
	g.Expect(positions(mustRead(t, s, store.Query{}))).To(Equal([]int64{position, absent.Events[0].Position}))
	g.Expect(absent.Events[0].Contact).To(BeZero())
	g.Expect(s.Count(t.Context(), list)).To(Equal(contact.Counts{}))
}
