package storetest

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

func testChange(t *testing.T, s store.Store) {
	g := NewWithT(t)
	created := mustChange(t, s, save(address(1), "Max"))
	g.Expect(created.Created).To(BeTrue())
	g.Expect(created.Contact.ID).To(BeNumerically(">", 0))

	var seen *contact.Contact
	change := save(address(1), "Moritz")
	apply := change.Apply
	change.Apply = func(current *contact.Contact) contact.Decision {
		seen = current
		return apply(current)
	}
	changed := mustChange(t, s, change)
	g.Expect(seen).To(HaveValue(Equal(created.Contact)), "what was stored comes back whole")
	g.Expect(changed.Contact.ID).To(Equal(created.Contact.ID))
	g.Expect(changed.Contact.StandardFields).To(HaveKeyWithValue("FIRSTNAME", "Moritz"))

	events := mustRead(t, s, store.Query{})
	g.Expect(events).To(Equal([]contact.Event{created.Events[0], changed.Events[0]}))
	g.Expect(events[0].ID).NotTo(BeEmpty())
	g.Expect(events[0].ID).NotTo(Equal(events[1].ID))
	g.Expect(events[0].List).To(Equal(list))
	g.Expect(events[0].Contact).To(Equal(created.Contact), "the contact as it was then")

	other := save(address(1), "Max")
	other.List.Name = "another"
	g.Expect(mustChange(t, s, other).Created).To(BeTrue(), "an address is one contact in each list")
}

func testNoChange(t *testing.T, s store.Store) {
	g := NewWithT(t)
	created := mustChange(t, s, save(address(1), "Max"))
	decision := mustChange(t, s, store.Change{
		List: list, Address: address(1),
		Apply: func(current *contact.Contact) contact.Decision { return contact.Decision{Contact: *current} },
	})
	g.Expect(decision.Contact).To(Equal(created.Contact))
	g.Expect(mustRead(t, s, store.Query{})).To(HaveLen(1))
}

func testExternalID(t *testing.T, s store.Store) {
	g := NewWithT(t)
	withID := func(address, id string) store.Change {
		return saveAs(address, func(c *contact.Contact) { c.ExternalID = id })
	}
	mustChange(t, s, withID(address(1), "42"))
	mustChange(t, s, withID(address(1), "42")) // its own
	_, err := s.Change(t.Context(), withID(address(2), "42"))
	g.Expect(err).To(MatchError(store.ErrExternalIDTaken))
	g.Expect(mustRead(t, s, store.Query{})).To(HaveLen(2), "what was refused left nothing")

	other := withID(address(2), "42")
	other.List.Name = "another"
	mustChange(t, s, other)

	mustChange(t, s, withID(address(1), "43"))
	mustChange(t, s, withID(address(2), "42")) // free again
	mustChange(t, s, withID(address(3), ""))
	mustChange(t, s, withID(address(4), "")) // none is no id

	// One caller's refusal does not touch those who share its commit.
	const callers = 50
	refused := make(chan error, callers)
	var all sync.WaitGroup
	for n := range callers {
		all.Go(func() {
			_, err := s.Change(t.Context(), withID(address(100+n), "shared"))
			refused <- err
			mustChange(t, s, withID(address(200+n), ""))
		})
	}
	all.Wait()
	close(refused)
	stored := 0
	for err := range refused {
		if err == nil {
			stored++
			continue
		}
		g.Expect(err).To(MatchError(store.ErrExternalIDTaken))
	}
	g.Expect(stored).To(Equal(1))
}

// testRefused has decisions refuse their changes, alone, beside others, and under a name
// that stays free.
func testRefused(t *testing.T, s store.Store) {
	g := NewWithT(t)
	refusal := &contact.InputError{Problem: contact.IllegalCustomField, Parameter: "custom_about", Name: "about", Rule: "is too much"}
	refused := store.Change{
		List: list, Address: address(1), Apply: func(*contact.Contact) contact.Decision { return contact.Decision{Refused: refusal} },
		Once: &store.Once{Key: "call", Fingerprint: "print", Now: now, Until: now.Add(time.Hour)},
	}
	decision, err := s.Change(t.Context(), refused)
	g.Expect(err).To(MatchError(refusal))
	g.Expect(decision).To(Equal(contact.Decision{}))
	results, err := s.ChangeAll(t.Context(), []store.Change{save(address(2), "Max"), refused, save(address(3), "Max")})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(results[1].Err).To(MatchError(refusal))
	g.Expect([]error{results[0].Err, results[2].Err}).To(HaveEach(Not(HaveOccurred())))
	g.Expect(s.Count(t.Context(), list)).To(Equal(contact.Counts{Contacts: 2}))
	g.Expect(mustRead(t, s, store.Query{})).To(HaveLen(2))

	again := save(address(1), "Max")
	again.Once = refused.Once
	g.Expect(mustChange(t, s, again).Created).To(BeTrue(), "the name was not used")
}

