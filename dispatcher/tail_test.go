package dispatcher

import (
	"context"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/sqlite"
)

// Runners on the tail are offered the events that they may want, each once, and leave
// nothing behind.
func TestRunnersAreOfferedTheirLists(t *testing.T) {
	g := NewWithT(t)
	follower := &tail{live: map[contact.ListKey]map[*runner]struct{}{}, forget: func(*contact.Event) {}}
	running := map[string]*runner{}
	for name, filter := range map[string]store.Filter{
		"all":   {},
		"one":   {Lists: []string{"news"}},
		"two":   {Lists: []string{"news", "shop"}},
		"other": {Lists: []string{"jobs"}},
		"operations too": {
			Lists: []string{"jobs"}, Operations: []v1alpha1.OperationalEvent{v1alpha1.OperationalFailing},
		},
	} {
		filter.Namespace = "marketing"
		r := &runner{
			key: store.SubscriptionKey{Namespace: "marketing", Name: name}, tail: follower, clock: clock.RealClock{}, wake: make(chan struct{}, 1),
			ledger: perContact(), sub: &subscription{key: store.SubscriptionKey{Namespace: "marketing", Name: name}, filter: filter, format: standard{}},
		}
		running[name] = r
		follower.join(r)
	}
	for position, list := range []string{"news", "shop", "jobs", ""} {
		offered := event(int64(position)+1, int64(position)+1)
		offered.List, offered.Type = contact.ListKey{Namespace: "marketing", Name: list}, contact.EventCreate
		if list == "" {
			offered.Type, offered.Contact = v1alpha1.EventType(v1alpha1.OperationalFailing), contact.Contact{}
			offered.Address, offered.Operation = "WebhookSubscription/crm", &contact.Operation{}
		}
		follower.offer(offered)
	}
	taken := map[string][]int64{}
	for name, r := range running {
		for _, e := range r.ledger.sorted() {
			taken[name] = append(taken[name], e.event.Position)
		}
		follower.leave(r, nil)
	}
	g.Expect(taken).To(Equal(map[string][]int64{
		"all": {1, 2, 3}, "one": {1}, "two": {1, 2}, "other": {3}, "operations too": {3, 4},
	}))
	g.Expect(follower.live).To(BeEmpty())
}

// gappedLog is an empty log whose end is said to be elsewhere.
type gappedLog struct {
	store.Log
	head  int64
	reads []store.Query
}

func newGappedLog(t *testing.T, head int64) *gappedLog {
	t.Helper()
	s, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "postbus.db"))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { NewWithT(t).Expect(s.Close()).To(Succeed()) })
	return &gappedLog{Log: s, head: head}
}

// WaitForEvents implements store.Log.
func (l *gappedLog) WaitForEvents(context.Context, int64) error { return nil }

// Head implements store.Log.
func (l *gappedLog) Head(context.Context) (int64, error) { return l.head, nil }

// Read implements store.Log.
func (l *gappedLog) Read(ctx context.Context, query store.Query) ([]contact.Event, error) {
	l.reads = append(l.reads, query)
	return l.Log.Read(ctx, query)
}

// Another server goes on with the log, and leaves positions out.
func TestTailPassesGaps(t *testing.T) {
	g := NewWithT(t)
	log := newGappedLog(t, 7)
	follower, err := newTail(t.Context(), log, clock.RealClock{})
	g.Expect(err).NotTo(HaveOccurred())
	log.head = 1_000_007
	g.Expect(follower.readPage(t.Context())).To(Succeed())
	g.Expect(follower.at()).To(Equal(log.head), "it is not asked for what will never come")
	g.Expect(log.reads).To(HaveLen(2))
	g.Expect(log.reads[1]).To(And(HaveField("After", int64(7)), HaveField("UpTo", log.head)), "what came meanwhile is not passed by")
}

// The last events were lost with a server. They are not asked for without a pause.
func TestTailWaitsForLostEvents(t *testing.T) {
	g := NewWithT(t)
	log, fake := newGappedLog(t, 7), clocktesting.NewFakeClock(start)
	follower, err := newTail(t.Context(), log, fake)
	g.Expect(err).NotTo(HaveOccurred())
	log.head = 5
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		follower.run(ctx)
	}()
	g.Eventually(fake.HasWaiters, patience).Should(BeTrue())
	stop()
	g.Eventually(ended, patience).Should(BeClosed())
	g.Expect(log.reads).To(HaveLen(1))
	g.Expect(follower.at()).To(Equal(int64(7)))
}
