package storetest

import (
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

func remove(address string) store.Change {
	code := 2
	removal := contact.Removal{
		Event: contact.EventUnsubscribe, EventSource: contact.SourceRecipient, Time: now,
		Reason: &contact.Reason{Code: &code, Text: "too many"},
	}
	return store.Change{List: list, Address: address, Apply: removal.Decide}
}

func testRemove(t *testing.T, s store.Store) {
	g := NewWithT(t)
	subscriber := saveAs(address(1), func(c *contact.Contact) {
		c.Permission, c.ExternalID = contact.PermissionSingleOptIn, "42"
	})
	created := mustChange(t, s, subscriber)
	mustChange(t, s, save(address(2), "Max"))
	removed := mustChange(t, s, remove(address(1)))
	g.Expect(removed.Removed).To(BeTrue())
	g.Expect(removed.Contact).To(Equal(created.Contact))
	g.Expect(s.Count(t.Context(), list)).To(Equal(contact.Counts{Contacts: 1}))
	events := mustRead(t, s, store.Query{})
	g.Expect(events[2]).To(Equal(removed.Events[0]))
	g.Expect(events[2].Reason.Text).To(Equal("too many"))

	again := mustChange(t, s, remove(address(1)))
	g.Expect(again).To(BeZero(), "it is not there")
	fresh := mustChange(t, s, subscriber)
	g.Expect(fresh.Created).To(BeTrue(), "the next call makes a new contact")
	g.Expect(fresh.Contact.ID).To(BeNumerically(">", created.Contact.ID), "under a new id")
}

func testOnce(t *testing.T, s store.Store) {
	g := NewWithT(t)
	once := func(key, fingerprint string, at time.Time, change store.Change) store.Change {
		change.Once = &store.Once{Key: key, Fingerprint: fingerprint, Now: at, Until: at.Add(time.Hour)}
		return change
	}
	first := mustChange(t, s, once("a", "x", now, save(address(1), "Max")))
	repeat := mustChange(t, s, once("a", "x", now.Add(time.Minute), save(address(1), "Moritz")))
	g.Expect(repeat).To(Equal(contact.Decision{
		Contact: contact.Contact{ID: first.Contact.ID}, Created: true, Repeated: true,
	}), "what the first was told, and nothing personal")
	_, err := s.Change(t.Context(), once("a", "y", now, save(address(2), "Max")))
	g.Expect(err).To(MatchError(store.ErrOnceReused))
	g.Expect(mustRead(t, s, store.Query{})).To(HaveLen(1))

	mustChange(t, s, once("b", "x", now, save(address(1), "Moritz")))
	later := mustChange(t, s, once("a", "x", now.Add(time.Hour), save(address(1), "Max")))
	g.Expect(later.Repeated).To(BeFalse(), "the name was forgotten in time")
	g.Expect(mustRead(t, s, store.Query{})).To(HaveLen(3))

	removal := mustChange(t, s, once("c", "x", now, remove(address(1))))
	g.Expect(removal.Removed).To(BeTrue())
	g.Expect(mustChange(t, s, once("c", "x", now, remove(address(1)))).Removed).To(BeTrue())

	// A change that is refused is not remembered.
	mustChange(t, s, saveAs(address(5), func(c *contact.Contact) { c.ExternalID = "42" }))
	taken := once("d", "x", now, saveAs(address(6), func(c *contact.Contact) { c.ExternalID = "42" }))
	for range 2 {
		_, err := s.Change(t.Context(), taken)
		g.Expect(err).To(MatchError(store.ErrExternalIDTaken))
	}

	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { mustChange(t, s, once("e", "x", now, save(address(7), "Max"))) })
	}
	all.Wait()
	var posted int
	for _, event := range mustRead(t, s, store.Query{}) {
		if event.Contact.Email == address(7) {
			posted++
		}
	}
	g.Expect(posted).To(Equal(1), "of callers at the same time one is the first")
}

func testKeyUsage(t *testing.T, s store.Store) {
	g := NewWithT(t)
	form := store.KeyName{Namespace: "marketing", Name: "form"}
	shop := store.KeyName{Namespace: "marketing", Name: "shop"}
	g.Expect(s.KeyUses(t.Context(), time.Time{})).To(BeEmpty())
	g.Expect(s.NoteKeyUse(t.Context(), map[store.KeyName]time.Time{form: now, shop: now.Add(time.Minute)})).To(Succeed())
	g.Expect(s.NoteKeyUse(t.Context(), map[store.KeyName]time.Time{form: now.Add(-time.Hour)})).To(Succeed())
	g.Expect(s.KeyUses(t.Context(), time.Time{})).To(Equal(map[store.KeyName]time.Time{form: now, shop: now.Add(time.Minute)}))
	g.Expect(s.KeyUses(t.Context(), now)).To(Equal(map[store.KeyName]time.Time{shop: now.Add(time.Minute)}))
	g.Expect(s.ForgetKey(t.Context(), shop)).To(Succeed())
	g.Expect(s.ForgetKey(t.Context(), shop)).To(Succeed(), "forgetting twice is nothing new")
	g.Expect(s.KeyUses(t.Context(), now)).To(BeEmpty())
}
