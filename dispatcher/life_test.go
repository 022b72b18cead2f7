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

// lifetime drives one ledger through a life at random: a log that grows, a
// callback that goes down and comes back, restarts from what was written,
// reactivations with and without a replay. It does what a runner does, in small
// pages, and notes what became of each event.
type lifetime struct {
	t        *testing.T
	chance   *rand.Rand
	log      []contact.Event
	ledger   *ledger
	now      time.Time
	up       bool
	inFlight []*openEvent
	// arrived are the positions that each contact's events first arrived in.
	arrived map[int64][]int64
	fates   map[int64]string
	lost    int64
}

const contactsInLife = 7

// newLifetime returns a life in which nothing has happened yet.
func newLifetime(t *testing.T, seed uint64) *lifetime {
	return &lifetime{
		t: t, chance: rand.New(rand.NewPCG(seed, 1)), ledger: perContact(), now: start, up: true,
		arrived: map[int64][]int64{}, fates: map[int64]string{},
	}
}

// fate notes what became of an event. An event that arrived may be set aside or
// dropped too, if the process died before it was written.
func (l *lifetime) fate(position int64, fate string) {
	if before := l.fates[position]; before == "" {
		l.fates[position] = fate
	}
}

func (l *lifetime) append() {
	e := event(int64(len(l.log)+1), l.chance.Int64N(contactsInLife))
	e.Time = l.now
	l.log = append(l.log, *e)
}

// take takes the next event of the log, if there is one and room for it.
func (l *lifetime) take() {
	if l.ledger.cursor >= int64(len(l.log)) || l.ledger.room() == 0 {
		return
	}
	before := int64(0)
	if d := l.ledger.life.Deactivation; d != nil {
		before = d.Lost
	}
	e := &l.log[l.ledger.cursor]
	l.ledger.take(e, l.now)
	if d := l.ledger.life.Deactivation; d != nil && d.Lost > before {
		l.fate(e.Position, "lost")
		l.lost++
	}
}

// readOwed takes a page of what is owed.
func (l *lifetime) readOwed() {
	if l.ledger.replayRoom() == 0 || len(l.ledger.life.Owed.Spans) == 0 {
		return
	}
	span := l.ledger.life.Owed.Spans[0]
	upTo := min(span.UpTo, span.After+1+l.chance.Int64N(5))
	for position := span.After + 1; position <= upTo; position++ {
		l.ledger.takeOwed(&l.log[position-1])
	}
	l.ledger.passOwed(upTo, l.now)
}

// checkWaiting tells live events what they wait for, as the store would.
func (l *lifetime) checkWaiting() {
	for _, e := range l.ledger.unchecked() {
		e.waitFor = 0
		for position := min(l.ledger.owedEnd(), e.event.Position-1); position > 0 && e.waitFor == 0; position-- {
			if l.log[position-1].Contact.ID == e.event.Contact.ID {
				e.waitFor = position
			}
		}
	}
	l.ledger.letGo()
}

func (l *lifetime) send() {
	if e := l.ledger.next(l.now, callbackRules); e != nil {
		l.inFlight = append(l.inFlight, e)
	}
}

func (l *lifetime) land() {
	if len(l.inFlight) == 0 {
		return
	}
	i := l.chance.IntN(len(l.inFlight))
	e := l.inFlight[i]
	l.inFlight = slices.Delete(l.inFlight, i, i+1)
	o := bad
	switch dice := l.chance.IntN(20); {
	case dice == 0:
		o = outcome{verdict: aborted}
	case dice == 1:
		o = outcome{verdict: unsendable, reason: v1alpha1.FailureRender}
	case l.up:
		o = good
	}
	if o.verdict == delivered {
		if l.fates[e.event.Position] != "arrived" {
			l.arrived[e.event.Contact.ID] = append(l.arrived[e.event.Contact.ID], e.event.Position)
		}
		l.fates[e.event.Position] = "arrived"
	}
	l.ledger.settle(e, o, l.now, callbackRules)
	for _, position := range l.ledger.aside {
		l.fate(position, "set aside")
	}
	l.ledger.aside = nil
}

func (l *lifetime) reactivate(replay bool) {
	if l.ledger.life.Deactivation == nil || l.ledger.cursor < int64(len(l.log)) {
		return
	}
	if !replay {
		for position := range l.ledger.open {
			l.fate(position, "dropped")
		}
		for _, span := range l.ledger.life.Owed.Spans {
			for position := span.After + 1; position <= span.UpTo; position++ {
				l.fate(position, "dropped")
			}
		}
	}
	l.ledger.reactivate(l.now, replay)
}

// die has another process go on with what was written.
func (l *lifetime) die() {
	written := store.Delivery{
		Cursor: l.ledger.cursor, Open: l.ledger.openEvents(), Health: l.ledger.health, Life: cloneLife(l.ledger.life),
	}
	var open []contact.Event
	for _, stored := range written.Open {
		open = append(open, l.log[stored.Position-1])
	}
	l.ledger = newLedger(written, open, v1alpha1.OrderingPerContact)
	l.inFlight = nil
}

func (l *lifetime) step() {
	l.now = l.now.Add(time.Duration(l.chance.IntN(20)) * time.Second)
	switch dice := l.chance.IntN(200); {
	case dice < 40:
		if len(l.log) < 400 {
			l.append()
		}
	case dice < 85:
		l.take()
	case dice < 115:
		l.send()
	case dice < 150:
		l.land()
	case dice < 165:
		l.readOwed()
	case dice < 190:
		l.checkWaiting()
	case dice < 193:
		l.die()
	case dice < 196:
		l.up = !l.up
	case dice < 197:
		l.now = l.now.Add(30 * time.Minute) // so that windows end
	default:
		l.reactivate(l.chance.IntN(3) > 0)
	}
}

// quiet tells whether all that happened has been dealt with.
func (l *lifetime) quiet() bool {
	return len(l.log) == 400 && l.ledger.cursor == 400 && len(l.ledger.open) == 0 && l.ledger.life.Deactivation == nil &&
		!l.ledger.life.Replay.Running()
}

// TestLifeUnderChance holds a ledger to what it promises: each event arrives, is
// set aside, was lost after the buffer's end or was dropped with the buffer, and
// one contact's events first arrive in order.
func TestLifeUnderChance(t *testing.T) {
	total := map[string]int{}
	for seed := range uint64(300) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			g := NewWithT(t)
			l := newLifetime(t, seed)
			for n := 0; !l.quiet(); n++ {
				g.Expect(n).To(BeNumerically("<", 400_000), "stuck: %+v", l.ledger.life)
				l.step()
			}
			for id, positions := range l.arrived {
				g.Expect(slices.IsSorted(positions)).To(BeTrue(), "contact %d: %v", id, positions)
			}
			g.Expect(l.fates).To(HaveLen(400), "each event has a fate")
			for _, fate := range l.fates {
				total[fate]++
			}
			g.Expect(l.ledger.life.Owed).To(BeZero())
			g.Expect(l.ledger.chains).To(BeEmpty())
			g.Expect(l.ledger.waiting).To(BeEmpty())
			g.Expect([]int{l.ledger.inFlight, l.ledger.replayed, l.ledger.replayedInFlight}).To(HaveEach(0))
			if replay := l.ledger.life.Replay; replay != nil && !replay.Interrupted {
				g.Expect(replay.Total).To(Equal(replay.Sent + replay.Failed))
			}
		})
	}
	for _, fate := range []string{"arrived", "set aside", "lost", "dropped"} {
		NewWithT(t).Expect(total[fate]).To(BeNumerically(">", 300), fate)
	}
	t.Log(total)
}
