package storetest

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

const (
	firstUID  = "6a1c0d5e-0000-4000-8000-000000000001"
	secondUID = "6a1c0d5e-0000-4000-8000-000000000002"
	thirdUID  = "6a1c0d5e-0000-4000-8000-000000000003"
)

func mustLoadNamespace(t *testing.T, s store.Store) store.Namespace {
	t.Helper()
	bound, err := s.LoadNamespace(t.Context(), list.Namespace)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return bound
}

// ofOther returns a change of a contact in another namespace.
func ofOther(address string) store.Change {
	change := save(address, "Max")
	change.List.Namespace = "sales"
	return change
}

func testAdoptNamespace(t *testing.T, s store.Store) {
	g := NewWithT(t)
	g.Expect(mustLoadNamespace(t, s)).To(Equal(store.Namespace{Name: list.Namespace}), "it is not bound")
	mustChange(t, s, save(address(1), "Max"))
	open(t, s, crm)
	for range 2 { // a repeat does nothing
		g.Expect(s.AdoptNamespace(t.Context(), list.Namespace, "", firstUID)).To(Succeed())
		g.Expect(mustLoadNamespace(t, s)).To(Equal(store.Namespace{Name: list.Namespace, UID: firstUID}))
	}
	for _, from := range []string{"", thirdUID} {
		g.Expect(s.AdoptNamespace(t.Context(), list.Namespace, from, secondUID)).To(MatchError(store.ErrBound), from)
	}
	g.Expect(s.AdoptNamespace(t.Context(), "sales", firstUID, secondUID)).To(MatchError(store.ErrBound), "it is not bound at all")
	g.Expect(mustLoadNamespace(t, s).UID).To(Equal(firstUID))

	g.Expect(s.AdoptNamespace(t.Context(), list.Namespace, firstUID, secondUID)).To(Succeed())
	g.Expect(mustLoadNamespace(t, s)).To(Equal(store.Namespace{Name: list.Namespace, UID: secondUID}), "events begin where they did")
	g.Expect(s.Count(t.Context(), list)).To(HaveField("Contacts", BeEquivalentTo(1)))
	_, err := s.LoadDelivery(t.Context(), crm)
	g.Expect(err).NotTo(HaveOccurred())
}

