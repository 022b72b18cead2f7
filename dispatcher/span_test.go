package dispatcher

import (
	"context"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/utils/clock"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// sparseLog is a long log with one event that matches.
type sparseLog struct {
	store.Log
	event *contact.Event
	// longest is how many positions a query has looked at, at most.
	longest int64
}

// Read implements store.Log.
func (l *sparseLog) Read(_ context.Context, query store.Query) (events []contact.Event, _ error) {
	l.longest = max(l.longest, query.UpTo-query.After)
	if query.After < l.event.Position && l.event.Position <= query.UpTo {
		events = append(events, *l.event)
	}
	return events, nil
}

// CountEvents implements store.Log.
func (l *sparseLog) CountEvents(ctx context.Context, query store.Query) (int64, error) {
	events, err := l.Read(ctx, query)
	return int64(len(events)), err
}

// A subscription that matches little, and is far behind, looks at the log by parts
// that the store has the patience for.
func TestSparseEventsAreFoundByParts(t *testing.T) {
	const end, only = 10*logSpan + 5, 7*logSpan + 3
	newRunner := func() (*runner, *sparseLog) {
		log := &sparseLog{event: event(only, 1)}
		log.event.Type, log.event.List.Namespace = contact.EventCreate, "marketing"
		return &runner{
			key: store.SubscriptionKey{Namespace: "marketing", Name: "crm"}, log: log, clock: clock.RealClock{}, wake: make(chan struct{}, 1),
			tail: &tail{position: end, window: window{after: end}, live: map[contact.ListKey]map[*runner]struct{}{}}, ledger: perContact(),
			sub: &subscription{key: store.SubscriptionKey{Namespace: "marketing", Name: "crm"}, format: standard{}, ordering: v1alpha1.OrderingPerContact},
		}, log
	}
	t.Run("to catch up", func(t *testing.T) {
		g := NewWithT(t)
		r, log := newRunner()
		g.Expect(r.catchUp(t.Context())).To(Succeed())
		g.Expect(r.live).To(BeTrue())
		g.Expect(r.ledger.open).To(HaveKey(int64(only)))
		g.Expect(log.longest).To(BeNumerically("<=", logSpan))
	})
	t.Run("to replay", func(t *testing.T) {
		g := NewWithT(t)
		r, log := newRunner()
		r.ledger.startReplay(v1alpha1.ReplayOfRange, store.Owed{Spans: []store.Span{{After: 1, UpTo: end}}, Events: 1}, start)
		g.Expect(r.replayOwed(t.Context())).To(Succeed())
		g.Expect(r.ledger.open).To(HaveKey(int64(only)))
		g.Expect(r.ledger.open[only].replayed).To(BeTrue())
		g.Expect(r.ledger.life.Owed.Spans).To(BeEmpty())
		g.Expect(log.longest).To(BeNumerically("<=", logSpan))
	})
	t.Run("to count", func(t *testing.T) {
		g := NewWithT(t)
		_, log := newRunner()
		counted, err := lag{}.count(t.Context(), log, store.Query{After: 1, UpTo: end}, start)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(counted.events).To(BeEquivalentTo(1))
		g.Expect(counted.oldest).To(BeEquivalentTo(only))
		g.Expect(log.longest).To(BeNumerically("<=", logSpan))
	})
}
