package dispatcher

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/sqlite"
)

// A runner's lag is right however it was counted: whole, or by what came and went.
func TestLag(t *testing.T) {
	g := NewWithT(t)
	log, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "postbus.db"))
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(log.Close()).To(Succeed()) }()
	now, query := start, store.Query{Filter: store.Filter{Namespace: "marketing", Types: []v1alpha1.EventType{contact.EventCreate}}}
	var behind lag
	look := func(cursor, tail int64) {
		now = now.Add(countInterval)
		g.Expect(behind.due(cursor, tail, now)).To(BeTrue())
		query.After, query.UpTo = cursor, tail
		behind, err = behind.count(t.Context(), log, query, now)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(behind.due(cursor, tail, now.Add(countInterval))).To(BeFalse(), "nothing has changed")
	}

	appendEvents(t, log, 10)
	look(2, 10)
	g.Expect(behind.events).To(BeEquivalentTo(8))
	g.Expect(behind.oldest).To(BeEquivalentTo(3))

	page, err := log.Read(t.Context(), store.Query{After: 2, UpTo: 10, Limit: 4})
	g.Expect(err).NotTo(HaveOccurred())
	takeAll(&behind, page)
	g.Expect(behind.events).To(BeEquivalentTo(4))
	g.Expect(behind.due(6, 10, now)).To(BeFalse(), "it is too early")

	appendEvents(t, log, 5)
	look(6, 15)
	g.Expect(behind.events).To(BeEquivalentTo(9))
	g.Expect(behind.oldest).To(BeEquivalentTo(7))

	page, err = log.Read(t.Context(), store.Query{After: 6, UpTo: 20})
	g.Expect(err).NotTo(HaveOccurred())
	appendEvents(t, log, 1) // which was not counted, so it is not taken off
	more, err := log.Read(t.Context(), store.Query{After: 15})
	g.Expect(err).NotTo(HaveOccurred())
	takeAll(&behind, append(page, more...))
	g.Expect(behind.events).To(BeZero())

	behind.events = 99 // as when retention has removed events
	now = now.Add(recountInterval)
	look(13, 16)
	g.Expect(behind.events).To(BeEquivalentTo(3))
}

func takeAll(l *lag, page []contact.Event) {
	for i := range page {
		l.taken(page[i].Position)
	}
}

// appendEvents makes new contacts, with an event each.
func appendEvents(t *testing.T, log store.Store, count int) {
	t.Helper()
	head, err := log.Head(t.Context())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	changes := make([]store.Change, count)
	for i := range changes {
		address := fmt.Sprintf("%d@example.com", int(head)+i)
		changes[i] = store.Change{
			List: contact.ListKey{Namespace: "marketing", Name: "newsletter"}, Address: address,
			Apply: func(*contact.Contact) contact.Decision {
				return contact.Decision{
					Changed: true, Created: true, Contact: contact.Contact{Email: address, Revision: 1},
					Events: []contact.Event{{Type: contact.EventCreate, Source: contact.SourceAPI, Time: time.Now()}},
				}
			},
		}
	}
	_, err = log.ChangeAll(t.Context(), changes)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
}