func testRenewNamespace(t *testing.T, s store.Store) {
	g := NewWithT(t)
	g.Expect(s.AdoptNamespace(t.Context(), list.Namespace, "", firstUID)).To(Succeed())
	g.Expect(s.RenewNamespace(t.Context(), "sales", firstUID, secondUID)).To(MatchError(store.ErrBound), "it is not bound at all")
	crmToken := open(t, s, crm)
	elsewhere := store.SubscriptionKey{Namespace: "sales", Name: crm.Name}
	open(t, s, elsewhere)
	last := mustChange(t, s, saveAs(address(1), func(c *contact.Contact) { c.ExternalID = "1" })).Events[0].Position
	mustChange(t, s, ofOther(address(1)))
	g.Expect(s.SaveTexts(t.Context(), list, store.ListTexts{Pages: store.Files{"style.css": "h1 { color: teal }"}})).To(Succeed())
	g.Expect(s.PutRequest(t.Context(), store.Request{Key: crm, Type: "Test", Value: "now"})).To(Succeed())
	g.Expect(s.NoteKeyUse(t.Context(), map[store.KeyName]time.Time{{Namespace: list.Namespace, Name: "form"}: now})).To(Succeed())
	gone, err := s.Checkpoint(t.Context(), []store.Progress{{Delivery: store.Delivery{Key: crm, Token: crmToken, Cursor: last}, Aside: []int64{last}}})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(gone).To(BeEmpty())
	notice := contact.Event{
		Type: contact.EventNotice, Source: contact.SourceAPI, Time: now, List: contact.ListKey{Namespace: list.Namespace},
		Operation: &contact.Operation{Kind: "WebhookSubscription", Name: "crm", Recipient: "ops@example.com"},
	}
	g.Expect(s.RaiseOnce(t.Context(), store.Once{Key: "1", Now: now, Until: now.Add(time.Hour)}, notice)).To(Succeed())

	renew := func(from string) error { return s.RenewNamespace(t.Context(), list.Namespace, from, secondUID) }
	g.Expect(renew(firstUID)).To(MatchError(store.ErrBound), "there are a contact and a subscription")
	mustChange(t, s, store.Change{List: list, Address: address(1), Apply: contact.EndWithList})
	g.Expect(renew(firstUID)).To(MatchError(store.ErrBound), "there is a subscription")
	g.Expect(s.SetAsideEvents(t.Context(), crm, 0, 10)).To(HaveLen(1), "nothing is removed by a refusal")
	g.Expect(s.DropDelivery(t.Context(), crm)).To(Succeed())
	g.Expect(renew(thirdUID)).To(MatchError(store.ErrBound), "it is bound to another one")
	g.Expect(renew(firstUID)).To(Succeed())

	head, err := s.Head(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(mustLoadNamespace(t, s)).To(Equal(store.Namespace{Name: list.Namespace, UID: secondUID, Begins: head}))
	g.Expect(s.LoadTexts(t.Context(), list)).To(BeZero())
	g.Expect(s.KeyUses(t.Context(), time.Time{})).To(BeEmpty())
	g.Expect(s.CountAll(t.Context())).To(HaveLen(1), "the other namespace's list is left")
	_, err = s.LoadDelivery(t.Context(), store.NoticeKey(list.Namespace))
	g.Expect(err).To(MatchError(store.ErrNotFound), "notices of before are sent no more")
	_, err = s.LoadDelivery(t.Context(), elsewhere)
	g.Expect(err).NotTo(HaveOccurred(), "another namespace's is left")

	open(t, s, crm)
	mustChange(t, s, save(address(2), "Max"))
	g.Expect(renew(firstUID)).To(Succeed(), "a repeat does nothing")
	g.Expect(mustLoadNamespace(t, s).Begins).To(Equal(head))
	_, err = s.LoadDelivery(t.Context(), crm)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(s.Count(t.Context(), list)).To(HaveField("Contacts", BeEquivalentTo(1)))
}

func testBindObject(t *testing.T, s store.Store) {
	g := NewWithT(t)
	const object, other = "object", "other"
	bind := func(namespace, uid, object string) error { return s.BindObject(t.Context(), namespace, uid, object) }
	g.Expect(bind(list.Namespace, firstUID, object)).To(MatchError(store.ErrBound), "the namespace is not bound")
	g.Expect(s.AdoptNamespace(t.Context(), list.Namespace, "", firstUID)).To(Succeed())
	g.Expect(s.AdoptNamespace(t.Context(), "sales", "", thirdUID)).To(Succeed())
	g.Expect(bind(list.Namespace, secondUID, object)).To(MatchError(store.ErrBound), "it is bound to another one")
	g.Expect(s.IsBound(t.Context(), object)).To(BeFalse())
	for range 2 { // a repeat does nothing
		g.Expect(bind(list.Namespace, firstUID, object)).To(Succeed())
		g.Expect(s.IsBound(t.Context(), object)).To(BeTrue())
	}
	g.Expect(bind("sales", thirdUID, other)).To(Succeed())
	g.Expect(s.ReleaseObject(t.Context(), object)).To(Succeed())
	g.Expect(s.ReleaseObject(t.Context(), "nothing")).To(Succeed())
	g.Expect(s.IsBound(t.Context(), object)).To(BeFalse())

	g.Expect(bind(list.Namespace, firstUID, object)).To(Succeed())
	g.Expect(s.RenewNamespace(t.Context(), list.Namespace, firstUID, secondUID)).To(Succeed())
	g.Expect(s.IsBound(t.Context(), object)).To(BeFalse(), "it was of the earlier Namespace")
	g.Expect(s.IsBound(t.Context(), other)).To(BeTrue())
}

func testRemoveEvents(t *testing.T, s store.Store) {
	g := NewWithT(t)
	crmToken := open(t, s, crm)
	var positionsOfList []int64
	for n := range 5 {
		positionsOfList = append(positionsOfList, mustChange(t, s, save(address(n), "Max")).Events[0].Position)
	}
	sibling := save(address(1), "Max")
	sibling.List.Name = "newsletter-2"
	kept := positions(mustChange(t, s, sibling).Events)
	other := positions(mustChange(t, s, ofOther(address(1))).Events)
	raised := contact.Event{
		Type: contact.EventKeyExpiring, Source: contact.SourceAPI, Time: now, List: contact.ListKey{Namespace: list.Namespace},
		Operation: &contact.Operation{Kind: "ApiKey", Name: "form"},
	}
	g.Expect(s.RaiseOnce(t.Context(), store.Once{Key: "1", Now: now, Until: now.Add(time.Hour)}, raised)).To(Succeed())
	gone, err := s.Checkpoint(t.Context(), []store.Progress{{
		Delivery: store.Delivery{Key: crm, Token: crmToken, Cursor: kept[0]}, Aside: append(kept, positionsOfList...),
	}})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(gone).To(BeEmpty())

	remove := func(list contact.ListKey) int {
		removed, err := s.RemoveEvents(t.Context(), list, 2)
		g.Expect(err).NotTo(HaveOccurred())
		return removed
	}
	all := func() []int64 {
		return positions(mustRead(t, s, store.Query{Filter: store.Filter{Types: contact.LogTypes}}))
	}
	for _, removed := range []int{2, 2, 1, 0} {
		g.Expect(remove(list)).To(Equal(removed))
	}
	operational := other[0] + 1
	g.Expect(all()).To(Equal([]int64{kept[0], other[0], operational}))
	g.Expect(s.SetAsideEvents(t.Context(), crm, 0, 10)).To(Equal(kept), "dead letters go with their events")

	for _, removed := range []int{2, 0} {
		g.Expect(remove(contact.ListKey{Namespace: list.Namespace})).To(Equal(removed))
	}
	g.Expect(all()).To(Equal(other))
	g.Expect(s.SetAsideEvents(t.Context(), crm, 0, 10)).To(BeEmpty())
	g.Expect(s.Head(t.Context())).To(Equal(operational), "positions are not given again")
}
