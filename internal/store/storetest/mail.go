package storetest

import (
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

func testContactByID(t *testing.T, s store.Store) {
	g := NewWithT(t)
	first, err := s.Change(t.Context(), save("ada@example.com", "Ada"))
	g.Expect(err).NotTo(HaveOccurred())
	id := first.Contact.ID

	byID := save("", "Augusta")
	byID.ContactID = id
	changed, err := s.Change(t.Context(), byID)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(changed.Contact.StandardFields).To(HaveKeyWithValue("FIRSTNAME", "Augusta"))
	g.Expect(changed.Events).To(HaveLen(1))
	g.Expect(changed.Events[0].Address).To(Equal("ada@example.com"))
	g.Expect(s.FindContactByID(t.Context(), list, id)).To(Equal(changed.Contact))
	g.Expect(s.FindContact(t.Context(), list, "ada@example.com")).To(Equal(changed.Contact))

	for name, row := range map[string]struct {
		list contact.ListKey
		id   int64
	}{
		"a number that nobody has": {list: list, id: id + 1},
		"a number of another list": {list: contact.ListKey{Namespace: list.Namespace, Name: "other"}, id: id},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := s.FindContactByID(t.Context(), row.list, row.id)
			g.Expect(err).To(MatchError(store.ErrNotFound))
			nobody := save("", "Nobody")
			nobody.List, nobody.ContactID = row.list, row.id
			decision, err := s.Change(t.Context(), nobody)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(decision.Changed).To(BeFalse())
		})
	}
	g.Expect(s.Count(t.Context(), list)).To(Equal(contact.Counts{Contacts: 1}))
	g.Expect(s.Head(t.Context())).To(Equal(int64(2)))
}

// optIn returns a change that saves a contact and starts an opt-in for it.
func optIn(address string) store.Change {
	change := save(address, "Ada")
	decide := change.Apply
	change.Apply = func(current *contact.Contact) contact.Decision {
		decision := decide(current)
		decision.OptInStarted = true
		decision.Contact.OptIn = &contact.OptIn{Mailing: "welcome", RequestedAt: now}
		return decision
	}
	return change
}

func testOptInMail(t *testing.T, s store.Store) {
	g := NewWithT(t)
	decision, err := s.Change(t.Context(), optIn("ada@example.com"))
	g.Expect(err).NotTo(HaveOccurred())

	named := store.Query{Filter: store.Filter{Types: []v1alpha1.EventType{contact.EventOptInMail}}}
	mails, err := s.Read(t.Context(), named)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(mails).To(HaveLen(1))
	g.Expect(mails[0].Position).To(Equal(int64(2)))
	g.Expect(mails[0].Contact).To(Equal(decision.Contact))
	g.Expect(mails[0].Address).To(Equal("ada@example.com"))
	g.Expect(mails[0].Time).To(Equal(now))
	g.Expect(s.CountEvents(t.Context(), named)).To(Equal(int64(1)))
	g.Expect(named.Filter.Matches(&mails[0])).To(BeTrue())

	// A subscription to everything does not get it.
	g.Expect(s.CountEvents(t.Context(), store.Query{})).To(Equal(int64(1)))
	g.Expect(store.Filter{}.Matches(&mails[0])).To(BeFalse())
	// One that is open is found again by its position.
	g.Expect(s.Read(t.Context(), store.Query{Positions: []int64{2}})).To(Equal(mails))
}