func testCount(t *testing.T, s store.Store) {
	g := NewWithT(t)
	g.Expect(s.Count(t.Context(), list)).To(Equal(contact.Counts{}))
	g.Expect(s.CountAll(t.Context())).To(BeEmpty())
	withPermission := func(address string, p contact.Permission) store.Change {
		return saveAs(address, func(c *contact.Contact) { c.Permission = p })
	}
	mustChange(t, s, withPermission(address(1), contact.PermissionNone))
	mustChange(t, s, withPermission(address(2), contact.PermissionSingleOptIn))
	mustChange(t, s, withPermission(address(3), contact.PermissionOther))
	g.Expect(s.Count(t.Context(), list)).To(Equal(contact.Counts{Contacts: 3, Subscribed: 2}))
	mustChange(t, s, withPermission(address(1), contact.PermissionDoubleOptIn))
	mustChange(t, s, withPermission(address(2), contact.PermissionNone))
	mustChange(t, s, withPermission(address(3), contact.PermissionConfirmedOptIn))
	g.Expect(s.Count(t.Context(), list)).To(Equal(contact.Counts{Contacts: 3, Subscribed: 2}))

	other := withPermission(address(1), contact.PermissionOther)
	other.List.Name = "another"
	mustChange(t, s, other)
	g.Expect(s.CountAll(t.Context())).To(Equal(map[contact.ListKey]contact.Counts{
		list: {Contacts: 3, Subscribed: 2}, other.List: {Contacts: 1, Subscribed: 1},
	}))

	head, err := s.Head(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	ended := mustChange(t, s, store.Change{List: other.List, Address: address(1), Apply: contact.EndWithList})
	g.Expect(ended.Removed).To(BeTrue())
	mustChange(t, s, store.Change{List: other.List, ContactID: ended.Contact.ID, Apply: contact.EndWithList}) // who is not there
	g.Expect(s.Count(t.Context(), other.List)).To(Equal(contact.Counts{}))
	g.Expect(s.Count(t.Context(), list)).To(Equal(contact.Counts{Contacts: 3, Subscribed: 2}))
	g.Expect(s.Head(t.Context())).To(Equal(head), "without an event")
}

func testOneContact(t *testing.T, s store.Store) {
	g := NewWithT(t)
	const callers = 50
	var all sync.WaitGroup
	for range callers {
		all.Go(func() { mustChange(t, s, save(address(1), "Max")) })
	}
	all.Wait()
	events := mustRead(t, s, store.Query{})
	g.Expect(events).To(HaveLen(callers))
	for i, event := range events {
		g.Expect(event.Contact.ID).To(Equal(events[0].Contact.ID))
		g.Expect(event.Contact.Revision).To(Equal(int64(i + 1)))
		g.Expect(event.Type == contact.EventCreate).To(Equal(i == 0), "one Create event")
	}
}

func testCancelled(t *testing.T, s store.Store) {
	g := NewWithT(t)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Change(gone, save(address(1), "Max"))
	g.Expect(err).To(MatchError(context.Canceled))
	g.Expect(mustRead(t, s, store.Query{})).To(BeEmpty())
}

func testReadBack(t *testing.T, s store.Store) {
	g := NewWithT(t)
	_, err := s.FindContact(t.Context(), list, address(1))
	g.Expect(err).To(MatchError(store.ErrNotFound))
	var stored []contact.Contact
	for n := range 7 {
		stored = append(stored, mustChange(t, s, save(address(n), "Max")).Contact)
	}
	other := save(address(1), "Max")
	other.List.Name = "another"
	mustChange(t, s, other)
	g.Expect(s.FindContact(t.Context(), list, address(3))).To(Equal(stored[3]))

	var read []contact.Contact
	after := ""
	for pages := 1; ; pages++ {
		page, next, err := s.ListContacts(t.Context(), list, after, 3)
		g.Expect(err).NotTo(HaveOccurred())
		read = append(read, page...)
		if next == "" {
			g.Expect(pages).To(Equal(3))
			break
		}
		after = next
	}
	g.Expect(read).To(Equal(stored), "in the order of addresses, of this list alone")
	g.Expect(s.ListContacts(t.Context(), list, "", 100)).To(HaveLen(7))

	wide := contact.ListKey{Namespace: list.Namespace, Name: "wide"}
	for n := range 7 {
		change := saveAs(address(n), func(c *contact.Contact) { c.SubscriptionPage = strings.Repeat("x", store.ContactsPageSize/4) })
		change.List = wide
		mustChange(t, s, change)
	}
	page, next, err := s.ListContacts(t.Context(), wide, "", 100)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(page).To(HaveLen(4), "a page is bounded in bytes")
	page, next, err = s.ListContacts(t.Context(), wide, next, 100)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(page).To(HaveLen(3))
	g.Expect(next).To(BeEmpty())
}

func testChangeAll(t *testing.T, s store.Store) {
	g := NewWithT(t)
	withID := func(address, id string) store.Change {
		return saveAs(address, func(c *contact.Contact) { c.ExternalID = id })
	}
	results, err := s.ChangeAll(t.Context(), []store.Change{
		withID(address(1), "42"), withID(address(2), "42"), save(address(1), "Moritz"), remove(address(1)), withID(address(3), "42"),
	})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(results).To(HaveLen(5))
	g.Expect(results[0].Decision.Created).To(BeTrue())
	g.Expect(results[1].Err).To(MatchError(store.ErrExternalIDTaken))
	g.Expect(results[2].Decision.Contact.ID).To(Equal(results[0].Decision.Contact.ID), "each sees what the one before did")
	g.Expect(results[3].Decision.Removed).To(BeTrue())
	g.Expect(results[4].Err).NotTo(HaveOccurred(), "the id is free again")
	events := mustRead(t, s, store.Query{})
	g.Expect(events).To(HaveLen(4))
	g.Expect(s.ChangeAll(t.Context(), nil)).To(BeEmpty())

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.ChangeAll(gone, []store.Change{save(address(9), "Max")})
	g.Expect(err).To(MatchError(context.Canceled))
}
