package storetest

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/link"
	"postbus.dev/postbus/internal/store"
)

// aLink returns a link that works for an hour.
func aLink() link.Link {
	return link.Link{Purpose: link.Unsubscribe, List: list, Contact: 1, Expires: time.Now().Add(time.Hour).Truncate(time.Second).UTC()}
}

// linkKeysPatience is within which time a rotation reaches every process.
const linkKeysPatience = 2 * store.LinkKeysInterval

// testLinkKeys rotates the link key beside a store that is in use.
func testLinkKeys(t *testing.T, engine Engine) {
	g := NewWithT(t)
	place := engine.NewPlace(t)
	opened := engine.Open(t, place)
	defer func() { g.Expect(opened.Close()).To(Succeed()) }()
	rotate := func(overlap time.Duration) { g.Expect(engine.RotateLinkKey(t, place, overlap)).To(Succeed()) }
	keys, err := opened.LinkKeys(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	l := aLink()
	works := func(token string) func() error {
		return func() error {
			_, err := keys.Open(token, l.Purpose, time.Now())
			return err
		}
	}
	first := keys.Token(l)

	rotate(time.Hour)
	again, err := opened.LinkKeys(t.Context()) // it is up to date
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(again).To(BeIdenticalTo(keys))
	g.Expect(works(first)()).To(Succeed(), "the overlap has just begun")
	g.Expect(keys.Token(l)).To(Equal(first), "the new key does not sign before every process knows it")

	rotate(0)
	g.Eventually(works(first), linkKeysPatience).Should(MatchError(link.ErrInvalid), "an older key is revoked at once, in an overlap, too")
	second := keys.Token(l)
	g.Expect(second).NotTo(Equal(first))
	g.Expect(works(second)()).To(Succeed(), "the new key signs at once")

	rotate(time.Second)
	g.Eventually(works(second), linkKeysPatience).Should(MatchError(link.ErrInvalid), "the overlap is over")
	third := keys.Token(l)
	g.Expect(works(third)()).To(Succeed())
	g.Expect(third).NotTo(Equal(second), "the only key that is left signs")

	for range store.MaxLinkKeys - 1 {
		rotate(time.Hour)
	}
	g.Expect(engine.RotateLinkKey(t, place, time.Hour)).To(MatchError(store.ErrTooManyLinkKeys))
	rotate(0)
	g.Eventually(works(third), linkKeysPatience).Should(MatchError(link.ErrInvalid))
}

// testOldestEvent asks for the oldest event of a log that is prepared for the next days.
func testOldestEvent(t *testing.T, s store.Store) {
	g := NewWithT(t)
	g.Expect(s.OldestEvent(t.Context())).To(BeZero())
	g.Expect(s.PrepareLog(t.Context())).To(Succeed())
	g.Expect(s.PrepareLog(t.Context())).To(Succeed())
	first := mustChange(t, s, save(address(1), "Max")).Events[0]
	mustChange(t, s, save(address(1), "Moritz"))
	g.Expect(s.OldestEvent(t.Context())).To(Equal(first.Time))
}
