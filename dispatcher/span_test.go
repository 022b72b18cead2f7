package dispatcher

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/utils/clock"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/sqlite"
)

// sparseLog is a long log with one event, that tells how far queries looked.
type sparseLog struct {
	store.Log
	// longest is how many positions a query has looked at, at most.
	longest int64
}

// newSparseLog returns a log with an event of the namespace marketing at this position.
func newSparseLog(t *testing.T, position int64) *sparseLog {
	t.Helper()
	g := NewWithT(t)
	path := filepath.Join(t.TempDir(), "postbus.db")
	s, err := sqlite.Open(t.Context(), path)
	g.Expect(err).NotTo(HaveOccurred())
	appendEvents(t, s, 1)
	g.Expect(s.Close()).To(Succeed())
	db, err := sql.Open("sqlite", path)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = db.ExecContext(t.Context(), "UPDATE events SET position = ?", position)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(db.Close()).To(Succeed())
	s, err = sqlite.Open(t.Context(), path)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { g.Expect(s.Close()).To(Succeed()) })
	return &sparseLog{Log: s}
}

// Read implements store.Log.
func (l *sparseLog) Read(ctx context.Context, query store.Query) ([]contact.Event, error) {
	l.longest = max(l.longest, query.UpTo-query.After)
	return l.Log.Read(ctx, query)
}

// CountEvents implements store.Log.
func (l *sparseLog) CountEvents(ctx context.Context, query store.Query) (int64, error) {
	l.longest = max(l.longest, query.UpTo-query.After)
	return l.Log.CountEvents(ctx, query)
}

// A subscription that matches little, and is far behind, looks at the log by parts
// that the store has the patience for.
func TestSparseEventsAreFoundByParts(t *testing.T) {
	const end, only = 10*logSpan + 5, 7*logSpan + 3
	newRunner := func(t *testing.T) (*runner, *sparseLog) {
		log := newSparseLog(t, only)
		return &runner{
			key: store.SubscriptionKey{Namespace: "marketing", Name: "crm"}, log: log, lists: bookOf("newsletter"), clock: clock.RealClock{}, wake: make(chan struct{}, 1),
			tail: &tail{position: end, window: window{after: end}, live: map[contact.ListKey]map[*runner]struct{}{}}, ledger: perContact(),
			sub: &subscription{key: store.SubscriptionKey{Namespace: "marketing", Name: "crm"}, format: standard{}, ordering: v1alpha1.OrderingPerContact},
		}, log
	}
	t.Run("to catch up", func(t *testing.T) {
		g := NewWithT(t)
		r, log := newRunner(t)
		g.Expect(r.catchUp(t.Context())).To(Succeed())
		g.Expect(r.live).To(BeTrue())
		g.Expect(r.ledger.open).To(HaveKey(int64(only)))
		g.Expect(log.longest).To(BeNumerically("<=", logSpan))
	})
	t.Run("to replay", func(t *testing.T) {
		g := NewWithT(t)
		r, log := newRunner(t)
		r.ledger.startReplay(v1alpha1.ReplayOfRange, store.Owed{Spans: []store.Span{{After: 1, UpTo: end}}, Events: 1}, start)
		g.Expect(r.replayOwed(t.Context())).To(Succeed())
		g.Expect(r.ledger.open).To(HaveKey(int64(only)))
		g.Expect(r.ledger.open[only].replayed).To(BeTrue())
		g.Expect(r.ledger.life.Owed.Spans).To(BeEmpty())
		g.Expect(log.longest).To(BeNumerically("<=", logSpan))
	})
	t.Run("to count", func(t *testing.T) {
		g := NewWithT(t)
		_, log := newRunner(t)
		counted, err := lag{}.count(t.Context(), log, store.Query{After: 1, UpTo: end}, start)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(counted.events).To(BeEquivalentTo(1))
		g.Expect(counted.oldest).To(BeEquivalentTo(only))
		g.Expect(log.longest).To(BeNumerically("<=", logSpan))
	})
}
