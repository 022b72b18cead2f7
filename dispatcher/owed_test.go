package dispatcher

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/utils/clock"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/sqlite"
)

// meanwhile is a real store in which something happens while a page is read, once.
type meanwhile struct {
	store.Store
	happens func()
}

func (m *meanwhile) Read(ctx context.Context, query store.Query) ([]contact.Event, error) {
	page, err := m.Store.Read(ctx, query)
	if happens := m.happens; happens != nil {
		m.happens = nil
		happens()
	}
	return page, err
}

// newAside returns a store with an event that is set aside, and a runner that is to send
// it again.
func newAside(t *testing.T) (*meanwhile, *runner) {
	t.Helper()
	g := NewWithT(t)
	opened, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "postbus.db"))
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { g.Expect(opened.Close()).To(Succeed()) })
	key := store.SubscriptionKey{Namespace: "marketing", Name: "crm"}
	g.Expect(opened.OpenDelivery(t.Context(), key)).To(Succeed())
	appendEvents(t, opened, 1)
	row, err := opened.LoadDelivery(t.Context(), key)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = opened.Checkpoint(t.Context(), []store.Progress{{Delivery: row, Aside: []int64{1}}})
	g.Expect(err).NotTo(HaveOccurred())
	log := &meanwhile{Store: opened}
	r := &runner{
		key: key, log: log, aside: log, spaces: opened, lists: bookOf("newsletter"), clock: clock.RealClock{}, wake: make(chan struct{}, 1), ledger: perContact(),
		sub: &subscription{key: key, filter: store.Filter{Namespace: key.Namespace}, format: standard{}},
	}
	plan, err := r.planAside(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	r.ledger.startReplay(v1alpha1.ReplayOfFailed, plan.owed, start)
	return log, r
}

// bookOf knows lists of the namespace marketing.
func bookOf(names ...string) *listBook {
	book := &listBook{}
	for _, name := range names {
		book.set(contact.ListKey{Namespace: "marketing", Name: name}, &listNumbers{bound: true})
	}
	return book
}

// What was read of a person before they were forgotten is not taken after.
func TestForgetWhileWhatWasSetAsideIsRead(t *testing.T) {
	g := NewWithT(t)
	log, r := newAside(t)
	log.happens = func() {
		removal := contact.Removal{Event: contact.EventDelete, EventSource: contact.SourceAPI, Time: start, Forget: true}
		decision, err := log.Change(t.Context(), store.Change{
			List: contact.ListKey{Namespace: "marketing", Name: "newsletter"}, Address: "0@example.com", Apply: removal.Decide,
		})
		g.Expect(err).NotTo(HaveOccurred())
		r.forget(&decision.Events[0])
	}
	g.Expect(r.replayOwed(t.Context())).To(Succeed())
	g.Expect(r.ledger.open).To(BeEmpty())
	g.Expect(r.ledger.life.Replay.Running()).To(BeFalse())
}

// What a filter leaves out of a range does not wait until all of the range is sent.
func TestRangeOfWhichAFilterLeavesOut(t *testing.T) {
	g := NewWithT(t)
	log, r := newAside(t)
	appendEvents(t, log.Store, 3)
	r.sub.chosen = newChosen(`event.contact.email == "2@example.com"`)
	r.ledger = perContact()
	r.ledger.cursor = 4
	plan, err := r.planRange(t.Context(), r.sub, 4, store.Request{Until: time.Now().Add(time.Hour)})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(plan.owed.Events).To(BeEquivalentTo(4))
	r.ledger.startReplay(plan.of, plan.owed, start)
	g.Expect(r.replayOwed(t.Context())).To(Succeed())
	g.Expect(r.ledger.open).To(BeEmpty(), "the filter is asked without a lock, later")
	r.sift(t.Context())
	g.Expect(r.ledger.open).To(HaveLen(1))
	g.Expect(r.ledger.life.Owed.Events).To(BeZero())
	g.Expect(r.ledger.life.Replay).To(HaveValue(And(HaveField("Total", BeEquivalentTo(1)), WithTransform(func(r store.Replay) bool { return r.Running() }, BeTrue()))))
}
