package dispatcher

import (
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/utils/clock"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// The window has what is behind a position, or says that it does not.
func TestWindow(t *testing.T) {
	g := NewWithT(t)
	w := &window{after: 100}
	behind := func(position int64) []int64 {
		events, complete := w.behind(position)
		g.Expect(complete).To(BeTrue())
		found := []int64{}
		for _, event := range events {
			found = append(found, event.Position)
		}
		return found
	}
	g.Expect(behind(100)).To(BeEmpty())
	for _, position := range []int64{101, 103, 104} { // 102 was never committed
		w.add(event(position, 1))
	}
	g.Expect(behind(100)).To(Equal([]int64{101, 103, 104}))
	g.Expect(behind(101)).To(Equal([]int64{103, 104}))
	g.Expect(behind(102)).To(Equal([]int64{103, 104}))
	g.Expect(behind(104)).To(BeEmpty())
	_, complete := w.behind(99)
	g.Expect(complete).To(BeFalse())

	for position := int64(105); position < 105+3*windowEvents; position++ {
		w.add(event(position, 1))
	}
	_, complete = w.behind(104)
	g.Expect(complete).To(BeFalse())
	last := w.events[len(w.events)-1].Position
	g.Expect(len(behind(last - windowEvents))).To(Equal(windowEvents))
	g.Expect(len(w.events)).To(BeNumerically("<", 2*windowEvents))

	w.add(&contact.Event{Position: last + 1, Forget: true})
	_, complete = w.behind(last - 1)
	g.Expect(complete).To(BeFalse(), "nobody is remembered")
	g.Expect(behind(last)).To(Equal([]int64{last + 1}))
}

// A row that was owned by somebody else may be ahead of this dispatcher's tail: nothing
// is taken twice then.
func TestWindowBehindACursor(t *testing.T) {
	g := NewWithT(t)
	r := &runner{
		clock: clock.RealClock{}, wake: make(chan struct{}, 1), sub: &subscription{},
		ledger: newLedger(store.Delivery{Cursor: 10}, nil, v1alpha1.OrderingNone),
	}
	w := &window{after: 5}
	add := func(first, last int64) {
		for position := first; position <= last; position++ {
			made := event(position, 1)
			made.Type = contact.EventCreate
			w.add(made)
		}
	}
	add(6, 7)
	g.Expect(r.takeRecent(w, 7)).To(BeTrue())
	g.Expect(r.ledger.cursor).To(BeEquivalentTo(10))
	g.Expect(r.ledger.open).To(BeEmpty())

	add(8, 12)
	g.Expect(r.takeRecent(w, 12)).To(BeTrue())
	g.Expect(r.ledger.cursor).To(BeEquivalentTo(12))
	g.Expect(r.ledger.open).To(And(HaveLen(2), HaveKey(int64(11)), HaveKey(int64(12))))
}
