package dispatcher

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

var (
	start     = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	intervals = []time.Duration{time.Minute, 2 * time.Minute}
	// mailRules repeat the last interval.
	mailRules = &rules{intervals: intervals}
	good      = outcome{verdict: delivered, status: 200}
	bad       = outcome{verdict: failed, reason: v1alpha1.FailureHTTPStatus, status: 500}
)

func event(position, contactID int64) *contact.Event {
	return &contact.Event{
		Position: position, ID: fmt.Sprintf("evt_%d", position), Address: fmt.Sprint(contactID), Contact: contact.Contact{ID: contactID},
	}
}

func perContact() *ledger { return newLedger(store.Delivery{}, nil, v1alpha1.OrderingPerContact) }

// sendAll returns the positions that may be sent now, in order.
func sendAll(l *ledger, now time.Time) (sent []*openEvent) {
	for e := l.next(now, mailRules); e != nil; e = l.next(now, mailRules) {
		sent = append(sent, e)
	}
	return sent
}

func positions(events []*openEvent) (all []int64) {
	for _, e := range events {
		all = append(all, e.event.Position)
	}
	return all
}

func TestContactsDoNotWaitForEachOther(t *testing.T) {
	g := NewWithT(t)
	l := perContact()
	for position, id := range []int64{1, 2, 1, 2, 3} {
		l.take(event(int64(position+1), id), start)
	}
	first := sendAll(l, start)
	g.Expect(positions(first)).To(Equal([]int64{1, 2, 5}), "one at a time of each contact")

	l.settle(first[0], bad, start, mailRules)
	l.settle(first[1], good, start, mailRules)
	second := sendAll(l, start)
	g.Expect(positions(second)).To(Equal([]int64{4}), "contact 1 waits for its retry, contact 2 goes on")
	g.Expect(l.nextDue(mailRules)).To(Equal(start.Add(time.Minute)))

	retry := sendAll(l, start.Add(time.Minute))
	g.Expect(positions(retry)).To(Equal([]int64{1}))
	l.settle(retry[0], good, start.Add(time.Minute), mailRules)
	g.Expect(positions(sendAll(l, start.Add(time.Minute)))).To(Equal([]int64{3}))
}

func TestWithoutOrderingNothingWaits(t *testing.T) {
	g := NewWithT(t)
	l := newLedger(store.Delivery{}, nil, v1alpha1.OrderingNone)
	l.take(event(1, 1), start)
	l.take(event(2, 1), start)
	g.Expect(positions(sendAll(l, start))).To(Equal([]int64{1, 2}))
}

func TestRetryIntervals(t *testing.T) {
	g := NewWithT(t)
	l := perContact()
	l.take(event(1, 1), start)
	now := start
	for _, wait := range []time.Duration{time.Minute, 2 * time.Minute, 2 * time.Minute} { // the last one repeats
		l.settle(l.next(now, mailRules), bad, now, mailRules)
		g.Expect(l.next(now.Add(wait-1), mailRules)).To(BeNil(), "not before it is due")
		now = now.Add(wait)
	}
	g.Expect(l.next(now, mailRules).attempts).To(Equal(3))
}

func TestHealth(t *testing.T) {
	g := NewWithT(t)
	l := perContact()
	at := func(minutes int) time.Time { return start.Add(time.Duration(minutes) * time.Minute) }
	for position := range int64(4) {
		l.take(event(position+1, position+1), start)
	}
	sent := sendAll(l, start)
	g.Expect(l.health).To(BeZero())

	l.settle(sent[0], good, at(1), mailRules)
	g.Expect(l.health).To(Equal(store.Health{LastSuccess: at(1)}))
	l.settle(sent[1], bad, at(2), mailRules)
	l.settle(sent[2], outcome{verdict: failed, reason: v1alpha1.FailureTimeout}, at(3), mailRules)
	g.Expect(l.health).To(Equal(store.Health{
		LastSuccess: at(1), FailingSince: at(2),
		LastFailure: &store.Failure{Time: at(3), Reason: v1alpha1.FailureTimeout, Attempts: 1},
	}))
	l.settle(sent[3], outcome{verdict: aborted}, at(4), mailRules)
	g.Expect(l.next(at(4), mailRules).event.Position).To(Equal(int64(4)), "it is made again at once")
	l.settle(l.next(at(4), mailRules), good, at(5), mailRules)
	g.Expect(l.health.FailingSince).To(BeZero())
	g.Expect(l.health.LastFailure).NotTo(BeNil(), "kept for people to look at")
}

