package storetest

import (
	"context"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/store"
)

// lifetime is longer than a test takes.
const lifetime = time.Hour

func join(t *testing.T, s store.Store, dispatcher string, lasting time.Duration) []string {
	t.Helper()
	living, err := s.Join(t.Context(), dispatcher, lasting)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return living
}

func claim(t *testing.T, s store.Store, dispatcher string) store.Delivery {
	t.Helper()
	row, err := s.ClaimDelivery(t.Context(), crm, dispatcher)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return row
}

func testJoin(t *testing.T, s store.Store) {
	g := NewWithT(t)
	g.Expect(join(t, s, "b", lifetime)).To(Equal([]string{"b"}))
	g.Expect(join(t, s, "a", lifetime)).To(Equal([]string{"a", "b"}))
	g.Expect(join(t, s, "b", lifetime)).To(Equal([]string{"a", "b"}))
	join(t, s, "c", time.Millisecond)
	g.Eventually(func() []string { return join(t, s, "a", lifetime) }, 10*time.Second).Should(Equal([]string{"a", "b"}), "c is dead")
	g.Expect(s.Leave(t.Context(), "a")).To(Succeed())
	g.Expect(join(t, s, "b", lifetime)).To(Equal([]string{"b"}))
	g.Expect(s.Leave(t.Context(), "nobody")).To(Succeed())
}

func testClaim(t *testing.T, s store.Store) {
	g := NewWithT(t)
	_, err := s.ClaimDelivery(t.Context(), crm, "a")
	g.Expect(err).To(MatchError(store.ErrNotFound))
	opened := store.Delivery{Key: crm, Token: open(t, s, crm)}
	join(t, s, "a", lifetime)
	join(t, s, "b", lifetime)

	first := claim(t, s, "a")
	g.Expect(first.Token).NotTo(Equal(opened.Token))
	stale := store.Progress{Delivery: opened}
	g.Expect(s.Checkpoint(t.Context(), []store.Progress{stale})).To(ConsistOf(crm))
	first.Cursor, first.Open = 7, []store.OpenEvent{{Position: 3, Attempts: 2}}
	g.Expect(s.Checkpoint(t.Context(), []store.Progress{{Delivery: first}})).To(BeEmpty())

	_, err = s.ClaimDelivery(t.Context(), crm, "b")
	g.Expect(err).To(MatchError(store.ErrOwned))
	g.Expect(s.ReleaseDelivery(t.Context(), crm, "b")).To(Succeed(), "it is not b's, so it stays a's")
	_, err = s.ClaimDelivery(t.Context(), crm, "b")
	g.Expect(err).To(MatchError(store.ErrOwned))

	g.Expect(s.ReleaseDelivery(t.Context(), crm, "a")).To(Succeed())
	second := claim(t, s, "b")
	g.Expect(second.Token).NotTo(Equal(first.Token))
	g.Expect(second).To(And(HaveField("Cursor", int64(7)), HaveField("Open", first.Open)))
	g.Expect(s.Checkpoint(t.Context(), []store.Progress{{Delivery: first}})).To(ConsistOf(crm), "a's are refused from now on")

	again := claim(t, s, "b")
	g.Expect(again.Token).NotTo(Equal(second.Token))
	g.Expect(s.Leave(t.Context(), "b")).To(Succeed())
	claim(t, s, "a")
}

// testClaimFromTheDead has an owner die without a word.
func testClaimFromTheDead(t *testing.T, s store.Store) {
	g := NewWithT(t)
	open(t, s, crm)
	join(t, s, "b", lifetime)
	join(t, s, "a", time.Second)
	dead := claim(t, s, "a")
	g.Eventually(func() error {
		_, err := s.ClaimDelivery(t.Context(), crm, "b")
		return err
	}, 10*time.Second).Should(Succeed())
	g.Expect(s.Checkpoint(t.Context(), []store.Progress{{Delivery: dead}})).To(ConsistOf(crm))

	join(t, s, "a", lifetime)
	_, err := s.ClaimDelivery(t.Context(), crm, "a")
	g.Expect(err).To(MatchError(store.ErrOwned), "what it had is not its again")
}

func testWaitForOwners(t *testing.T, s store.Store) {
	g := NewWithT(t)
	open(t, s, crm)
	seen := int64(0)
	rises := func(change func()) {
		t.Helper()
		// What was told before is taken first, for it may come late.
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		risen := make(chan int64, 1)
		go func() {
			generation, _ := s.WaitForOwners(ctx, seen)
			risen <- generation
		}()
		change()
		g.Eventually(risen, 10*time.Second).Should(Receive(&seen))
	}
	rises(func() { join(t, s, "a", lifetime) })
	rises(func() { claim(t, s, "a"); g.Expect(s.ReleaseDelivery(t.Context(), crm, "a")).To(Succeed()) })
	rises(func() { g.Expect(s.Leave(t.Context(), "a")).To(Succeed()) })

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.WaitForOwners(ctx, 1<<62)
	g.Expect(err).To(MatchError(context.Canceled))
}

func testPrune(t *testing.T, s store.Store) {
	g := NewWithT(t)
	row := store.Delivery{Key: crm, Token: open(t, s, crm)}
	var last int64
	for n := range 3 {
		last = mustChange(t, s, save(address(n), "Max")).Events[0].Position
	}
	g.Expect(s.Checkpoint(t.Context(), []store.Progress{{Delivery: row, Aside: []int64{last}}})).To(BeEmpty())
	g.Expect(s.Prune(t.Context(), now.AddDate(0, 0, -2))).To(BeZero())
	g.Expect(mustRead(t, s, store.Query{})).To(HaveLen(3))

	g.Expect(s.Prune(t.Context(), time.Now().AddDate(0, 0, 2))).To(Equal(int64(3)))
	g.Expect(mustRead(t, s, store.Query{})).To(BeEmpty())
	g.Expect(s.SetAsideEvents(t.Context(), crm, 0, 10)).To(BeEmpty())
	g.Expect(s.Head(t.Context())).To(Equal(last))
	g.Expect(s.PositionBefore(t.Context(), now)).To(Equal(last))
	g.Expect(s.PrepareLog(t.Context())).To(Succeed()) // the days ahead are gone as well
	g.Expect(mustChange(t, s, save(address(0), "Moritz")).Events[0].Position).To(Equal(last + 1))
}
