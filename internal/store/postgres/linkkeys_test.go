package postgres

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/link"
	"postbus.dev/postbus/internal/store"
)

// A rotation reaches every process by a notification. What one signs, the others verify.
func TestRotationReachesEveryProcess(t *testing.T) {
	g := NewWithT(t)
	place := newPlace(t)
	one, other := openAt(t, place), openAt(t, place)
	var rings []*link.Ring
	for _, s := range []*Store{one, other} {
		g.Eventually(s.listening.Load, 10*time.Second).Should(BeTrue())
		ring, err := s.LinkKeys(t.Context())
		g.Expect(err).NotTo(HaveOccurred())
		rings = append(rings, ring)
	}
	l := link.Link{Purpose: link.Profile, List: list, Contact: 1, Expires: time.Now().Add(time.Hour)}
	works := func(ring *link.Ring, token string) error {
		_, err := ring.Open(token, link.Profile, time.Now())
		return err
	}
	all := func(token string) func() []error {
		return func() []error { return []error{works(rings[0], token), works(rings[1], token)} }
	}
	first := rings[0].Token(l)
	g.Expect(all(first)()).To(HaveEach(BeNil()))

	// A planned rotation: the new key signs once its time has come.
	id, err := RotateLinkKey(t.Context(), Options{DSNFile: place}, time.Hour)
	g.Expect(err).NotTo(HaveOccurred())
	var delay time.Duration
	g.Expect(one.readRow(t.Context(), []any{&delay}, `SELECT starts_at - clock_timestamp() FROM link_keys WHERE id = $1`, id)).To(Succeed())
	g.Expect(delay).To(BeNumerically("~", store.LinkKeyDelay, 10*time.Second))
	g.Expect(one.readRow(t.Context(), []any{new(string)},
		`UPDATE link_keys SET starts_at = clock_timestamp() WHERE id = $1 RETURNING pg_notify('postbus_links', '')::text`, id)).To(Succeed())
	g.Eventually(func() []string { return []string{rings[0].Token(l), rings[1].Token(l)} }, 10*time.Second).
		Should(HaveEach(Not(Equal(first))))
	second := rings[1].Token(l)
	g.Expect(rings[0].Token(l)).To(Equal(second))
	g.Expect(all(first)()).To(HaveEach(BeNil()), "links of the older key go on working")
	g.Expect(all(second)()).To(HaveEach(BeNil()))

	// The overlap ends by the server's clock.
	g.Expect(one.readRow(t.Context(), []any{new(string)},
		`UPDATE link_keys SET expires_at = clock_timestamp() WHERE id <> $1 RETURNING id`, id)).To(Succeed())
	g.Eventually(all(first), 2*store.LinkKeysInterval).Should(HaveEach(MatchError(link.ErrInvalid)))
	g.Expect(all(second)()).To(HaveEach(BeNil()))

	// A leak: nothing that was signed before works.
	began := time.Now()
	_, err = RotateLinkKey(t.Context(), Options{DSNFile: place}, 0)
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(all(second), 2*store.LinkKeysInterval, time.Millisecond).Should(HaveEach(MatchError(link.ErrInvalid)))
	t.Logf("revoked in both processes after %s", time.Since(began))
	g.Eventually(func() []error { return all(rings[0].Token(l))() }, 2*store.LinkKeysInterval).Should(HaveEach(BeNil()))
	var kept int
	g.Expect(one.readRow(t.Context(), []any{&kept}, `SELECT count(*) FROM link_keys`)).To(Succeed())
	g.Expect(kept).To(Equal(1), "no revoked secret stays in the table")
}
