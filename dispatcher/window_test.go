package dispatcher

import (
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
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
