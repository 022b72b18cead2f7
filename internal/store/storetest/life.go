package storetest

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// failing returns an operational event.
func failing() contact.Event {
	return contact.Event{
		List: contact.ListKey{Namespace: crm.Namespace}, Type: contact.EventFailing, Time: now,
		Operation: &contact.Operation{
			Kind: "WebhookSubscription", Name: crm.Name, Reason: v1alpha1.FailureTimeout, HTTPStatus: 504,
			FailingSince: now, DeactivationDue: now.Add(time.Hour), Events: 3,
		},
	}
}

// checkpoint writes progress of a row that is there.
func checkpoint(t *testing.T, s store.Deliveries, progress store.Progress) {
	t.Helper()
	gone, err := s.Checkpoint(t.Context(), []store.Progress{progress})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	NewWithT(t).Expect(gone).To(BeEmpty())
}

func testSetAside(t *testing.T, s store.Store) {
	g := NewWithT(t)
	row := store.Delivery{Key: crm, Token: open(t, s, crm)}
	other := store.Delivery{Key: store.SubscriptionKey{Namespace: "marketing", Name: "shop"}}
	other.Token = open(t, s, other.Key)
	for n := range 9 {
		mustChange(t, s, save(address(n), "Max"))
	}
	checkpoint(t, s, store.Progress{Delivery: other, Aside: []int64{7}})
	checkpoint(t, s, store.Progress{Delivery: row, Aside: []int64{9, 3, 7}})
	checkpoint(t, s, store.Progress{Delivery: row, Aside: []int64{3}}) // written twice after an error
	read, err := s.LoadDelivery(t.Context(), crm)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(read.SetAside).To(Equal(int64(3)))
	g.Expect(s.SetAsideEvents(t.Context(), crm, 0, 2)).To(Equal([]int64{3, 7}))
	g.Expect(s.SetAsideEvents(t.Context(), crm, 7, 2)).To(Equal([]int64{9}))

	// One that is sent again and fails again is set aside again.
	checkpoint(t, s, store.Progress{Delivery: row, Taken: []int64{7, 9, 11}, Aside: []int64{9}})
	g.Expect(s.SetAsideEvents(t.Context(), crm, 0, 10)).To(Equal([]int64{3, 9}))
	g.Expect(s.SetAsideEvents(t.Context(), other.Key, 0, 10)).To(Equal([]int64{7}))

	g.Expect(s.DropDelivery(t.Context(), crm)).To(Succeed())
	g.Expect(s.SetAsideEvents(t.Context(), crm, 0, 10)).To(BeEmpty())
}

func testScrubWaits(t *testing.T, s store.Store) {
	g := NewWithT(t)
	row := store.Delivery{Key: crm, Token: open(t, s, crm)}
	before := mustChange(t, s, save("ada@example.com", "Ada")).Events[0].Position
	checkpoint(t, s, store.Progress{Delivery: row, Aside: []int64{before}})
	forgotten := mustChange(t, s, forget("ada@example.com")).Events[0].Position
	g.Expect(s.SetAsideEvents(t.Context(), crm, 0, 10)).To(BeEmpty(), "what was forgotten is not set aside either")
	checkpoint(t, s, store.Progress{Delivery: row, Aside: []int64{before}})
	g.Expect(s.SetAsideEvents(t.Context(), crm, 0, 10)).To(BeEmpty(), "nor by who has not heard of it")

	row.Cursor = forgotten
	for _, waits := range []store.Progress{
		{Delivery: row, Aside: []int64{forgotten}},
		{
			Delivery: store.Delivery{
				Key: crm, Token: row.Token, Cursor: forgotten,
				Life: store.Life{Owed: store.Owed{Spans: []store.Span{{UpTo: 1}, {After: forgotten - 1, UpTo: forgotten}}}},
			},
			Taken: []int64{forgotten},
		},
	} {
		checkpoint(t, s, waits)
		g.Expect(s.ScrubForgotten(t.Context())).To(BeZero())
	}
	checkpoint(t, s, store.Progress{Delivery: row})
	g.Expect(s.ScrubForgotten(t.Context())).To(Equal(1))
}

func testRaised(t *testing.T, s store.Store) {
	g := NewWithT(t)
	mustChange(t, s, save(address(1), "Max"))
	row := store.Delivery{Key: crm, Token: open(t, s, crm), Cursor: 1, Operations: 1}
	raised := failing()
	checkpoint(t, s, store.Progress{Delivery: row, Raised: []contact.Event{raised}})
	g.Expect(s.WaitForEvents(t.Context(), 1)).To(Succeed())
	read := mustRead(t, s, store.Query{Filter: store.Filter{Types: []v1alpha1.EventType{contact.EventFailing}}})
	g.Expect(read).To(HaveLen(1))
	g.Expect(read[0].Position).To(Equal(int64(2)))
	raised.Position, raised.ID, raised.Address = 2, read[0].ID, "WebhookSubscription/crm"
	raised.Size = raised.Measure()
	g.Expect(read[0]).To(Equal(raised))
	g.Expect(mustRead(t, s, store.Query{After: 1})).To(BeEmpty(), "who did not ask for it does not get it")
}

