package dispatcher

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	. "github.com/onsi/gomega"
)

func TestBudget(t *testing.T) {
	g := NewWithT(t)
	b := &budget{own: 10, each: 60, most: 100}
	first, second := &share{of: b}, &share{of: b}
	g.Expect(first.room()).To(Equal(int64(60)), "its own, and half of what is shared")
	g.Expect(first.take(10)).To(BeTrue())
	g.Expect(b.used.Load()).To(BeZero(), "what is its own is not shared")
	g.Expect(first.take(51)).To(BeFalse(), "no subscription has more than each")
	g.Expect(first.take(50)).To(BeTrue())
	g.Expect(b.used.Load()).To(Equal(int64(50)))

	g.Expect(second.room()).To(Equal(int64(60)), "50 are left, and its own")
	g.Expect(second.take(61)).To(BeFalse())
	g.Expect(second.take(40)).To(BeTrue()) // 30 of what is shared
	g.Expect(second.take(1)).To(BeFalse(), "it has more of what is shared than is left")
	third := &share{of: b}
	g.Expect(third.room()).To(Equal(int64(30)), "something is left for the next one")
	g.Expect(third.take(30)).To(BeTrue())
	g.Expect(b.used.Load()).To(Equal(int64(100)))

	fourth := &share{of: b}
	g.Expect(fourth.take(11)).To(BeFalse())
	g.Expect(fourth.take(10)).To(BeTrue(), "its own is always there")
	first.give(60)
	g.Expect(fourth.take(20)).To(BeTrue())
	for _, s := range []*share{second, third, fourth} {
		s.move(nil)
	}
	g.Expect(b.used.Load()).To(BeZero())
	g.Expect(fourth.used).To(Equal(int64(30)), "it still counts")
	g.Expect(b.used.Load()).To(BeZero())
}

// Many subscriptions that take what they can never have more than the budget, and whoever
// comes late gets a part.
func TestBudgetIsNeverExceeded(t *testing.T) {
	g := NewWithT(t)
	const subscriptions, rounds = 16, 2000
	b := &budget{own: 100, each: 4000, most: 10_000}
	var all sync.WaitGroup
	for n := range subscriptions {
		all.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(n)))
			held, s := []int64{}, &share{of: b}
			for range rounds {
				if size := 1 + random.Int64N(500); random.IntN(3) > 0 && s.take(size) {
					held = append(held, size)
				} else if len(held) > 0 {
					s.give(held[0])
					held = held[1:]
				}
				if used := b.used.Load(); used > b.most || s.used > b.each || s.used < 0 {
					t.Errorf("%d of %d are used, %d by one", used, b.most, s.used)
				}
			}
			for _, size := range held {
				s.give(size)
			}
		})
	}
	all.Wait()
	g.Expect(b.used.Load()).To(BeZero())

	// Those that always take all they can get end up with equal parts, whoever was first.
	greedy := make([]share, subscriptions)
	for range 1000 {
		for i := range greedy {
			greedy[i].of = b
			greedy[i].give(min(10, greedy[i].used)) // an attempt has ended
			for greedy[i].take(10) {
			}
		}
	}
	const part = 10_000 / (subscriptions + 1)
	for i := range greedy {
		g.Expect(greedy[i].used-b.own).To(BeNumerically("~", part, 30), fmt.Sprint(i))
	}
	late := share{of: b}
	g.Expect(late.take(b.own+part-50)).To(BeTrue(), "and leave one for the next")
}
