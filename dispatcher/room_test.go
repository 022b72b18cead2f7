package dispatcher

import (
	"math/rand/v2"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// sized is an event of so many bytes.
func sized(position int64, bytes int) *contact.Event {
	made := event(position, position)
	made.Type, made.Size = contact.EventCreate, bytes
	return made
}

// expectCounted expects that what a ledger counts is what it has.
func expectCounted(g *WithT, l *ledger) {
	var bytes, replayedBytes int64
	for _, e := range l.open {
		bytes += bytesOf(e.event)
		if e.replayed {
			replayedBytes += bytesOf(e.event)
		}
	}
	g.ExpectWithOffset(1, l.pending.used).To(Equal(bytes))
	g.ExpectWithOffset(1, l.replayedBytes).To(Equal(replayedBytes))
}

// A ledger takes no more bytes than it may have, and one event whatever its size.
func TestLedgerIsBoundedInBytes(t *testing.T) {
	g := NewWithT(t)
	const large = 1 << 20
	l := newLedger(store.Delivery{}, nil, v1alpha1.OrderingNone)
	position := int64(0)
	for position++; l.fits(sized(position, large)); position++ {
		l.take(sized(position, large), start)
	}
	g.Expect(l.open).To(HaveLen(maxOpenBytes/large - 1)) // with what an open event takes itself
	g.Expect(l.pending.used).To(BeNumerically("<=", maxOpenBytes))
	g.Expect(l.hasRoom()).To(BeFalse(), "not for the one that it was offered")
	g.Expect(l.hasPageRoom()).To(BeFalse())
	g.Expect(l.fits(sized(position, 1000))).To(BeTrue(), "for a smaller one")
	l.settle(l.next(start, mailRules), good, start, mailRules)
	g.Expect(l.fits(sized(position, large))).To(BeTrue())
	expectCounted(g, l)

	none := &budget{each: maxOpenBytes, most: 0}
	l = newLedger(store.Delivery{}, nil, v1alpha1.OrderingNone)
	l.pending.move(none)
	g.Expect(l.fits(sized(1, large))).To(BeTrue(), "one is always taken")
	l.take(sized(1, large), start)
	g.Expect(l.fits(sized(2, 1))).To(BeFalse())
	g.Expect(l.hasPageRoom()).To(BeFalse())
	l.settle(l.next(start, mailRules), good, start, mailRules)
	g.Expect(l.hasPageRoom()).To(BeTrue())
	g.Expect(none.used.Load()).To(BeZero())
}

// A replay has bytes of its own: live events, which may wait for it, don't keep it from
// going on.
func TestReplayHasBytesOfItsOwn(t *testing.T) {
	g := NewWithT(t)
	const large = 1 << 20
	l := perContact()
	l.life.Replay = &store.Replay{Total: 100, StartedAt: start}
	l.life.Owed = store.Owed{Events: 100, Spans: []store.Span{{After: 0, UpTo: 100}}}
	position := int64(1000)
	for ; l.fits(sized(position, large)); position++ {
		l.take(sized(position, large), start)
	}
	g.Expect(l.hasPageRoom()).To(BeFalse())
	g.Expect(l.hasReplayPageRoom()).To(BeTrue())
	owed := int64(1)
	for ; l.fitsReplay(sized(owed, large)); owed++ {
		l.takeOwed(sized(owed, large))
	}
	g.Expect(owed).To(Equal(int64(maxReplayedBytes / large))) // it begins at 1
	g.Expect(l.hasReplayPageRoom()).To(BeFalse())
	expectCounted(g, l)
}

// Whatever happens to events, what a ledger has of the budget is what its open events have.
func TestBytesOfALedgerAreCounted(t *testing.T) {
	g := NewWithT(t)
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	shared := &budget{own: 1000, each: 1 << 40, most: 1 << 40}
	rules := &rules{
		intervals: intervals[:1], deactivation: v1alpha1.DeactivateOnUnreachable, window: time.Hour, replayGap: time.Nanosecond, maxReplayed: 9,
	}
	l := perContact()
	l.pending.move(shared)
	now, position := start, int64(0)
	var flying []*openEvent
	for range 5000 {
		now = now.Add(time.Second)
		switch random.IntN(8) {
		case 0, 1, 2:
			position++
			made := sized(position, 1+random.IntN(5000))
			made.Address, made.Contact.ID = "a", 1+random.Int64N(20)
			l.take(made, now)
		case 3, 4:
			if e := l.next(now, rules); e != nil {
				flying = append(flying, e)
			}
		case 5:
			if len(flying) > 0 {
				l.settle(flying[0], []outcome{good, bad, {verdict: unsendable}, {verdict: aborted}, {verdict: deferred}}[random.IntN(5)], now, rules)
				flying = flying[1:]
			}
		case 6:
			l.forget(&contact.Event{Position: position + 1, Address: "a", Forget: true, Time: now})
		case 7:
			if l.life.Deactivation != nil {
				l.reactivate(now, random.IntN(2) == 0)
				if len(l.life.Owed.Spans) > 0 {
					l.takeOwed(sized(l.life.Owed.Spans[0].After+1, 700))
					l.passOwed(l.life.Owed.Spans[0].UpTo, now)
				}
			}
		}
		expectCounted(g, l)
		g.Expect(shared.used.Load()).To(Equal(shared.shared(l.pending.used)))
	}
	l.pending.move(nil)
	g.Expect(shared.used.Load()).To(BeZero())
}

// The window keeps as many of the last events as fit.
func TestWindowIsBoundedInBytes(t *testing.T) {
	g := NewWithT(t)
	const large = 256 << 10
	w := &window{}
	for position := int64(1); position <= 1000; position++ {
		w.add(sized(position, large))
		var bytes int64
		for _, kept := range w.events {
			bytes += int64(kept.Size)
		}
		g.Expect(w.bytes).To(Equal(bytes))
		g.Expect(w.bytes).To(BeNumerically("<=", windowBytes))
		g.Expect(w.after + int64(len(w.events))).To(Equal(position))
	}
	g.Expect(len(w.events)).To(BeNumerically(">=", windowBytes/2/large))
	w.add(sized(1001, 2*windowBytes))
	g.Expect(w.events).To(HaveLen(1), "the last one is kept whatever its size")
	w.add(&contact.Event{Position: 1002, Forget: true, Size: 500})
	g.Expect(w.bytes).To(Equal(int64(500)))
}
