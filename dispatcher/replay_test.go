package dispatcher

import (
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/store"
)

// happen has an event of a contact come in.
func (l *lifetime) happen(contactID int64) {
	e := event(int64(len(l.log)+1), contactID)
	e.Time = l.now
	l.log = append(l.log, *e)
	l.take()
}

// breakDown has the callback be deactivated by the next call.
func (l *lifetime) breakDown() {
	l.t.Helper()
	fail(l.t, l.ledger, l.now, outcome{verdict: gone, status: 410})
}

// Live events that wait for a replay belong to the next one where the callback breaks
// down again, however many they are.
func TestReplayThatManyEventsWaitFor(t *testing.T) {
	g := NewWithT(t)
	l := newLifetime(t, 1)
	const contacts = maxOpen
	l.happen(contacts)
	l.breakDown()
	for id := range int64(contacts) {
		l.happen(id)
	}
	l.ledger.reactivate(l.now, true)
	for id := range int64(contacts) {
		l.happen(id)
	}
	l.checkWaiting()
	g.Expect(l.ledger.waiting).To(HaveLen(contacts))
	l.breakDown()
	l.ledger.reactivate(l.now, true)
	for seconds := 0; l.ledger.life.Replay.Running(); seconds++ {
		g.Expect(seconds).To(BeNumerically("<", 10*contacts), "stuck: %+v", l.ledger.life)
		l.now = l.now.Add(time.Second)
		l.checkWaiting()
		l.readOwed()
		for _, e := range sendAll2(l.ledger, l.now) {
			l.arrived[e.event.Contact.ID] = append(l.arrived[e.event.Contact.ID], e.event.Position)
			l.ledger.settle(e, good, l.now, callbackRules)
		}
	}
	for id := range int64(contacts) {
		g.Expect(l.arrived[id]).To(And(HaveLen(2), Satisfy(slices.IsSorted[[]int64])), "contact %d", id)
	}
}

// A callback that is reactivated again and again, and stays down, costs a bounded
// ledger, too.
func TestLedgerIsBoundedOverReactivations(t *testing.T) {
	g := NewWithT(t)
	l := newLifetime(t, 1)
	for range 5 {
		for range 2 * maxOpen {
			l.happen(int64(len(l.log)))
		}
		l.breakDown()
		g.Expect(len(l.ledger.open)).To(BeNumerically("<=", maxOpen+maxReplayed))
		for l.ledger.cursor < int64(len(l.log)) {
			l.take()
		}
		l.now = l.now.Add(time.Minute)
		l.ledger.reactivate(l.now, true)
	}
}

// What was in flight when the buffer was dropped is of no later replay, unless that
// one asks for it.
func TestReplayBesideADroppedBuffer(t *testing.T) {
	g := NewWithT(t)
	l := newLifetime(t, 1)
	for id := range int64(3) {
		l.happen(id)
	}
	l.breakDown()
	l.ledger.reactivate(l.now, true)
	sent := []*openEvent{l.ledger.next(l.now, callbackRules), l.ledger.next(l.now.Add(time.Minute), callbackRules)}
	l.now = l.now.Add(time.Minute)
	last := l.ledger.next(l.now.Add(time.Minute), callbackRules)
	g.Expect(last).To(BeNil(), "two at a time")
	l.ledger.settle(sent[0], outcome{verdict: gone, status: 410}, l.now, callbackRules)
	l.ledger.reactivate(l.now, false)
	g.Expect(positions(l.ledger.sorted())).To(Equal(positions(sent[1:])), "it is under way")

	dropped := sent[1].event.Position
	l.ledger.startReplay(v1alpha1.ReplayOfEvent, store.Owed{Spans: []store.Span{{After: dropped - 1, UpTo: dropped}}, Events: 1}, l.now)
	l.readOwed()
	g.Expect(l.ledger.life.Replay).To(HaveValue(And(HaveField("Total", BeZero()), HaveField("Sent", BeZero()))), "it is on its way")
	l.ledger.settle(sent[1], bad, l.now, callbackRules)
	l.now = l.now.Add(time.Minute)
	g.Expect(l.ledger.next(l.now, callbackRules)).To(BeIdenticalTo(sent[1]), "and is sent until it arrives")
	l.ledger.settle(sent[1], good, l.now, callbackRules)
	g.Expect(l.ledger.open).To(BeEmpty())
	g.Expect([]int{l.ledger.inFlight, l.ledger.replayed, l.ledger.replayedInFlight}).To(HaveEach(0))
}

// A replay that begins before it is written that an event was set aside takes it out
// again, whether or not the store hears of the one before the other.
func TestReplayOfWhatWasJustSetAside(t *testing.T) {
	for name, written := range map[string]bool{"in one checkpoint": false, "after one that failed": true} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			r := &runner{sub: &subscription{}, ledger: perContact()}
			l := r.ledger
			l.take(event(1, 1), start)
			l.take(event(2, 2), start)
			fail(t, l, start, outcome{verdict: unsendable})
			fail(t, l, start, outcome{verdict: unsendable})
			var lost store.Progress
			if written {
				r.dirty.Store(true)
				lost, _ = r.snapshot(2, false)
			}
			l.startReplay(v1alpha1.ReplayOfRange, store.Owed{Spans: []store.Span{{UpTo: 1}}, Events: 1}, start)
			l.takeOwed(event(1, 1))
			l.passOwed(1, start)
			if written {
				r.notWritten(&lost)
			}
			progress, _ := r.snapshot(2, true)
			g.Expect(progress.Taken).To(Equal([]int64{1}))
			g.Expect(progress.Aside).To(Equal([]int64{2}), "the other is")
		})
	}
}

// Where the order is lifted live events wait for no replay any more.
func TestReplayWithoutOrdering(t *testing.T) {
	g := NewWithT(t)
	l := newLifetime(t, 1)
	l.happen(1)
	l.breakDown()
	l.happen(2)
	l.ledger.reactivate(l.now, true)
	l.happen(2)
	l.checkWaiting()
	g.Expect(positions(sendAll2(l.ledger, l.now))).To(Equal([]int64{1}), "3 waits for 2, which is still to be read")
	l.ledger.setOrdering(v1alpha1.OrderingNone)
	g.Expect(positions(sendAll2(l.ledger, l.now))).To(Equal([]int64{3}))
	g.Expect(l.ledger.waiting).To(BeEmpty())
}
