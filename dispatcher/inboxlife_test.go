package dispatcher

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
)

// sifting is a runner with a filter that leads a life at random.
type sifting struct {
	t        *testing.T
	g        *WithT
	chance   *rand.Rand
	follower *tail
	runner   *runner
	log      []*contact.Event
	sent     []int64
	specs    int
}

// quarry is the contact that the filter leaves out.
const quarry = 1

func newSiftingLife(t *testing.T, seed uint64) *sifting {
	l := &sifting{t: t, g: NewWithT(t), chance: rand.New(rand.NewPCG(seed, 2))}
	l.follower, l.runner = newSifting()
	l.interfere()
	return l
}

// interfere has something happen while the filter is asked, now and then.
func (l *sifting) interfere() {
	l.runner.budget.before = func() {
		if l.chance.IntN(4) == 0 {
			l.step(l.chance.IntN(50))
		}
	}
}

func (l *sifting) append() {
	id := l.chance.Int64N(5) + 1
	e := event(int64(len(l.log)+1), id)
	e.List, e.Type, e.Time = contact.ListKey{Namespace: "marketing", Name: "newsletter"}, contact.EventCreate, start
	l.log = append(l.log, e)
	l.follower.offer(e)
}

// deliver sends what may be sent.
func (l *sifting) deliver() {
	l.runner.mu.Lock()
	defer l.runner.mu.Unlock()
	for e := l.runner.ledger.next(start, mailRules); e != nil; e = l.runner.ledger.next(start, mailRules) {
		l.sent = append(l.sent, e.event.Position)
		l.runner.ledger.settle(e, good, start, mailRules)
	}
}

// update has the runner work to another spec with the same filter.
func (l *sifting) update() {
	l.specs++
	changed := filtered(`event.contact.id != "1"`)
	changed.maxInFlight = l.specs
	l.runner.update(changed)
}

// die has another runner go on with what was written.
func (l *sifting) die() {
	l.runner.dirty.Store(true)
	written, _ := l.follower.snapshot(l.runner, true)
	l.follower.remove(l.runner)
	var open []contact.Event
	for _, stored := range written.Open {
		open = append(open, *l.log[stored.Position-1])
	}
	_, next := newSifting()
	next.live = false
	next.tail, next.ledger = l.follower, newLedger(written.Delivery, open, next.sub.ordering)
	l.runner = next
	l.interfere()
}

func (l *sifting) step(dice int) {
	switch {
	case dice < 25:
		if len(l.log) < 300 {
			l.append()
		}
	case dice < 35:
		l.deliver()
	case dice < 40:
		l.follower.leave(l.runner, nil)
	case dice < 48:
		l.follower.feed(l.runner)
		l.follower.join(l.runner)
	case dice < 50:
		l.update()
	case dice < 60:
		l.runner.sift(l.t.Context())
	default:
		l.die()
	}
}

// Whatever happens while the filter is asked, each event that it chooses is sent once, those of
// a contact in their order, and no other.
func TestInboxUnderChance(t *testing.T) {
	for seed := range uint64(200) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			l := newSiftingLife(t, seed)
			quiet := func() bool {
				return len(l.log) == 300 && l.runner.cursor(300) == 300 && len(l.runner.ledger.open) == 0 && l.runner.inbox.first() == nil
			}
			for n := 0; !quiet(); n++ {
				l.g.Expect(n).To(BeNumerically("<", 100_000), "stuck")
				l.step(l.chance.IntN(62))
			}
			var want []int64
			for _, e := range l.log {
				if e.Contact.ID != quarry {
					want = append(want, e.Position)
				}
			}
			l.g.Expect(slices.Sorted(slices.Values(l.sent))).To(Equal(want))
			last := map[int64]int64{}
			for _, position := range l.sent {
				id := l.log[position-1].Contact.ID
				l.g.Expect(position).To(BeNumerically(">", last[id]))
				last[id] = position
			}
		})
	}
}