func testMailDelivery(t *testing.T, s store.Store) {
	g := NewWithT(t)
	_, err := s.Change(t.Context(), save("grace@example.com", "Grace"))
	g.Expect(err).NotTo(HaveOccurred())
	key := store.MailKey(list)
	named, isMail := key.MailList()
	g.Expect(named).To(Equal(list))
	g.Expect(isMail).To(BeTrue())
	_, isMail = crm.MailList()
	g.Expect(isMail).To(BeFalse())
	_, err = s.LoadDelivery(t.Context(), key)
	g.Expect(err).To(MatchError(store.ErrNotFound))

	_, err = s.Change(t.Context(), optIn("ada@example.com"))
	g.Expect(err).NotTo(HaveOccurred())
	row, err := s.LoadDelivery(t.Context(), key)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(row.Cursor).To(Equal(int64(2)), "the mail is behind it")

	row.Cursor = 3
	g.Expect(s.Checkpoint(t.Context(), []store.Progress{{Delivery: row}})).To(BeEmpty())
	_, err = s.Change(t.Context(), optIn("hedy@example.com"))
	g.Expect(err).NotTo(HaveOccurred())
	written, err := s.LoadDelivery(t.Context(), key)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(written.Cursor).To(Equal(int64(3)))
	g.Expect(s.DeliveriesSince(t.Context(), 0)).To(BeEmpty())

	// A row of mails that nobody sends keeps nobody from being forgotten.
	_, err = s.Change(t.Context(), forget("ada@example.com"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(s.ScrubForgotten(t.Context())).To(Equal(1))
}

func testNoticeDelivery(t *testing.T, s store.Store) {
	g := NewWithT(t)
	key := store.NoticeKey("marketing")
	g.Expect(key.IsNotices()).To(BeTrue())
	g.Expect(crm.IsNotices()).To(BeFalse())
	_, isMail := key.MailList()
	g.Expect(isMail).To(BeFalse())
	deactivated, notice := failing(), failing()
	deactivated.Type, notice.Type, notice.Operation.Recipient = contact.EventDeactivated, contact.EventNotice, "ops@example.com"
	row := store.Delivery{Key: crm, Token: open(t, s, crm), Operations: 1}
	checkpoint(t, s, store.Progress{Delivery: row, Raised: []contact.Event{deactivated}})
	_, err := s.LoadDelivery(t.Context(), key)
	g.Expect(err).To(MatchError(store.ErrNotFound), "nobody is to be told")

	row.Operations += 3
	checkpoint(t, s, store.Progress{Delivery: row, Raised: []contact.Event{deactivated, notice, notice}})
	opened, err := s.LoadDelivery(t.Context(), key)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(opened.Cursor).To(Equal(int64(2)), "the notice is behind it")
	found := mustRead(t, s, store.Query{Filter: store.Filter{Namespace: "marketing", Types: []v1alpha1.EventType{contact.EventNotice}}})
	g.Expect(positions(found)).To(Equal([]int64{3, 4}))
	g.Expect(found[0].Operation).To(Equal(notice.Operation))
	g.Expect(s.DeliveriesSince(t.Context(), 0)).To(ConsistOf(HaveField("Key", crm)))
	all := store.Filter{Operations: []v1alpha1.OperationalEvent{v1alpha1.OperationalDeactivated}}
	g.Expect(positions(mustRead(t, s, store.Query{Filter: all}))).To(Equal([]int64{1, 2}), "no subscription gets it")

	opened.Cursor = 4
	row.Operations++
	checkpoint(t, s, store.Progress{Delivery: opened})
	checkpoint(t, s, store.Progress{Delivery: row, Raised: []contact.Event{notice}})
	g.Expect(s.LoadDelivery(t.Context(), key)).To(HaveField("Cursor", int64(4)))
}

func testTexts(t *testing.T, s store.Store) {
	g := NewWithT(t)
	g.Expect(s.LoadTexts(t.Context(), list)).To(Equal(store.ListTexts{}))
	texts := store.ListTexts{
		Mailings: map[string]store.Files{"welcome": {"mail.txt": "Hello"}},
		Pages:    store.Files{"style.css": "body {}"},
	}
	g.Expect(s.SaveTexts(t.Context(), list, store.ListTexts{Pages: store.Files{"style.css": ""}})).To(Succeed())
	g.Expect(s.SaveTexts(t.Context(), list, texts)).To(Succeed())
	g.Expect(s.LoadTexts(t.Context(), list)).To(Equal(texts))
	other := contact.ListKey{Namespace: list.Namespace, Name: "other"}
	g.Expect(s.LoadTexts(t.Context(), other)).To(Equal(store.ListTexts{}))
}