func TestLedgerComesBackFromTheStore(t *testing.T) {
	g := NewWithT(t)
	before := perContact()
	events := []contact.Event{*event(1, 1), *event(2, 2), *event(3, 1)}
	for i := range events {
		before.take(&events[i], start)
	}
	sent := sendAll(before, start)
	before.settle(sent[0], bad, start, mailRules)
	stored := store.Delivery{Cursor: before.cursor, Open: before.openEvents(), Health: before.health}
	g.Expect(stored.Open).To(Equal([]store.OpenEvent{
		{
			Position: 1, Attempts: 1, Retries: 1, FirstAttempt: start,
			NextAttempt: start.Add(time.Minute), WaitEnds: start.Add(time.Minute),
		},
		{Position: 2},
		{Position: 3},
	}))

	after := newLedger(stored, events, v1alpha1.OrderingPerContact)
	g.Expect(positions(sendAll(after, start))).To(Equal([]int64{2}), "what was in flight is sent again")
	g.Expect(positions(sendAll(after, start.Add(time.Minute)))).To(Equal([]int64{1}))

	pruned := newLedger(stored, events[1:], v1alpha1.OrderingPerContact)
	g.Expect(positions(sendAll(pruned, start))).To(Equal([]int64{2, 3}), "an event that is gone holds up nothing")
}

// TestRestartedReplayKeepsItsOrder has the process die when a replay has taken a
// part of what was buffered, after events that had failed before.
func TestRestartedReplayKeepsItsOrder(t *testing.T) {
	g := NewWithT(t)
	once := &rules{intervals: intervals[:1], deactivation: v1alpha1.DeactivateOnUnreachable, window: time.Hour, replayGap: time.Nanosecond, maxReplayed: 9}
	var events []contact.Event
	for position := range int64(5) {
		events = append(events, *event(position+1, position+1))
	}
	before, now := perContact(), start
	before.take(&events[0], now)
	before.take(&events[1], now)
	for before.life.Deactivation == nil {
		for _, e := range sendAll(before, now) {
			before.settle(e, bad, now, once)
		}
		now = now.Add(time.Minute)
	}
	for i := range events[2:] {
		before.take(&events[2+i], now)
	}
	before.reactivate(now, true)
	before.takeOwed(&events[2])
	before.takeOwed(&events[3])
	before.passOwed(4, now)

	after := newLedger(store.Delivery{Cursor: before.cursor, Open: before.openEvents(), Life: before.life}, events[:4], v1alpha1.OrderingPerContact)
	now = now.Add(time.Hour)
	after.takeOwed(&events[4])
	after.passOwed(5, now)
	var sent []*openEvent
	for e := after.next(now, once); e != nil; e = after.next(now, once) {
		sent = append(sent, e)
	}
	g.Expect(positions(sent)).To(Equal([]int64{1, 2, 3, 4, 5}))
}

func TestOrderingCanChange(t *testing.T) {
	g := NewWithT(t)
	l := newLedger(store.Delivery{}, nil, v1alpha1.OrderingNone)
	for position := range int64(3) {
		l.take(event(position+1, 1), start)
	}
	one, two := l.next(start, mailRules), l.next(start, mailRules)
	l.setOrdering(v1alpha1.OrderingPerContact)
	g.Expect(l.next(start, mailRules)).To(BeNil(), "3 waits for those in flight")
	l.settle(two, bad, start, mailRules)
	g.Expect(l.next(start.Add(time.Hour), mailRules)).To(BeNil(), "2 waits for 1, though it was sent before")
	l.settle(one, good, start, mailRules)
	g.Expect(positions(sendAll(l, start))).To(BeEmpty(), "2 still waits for its retry")
	l.setOrdering(v1alpha1.OrderingNone)
	g.Expect(positions(sendAll(l, start))).To(Equal([]int64{3}))
}

