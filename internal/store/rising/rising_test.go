package rising

import (
	"context"
	"sync"
	"testing"

	. "github.com/onsi/gomega"
)

// Everybody who waits is told, whoever lifts the number and however often.
func TestNumber(t *testing.T) {
	g := NewWithT(t)
	const waiters, rises = 8, 500
	var (
		number Number
		all    sync.WaitGroup
	)
	for range waiters {
		all.Go(func() {
			for seen := int64(0); seen < rises; {
				risen, err := number.Wait(t.Context(), seen)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(risen).To(BeNumerically(">", seen))
				seen = risen
			}
		})
	}
	for range rises {
		all.Go(number.Rise)
	}
	all.Wait()
	g.Expect(number.Load()).To(Equal(int64(rises)))
	number.Reach(rises - 1)
	g.Expect(number.Load()).To(Equal(int64(rises)), "it does not fall")
	number.Reach(rises + 5)
	g.Expect(number.Load()).To(Equal(int64(rises + 5)))
}

func TestWaitEndsWithTheContext(t *testing.T) {
	g := NewWithT(t)
	var number Number
	number.Reach(7)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := number.Wait(ctx, 7)
	g.Expect(err).To(MatchError(context.Canceled))
	g.Expect(number.Wait(ctx, 6)).To(Equal(int64(7)), "what is known needs no waiting")
}
