package ingress

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

func TestPace(t *testing.T) {
	g := NewWithT(t)
	p := pace{bytesPerSecond: 1000, slack: 10 * time.Second}
	g.Expect(p.allowance(0)).To(Equal(10 * time.Second))
	g.Expect(p.allowance(2000)).To(Equal(12 * time.Second))
	p.moved(1000, 4*time.Second)
	g.Expect(p.allowance(0)).To(Equal(7 * time.Second))
	for range 100 {
		p.moved(1000, time.Second)
	}
	g.Expect(p.allowance(0)).To(Equal(7*time.Second), "at the minimum rate nobody falls further behind")
	p.moved(1_000_000, time.Second)
	g.Expect(p.allowance(0)).To(Equal(10*time.Second), "what a caller is ahead is not saved up")
	for range 5 {
		p.moved(100, 2100*time.Millisecond)
	}
	g.Expect(p.allowance(0)).To(BeZero(), "trickling does not help")
}