func TestForgottenEventsAreDropped(t *testing.T) {
	g := NewWithT(t)
	of := func(position, contactID int64, address string) *contact.Event {
		e := event(position, contactID)
		e.Address = address
		return e
	}
	l := perContact()
	l.take(of(1, 1, "ada"), start) // an earlier life of ada
	l.take(of(2, 2, "ada"), start)
	l.take(of(3, 2, "ada"), start)
	l.take(of(4, 3, "grace"), start)
	sent := sendAll(l, start)
	g.Expect(positions(sent)).To(Equal([]int64{1, 4}))
	l.settle(sent[0], good, start, mailRules)
	l.settle(sent[1], bad, start, mailRules)
	sent = sendAll(l, start)
	g.Expect(positions(sent)).To(Equal([]int64{2}))
	deletion := of(5, 2, "ada")
	deletion.Forget = true
	l.take(deletion, start)
	l.forget(deletion)
	g.Expect(positions(sendAll(l, start))).To(BeEmpty(), "the deletion waits for 2, which is under way")
	l.settle(sent[0], bad, start, mailRules)
	g.Expect(positions(sendAll(l, start))).To(Equal([]int64{5}), "2 has failed and is not made again, 3 is dropped")
	g.Expect(l.open).To(HaveLen(2))
}

// Who leaves and comes back is another contact, and the same person to a receiver that
// knows addresses: the Unsubscribe does not come after the Subscribe that follows it.
func TestWhoComesBackKeepsTheirOrder(t *testing.T) {
	g := NewWithT(t)
	l := perContact()
	leaves, comesBack, elsewhere := event(1, 1), event(2, 2), event(3, 3)
	comesBack.Address, elsewhere.Address = leaves.Address, leaves.Address
	elsewhere.List.Name = "shop"
	for _, e := range []*contact.Event{leaves, comesBack, elsewhere} {
		l.take(e, start)
	}
	sent := sendAll(l, start)
	g.Expect(positions(sent)).To(Equal([]int64{1, 3}), "lists don't wait for each other")
	l.settle(sent[0], bad, start, mailRules)
	g.Expect(positions(sendAll(l, start))).To(BeEmpty())
	again := sendAll(l, start.Add(time.Minute))
	g.Expect(positions(again)).To(Equal([]int64{1}))
	l.settle(again[0], good, start.Add(time.Minute), mailRules)
	g.Expect(positions(sendAll(l, start.Add(time.Minute)))).To(Equal([]int64{2}))
}

// TestLedgerUnderChance drives a ledger at random, with restarts from what it
// wrote, and holds it to what it promises: every event is delivered, and one
// contact's in order.
func TestLedgerUnderChance(t *testing.T) {
	for seed := range uint64(200) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			g := NewWithT(t)
			chance := rand.New(rand.NewPCG(seed, 0))
			const count, contacts = 200, 7
			log := make([]contact.Event, 0, count)
			l := perContact()
			now := start
			var inFlight []*openEvent
			arrived := map[int64][]int64{}
			for len(log) < count || len(l.open) > 0 {
				now = now.Add(time.Duration(chance.IntN(40)) * time.Second)
				switch dice := chance.IntN(100); {
				case dice < 40 && len(log) < count:
					log = append(log, *event(int64(len(log)+1), chance.Int64N(contacts)))
					l.take(&log[len(log)-1], now)
				case dice < 65:
					if e := l.next(now, mailRules); e != nil {
						inFlight = append(inFlight, e)
					}
				case dice < 98 && len(inFlight) > 0:
					i := chance.IntN(len(inFlight))
					e := inFlight[i]
					inFlight = slices.Delete(inFlight, i, i+1)
					o := []outcome{good, good, bad, {verdict: aborted}}[chance.IntN(4)]
					if o.verdict == delivered {
						arrived[e.event.Contact.ID] = append(arrived[e.event.Contact.ID], e.event.Position)
					}
					l.settle(e, o, now, mailRules)
				case dice >= 98: // the process dies and another goes on
					var open []contact.Event
					for _, stored := range l.openEvents() {
						open = append(open, log[stored.Position-1])
					}
					l = newLedger(store.Delivery{Cursor: l.cursor, Open: l.openEvents()}, open, v1alpha1.OrderingPerContact)
					inFlight = nil
				}
				g.Expect(l.inFlight).To(Equal(len(inFlight)))
			}
			total := 0
			for id, got := range arrived {
				g.Expect(slices.IsSorted(got)).To(BeTrue(), "contact %d: %v", id, got)
				total += len(got)
			}
			g.Expect(total).To(Equal(count), "each once")
			g.Expect(l.chains).To(BeEmpty())
			g.Expect(l.due).To(BeEmpty())
		})
	}
}