// testRaisedTwice writes checkpoints again whose caller was not told that they were
// written, as a dispatcher does: with what it has raised meanwhile behind it.
func testRaisedTwice(t *testing.T, s store.Store) {
	g := NewWithT(t)
	kinds := []v1alpha1.EventType{contact.EventFailing, contact.EventDeactivated, contact.EventNotice, contact.EventReactivated}
	progress := store.Progress{Delivery: store.Delivery{Key: crm, Token: open(t, s, crm)}}
	raise := func(kind v1alpha1.EventType) {
		event := failing()
		event.Type = kind
		progress.Raised = append(progress.Raised, event)
		progress.Operations++
	}
	raised := func() (types []v1alpha1.EventType) {
		for _, event := range mustRead(t, s, store.Query{Filter: store.Filter{Types: contact.LogTypes}}) {
			types = append(types, event.Type)
		}
		return types
	}
	raise(kinds[0])
	for n := 1; n < len(kinds); n++ {
		for range 2 {
			checkpoint(t, s, progress)
			g.Expect(raised()).To(Equal(kinds[:n]))
		}
		raise(kinds[n])
	}
	checkpoint(t, s, store.Progress{Delivery: progress.Delivery, Raised: progress.Raised[3:]})
	g.Expect(raised()).To(Equal(kinds))

	// One that is the same to the letter is another event when it is raised again.
	progress.Raised = progress.Raised[3:]
	progress.Operations++
	checkpoint(t, s, progress)
	g.Expect(raised()).To(Equal(append(kinds, contact.EventReactivated)))

	// The next owner goes on from there.
	g.Expect(s.Join(t.Context(), "next", time.Minute)).To(ContainElement("next"))
	row, err := s.ClaimDelivery(t.Context(), crm, "next")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(row.Operations).To(Equal(int64(5)))
}

func testOperations(t *testing.T, s store.Store) {
	g := NewWithT(t)
	once := func(key, fingerprint string) store.Once {
		return store.Once{Key: key, Fingerprint: fingerprint, Now: now, Until: now.Add(time.Hour)}
	}
	raise := func(key string, edit func(*contact.Event)) {
		event := failing()
		edit(&event)
		g.Expect(s.RaiseOnce(t.Context(), once(key, "x"), event)).To(Succeed())
	}
	raise("a", func(*contact.Event) {})
	raise("a", func(*contact.Event) {})
	g.Expect(s.RaiseOnce(t.Context(), once("a", "y"), failing())).To(MatchError(store.ErrOnceReused))
	g.Expect(s.WaitForEvents(t.Context(), 0)).To(Succeed())
	g.Expect(s.Head(t.Context())).To(Equal(int64(1)), "a repeat raises nothing")
	raise("b", func(e *contact.Event) { e.Operation.Name = "shop" })
	raise("c", func(e *contact.Event) { e.Type, e.Operation.Kind = contact.EventKeyExpiring, "ApiKey" })
	raise("d", func(e *contact.Event) { e.List.Namespace = "sales" })
	mustChange(t, s, save(address(1), "Max"))

	all := []v1alpha1.OperationalEvent{v1alpha1.OperationalFailing, v1alpha1.OperationalKeyExpiring}
	for name, row := range map[string]struct {
		filter store.Filter
		want   []int64
	}{
		"beside all events of contacts": {store.Filter{Operations: all}, []int64{1, 2, 3, 4, 5}},
		"of one namespace":              {store.Filter{Namespace: "marketing", Operations: all}, []int64{1, 2, 3, 5}},
		"of one type":                   {store.Filter{Operations: all[1:]}, []int64{3, 5}},
		"but those of one object":       {store.Filter{Operations: all, Except: "WebhookSubscription/crm"}, []int64{2, 3, 5}},
		"whatever contacts are wanted": {
			store.Filter{
				Lists: []string{"shop"}, Sources: []v1alpha1.EventSource{"Console"}, Types: []v1alpha1.EventType{contact.EventDelete},
				Operations: all,
			}, []int64{1, 2, 3, 4},
		},
		"without events of contacts": {store.Filter{Types: []v1alpha1.EventType{contact.EventNone}, Operations: all[:1]}, []int64{1, 2, 4}},
		"not unless they are named":  {store.Filter{Except: "WebhookSubscription/crm"}, []int64{5}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(positions(mustRead(t, s, store.Query{Filter: row.filter}))).To(Equal(row.want))
			g.Expect(s.CountEvents(t.Context(), store.Query{Filter: row.filter})).To(Equal(int64(len(row.want))))
			var matched []int64
			for _, event := range mustRead(t, s, store.Query{Filter: store.Filter{Types: contact.LogTypes}}) {
				if row.filter.Matches(&event) {
					matched = append(matched, event.Position)
				}
			}
			g.Expect(matched).To(Equal(row.want), "the filter means the same in memory")
		})
	}
	g.Expect(s.LastPosition(t.Context(), contact.ListKey{Namespace: "marketing"}, "WebhookSubscription/crm", 9)).To(Equal(int64(1)))
}

func testRequests(t *testing.T, s store.Store) {
	g := NewWithT(t)
	first := store.Request{Key: crm, Type: v1alpha1.RequestReactivate, Value: "one", Replay: true}
	g.Expect(s.PutRequest(t.Context(), first)).To(MatchError(store.ErrNotFound))
	open(t, s, crm)
	g.Expect(s.PutRequest(t.Context(), first)).To(Succeed())
	replay := store.Request{
		Key: crm, Type: v1alpha1.RequestReplayRange, Value: "a/b", Since: now, Until: now.Add(time.Hour),
		EventID: "evt_1", DeactivatedAt: now,
	}
	g.Expect(s.PutRequest(t.Context(), replay)).To(Succeed())
	read, err := s.LoadRequests(t.Context(), crm)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(read).To(HaveLen(2))
	first.Revision, replay.Revision = read[0].Revision, read[1].Revision
	g.Expect(read).To(Equal([]store.Request{first, replay}))

	same := first
	same.Replay = false
	g.Expect(s.PutRequest(t.Context(), same)).To(Succeed())
	g.Expect(s.RequestsSince(t.Context(), replay.Revision)).To(BeEmpty(), "the same value is no new request")
	second := store.Request{Key: crm, Type: v1alpha1.RequestReactivate, Value: "two"}
	g.Expect(s.PutRequest(t.Context(), second)).To(Succeed())
	changed, err := s.RequestsSince(t.Context(), replay.Revision)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(changed).To(ConsistOf(HaveField("Value", "two")))
	g.Expect(s.RequestsSince(t.Context(), 0)).To(HaveLen(2))

	g.Expect(s.DropDelivery(t.Context(), crm)).To(Succeed())
	g.Expect(s.LoadRequests(t.Context(), crm)).To(BeEmpty())
}

func testFindEvents(t *testing.T, s store.Store) {
	g := NewWithT(t)
	g.Expect(s.PositionBefore(t.Context(), now)).To(BeZero())
	at := func(later time.Duration, address string) contact.Event {
		change := save(address, "Max")
		apply := change.Apply
		change.Apply = func(current *contact.Contact) contact.Decision {
			decision := apply(current)
			decision.Events[0].Time = now.Add(later)
			return decision
		}
		return mustChange(t, s, change).Events[0]
	}
	one, two, three := at(0, address(1)), at(time.Hour, address(2)), at(2*time.Hour, address(1))
	for _, event := range []contact.Event{one, two, three} {
		position, ok := store.EventPosition(event.ID)
		g.Expect(ok).To(BeTrue())
		g.Expect(position).To(Equal(event.Position))
		g.Expect(s.PositionBefore(t.Context(), event.Time)).To(Equal(event.Position - 1))
	}
	g.Expect(s.PositionBefore(t.Context(), now.Add(time.Minute))).To(Equal(one.Position))
	g.Expect(s.PositionBefore(t.Context(), now.Add(3*time.Hour))).To(Equal(three.Position))
	for _, id := range []string{"", "evt_", "evt_1", "evt_0_A", "evt_-1_A", "evt_x y_A", "1_A", "evt_zzzzzzzzzzzzzzzzz_A"} {
		_, ok := store.EventPosition(id)
		g.Expect(ok).To(BeFalse(), id)
	}

	g.Expect(s.LastPosition(t.Context(), list, address(1), three.Position)).To(Equal(three.Position))
	g.Expect(s.LastPosition(t.Context(), list, address(1), two.Position)).To(Equal(one.Position))
	g.Expect(s.LastPosition(t.Context(), list, address(2), one.Position)).To(BeZero())
	g.Expect(s.LastPosition(t.Context(), contact.ListKey{Namespace: "sales", Name: "newsletter"}, address(1), three.Position)).To(BeZero())
}
