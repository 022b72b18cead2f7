package dispatcher

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	clocktesting "k8s.io/utils/clock/testing"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// holdUp holds the evaluations of one subscription's expressions.
type holdUp struct {
	name string
	// began has a value for each evaluation that has begun.
	began chan struct{}
	free  chan struct{}
	// release lets them, and all that follow, go on.
	release func()
}

// hold is to be released before the test ends.
func hold(r *rig, name string) *holdUp {
	h := &holdUp{name: name, began: make(chan struct{}, 1), free: make(chan struct{})}
	h.release = sync.OnceFunc(func() { close(h.free) })
	r.options.evaluating = func(key store.SubscriptionKey) {
		if key.Name != h.name {
			return
		}
		select {
		case h.began <- struct{}{}:
		default:
		}
		<-h.free
	}
	return h
}

// As heavy a filter as there may be is in nobody's way but its own: not in that of the log
// reader, of other subscriptions, their checkpoints or a scrape.
func TestHeavyFilterIsInNoOthersWay(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	const contacts = 20
	heavy := r.subscribe("heavy", func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Filter = `event.contact.email.matches("(.*a.*b|.*c.*d|.{0,30}x.{0,30}y)$") || event.contact.email != ""`
	})
	neighbor := r.subscribe("neighbor", nil)
	before := r.delivery(heavy)().Cursor
	h := hold(r, "heavy")
	defer h.release()
	r.run()
	g.Eventually(r.log.String, patience).Should(ContainSubstring("dispatcher is running"))
	first := r.post("0@example.com")
	g.Eventually(h.began, patience).Should(Receive())
	sent := append([]string{first}, r.postMany("more", contacts-1)...)

	g.Eventually(func() []string { return r.ids("/neighbor") }, patience).Should(ConsistOf(sent))
	g.Eventually(r.delivery(neighbor), patience).Should(And(settled, HaveField("Cursor", BeNumerically(">", before))))
	g.Eventually(r.scrape, patience).Should(And(
		ContainSubstring(r.series("pending_events", "heavy")+fmt.Sprintf(" %d\n", contacts)),
		ContainSubstring(r.series("pending_events", "neighbor")+" 0\n"),
	))
	g.Expect(r.ids("/heavy")).To(BeEmpty())
	g.Expect(r.delivery(heavy)().Cursor).To(Equal(before), "what the filter was not asked about is not passed")

	h.release()
	g.Eventually(func() []string { return r.ids("/heavy") }, patience).Should(ConsistOf(sent))
	g.Eventually(r.delivery(heavy), patience).Should(And(settled, HaveField("Behind", BeZero())))
	g.Expect(r.scrape()).To(And(
		ContainSubstring(r.series("expression_seconds_total", "heavy")), Not(ContainSubstring(r.series("expression_seconds_total", "neighbor"))),
	))
}

// What waits for the filter when a dispatcher ends is read again by the next one.
func TestEventsThatWaitForTheFilterAreReadAgain(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	crm := r.subscribe("crm", func(s *v1alpha1.WebhookSubscription) { s.Spec.Filter = `event.contact.email != "1@example.com"` })
	h := hold(r, "crm")
	defer h.release()
	stop := r.run()
	g.Eventually(r.log.String, patience).Should(ContainSubstring("dispatcher is running"))
	sent := []string{r.post("0@example.com")}
	g.Eventually(h.began, patience).Should(Receive())
	r.post("1@example.com")
	sent = append(sent, r.post("2@example.com"))
	ending := make(chan struct{})
	go func() {
		defer close(ending)
		stop()
	}()
	h.release()
	g.Eventually(ending, patience).Should(BeClosed())
	r.options.evaluating = nil
	r.run()
	g.Eventually(func() []string { return r.ids("/crm") }, patience).Should(ContainElements(sent))
	g.Eventually(r.delivery(crm), patience).Should(settled)
	g.Expect(r.ids("/crm")).To(ConsistOf(sent))
}

// newSifting returns a live runner whose filter leaves out the contact 1, and its log reader.
func newSifting() (*tail, *runner) {
	follower := &tail{live: map[contact.ListKey]map[*runner]struct{}{}}
	r := &runner{
		key: store.SubscriptionKey{Namespace: "marketing", Name: "crm"}, tail: follower, clock: clocktesting.NewFakeClock(start), wake: make(chan struct{}, 1),
		ledger: perContact(), sub: filtered(`event.contact.id != "1"`),
	}
	r.budget = newTestBudget(clocktesting.NewFakeClock(start), make(chan struct{}, 1))
	follower.forget = r.forget
	follower.join(r)
	return follower, r
}

func filtered(source string) *subscription {
	return &subscription{
		key: store.SubscriptionKey{Namespace: "marketing", Name: "crm"}, filter: store.Filter{Namespace: "marketing"}, format: standard{},
		chosen: newChosen(source), ordering: v1alpha1.OrderingPerContact,
	}
}

// offerFrom offers events of the contacts 0, 1, 2 …, the first at a position.
func offerFrom(follower *tail, position int64, count int) {
	for n := range count {
		e := event(position+int64(n), int64(n+1000))
		e.Contact.ID = int64(n)
		if n == 0 {
			e.Contact.ID = 1000
		}
		e.List, e.Type, e.Time = contact.ListKey{Namespace: "marketing", Name: "newsletter"}, contact.EventCreate, start
		follower.offer(e)
	}
}

func open(r *runner) []int64 { return positions(r.ledger.sorted()) }

// The cursor does not pass an event that the filter was not asked about.
func TestCursorIsBeforeTheInbox(t *testing.T) {
	for name, leave := range map[string]bool{"a live runner": false, "one that has left the log reader": true} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			follower, r := newSifting()
			offerFrom(follower, 5, 3)
			g.Expect(r.ledger.open).To(BeEmpty())
			if leave {
				follower.leave(r, nil)
			}
			progress, written := follower.snapshot(r, true)
			g.Expect(written).To(BeTrue())
			g.Expect(progress.Delivery.Cursor).To(Equal(int64(4)))
			g.Expect(r.beginSifting()).To(BeTrue())
			g.Expect(r.beginSifting()).To(BeFalse(), "one goroutine does it")
			r.sift(t.Context())
			g.Expect(open(r)).To(Equal([]int64{5, 7}))
			progress, _ = follower.snapshot(r, true)
			g.Expect(progress.Delivery.Cursor).To(Equal(int64(7)))
			g.Expect(r.beginSifting()).To(BeFalse())
		})
	}
}

// Operational events, which no filter is asked about, keep their place.
func TestOrderInTheInbox(t *testing.T) {
	g := NewWithT(t)
	follower, r := newSifting()
	r.sub.filter.Operations = []v1alpha1.OperationalEvent{v1alpha1.OperationalFailing}
	offerFrom(follower, 1, 1)
	operation := event(2, 0)
	operation.List.Namespace, operation.Type, operation.Operation = "marketing", contact.EventFailing, &contact.Operation{}
	follower.offer(operation)
	g.Expect(r.ledger.open).To(BeEmpty())
	r.sift(t.Context())
	g.Expect(open(r)).To(Equal([]int64{1, 2}))
}

func TestForgetWhileTheFilterIsAsked(t *testing.T) {
	g := NewWithT(t)
	follower, r := newSifting()
	offerFrom(follower, 1, 4)
	forgets := func(position int64, of *contact.Event) *contact.Event {
		e := *of
		e.Position, e.Type, e.Forget = position, contact.EventDelete, true
		return &e
	}
	asked, waits := r.inbox.events[0], r.inbox.events[2]
	follower.offer(forgets(5, waits))
	r.budget.before = func() {
		r.budget.before = nil
		follower.offer(forgets(6, asked))
	}
	r.sift(t.Context())
	g.Expect(open(r)).To(Equal([]int64{4, 5, 6}), "the contacts of 1 and 3 are forgotten, 2 is not chosen")
}

// Another spec chooses from what the filter was not asked about, or not answered for.
func TestUpdateWhileTheFilterIsAsked(t *testing.T) {
	g := NewWithT(t)
	follower, r := newSifting()
	offerFrom(follower, 1, 3)
	r.budget.before = func() {
		r.budget.before = nil
		r.update(filtered(`event.contact.id == "1"`))
	}
	r.sift(t.Context())
	g.Expect(r.ledger.open).To(BeEmpty())
	g.Expect(r.ledger.cursor).To(BeZero(), "all are read again")
	g.Expect(follower.feed(r)).To(BeTrue())
	r.sift(t.Context())
	g.Expect(open(r)).To(Equal([]int64{2}))
	g.Expect(r.ledger.cursor).To(Equal(int64(3)))
}

// What comes while the callback is deactivated is counted when the filter was asked, and the
// callback is reactivated after that.
func TestDeactivatedCallbackCountsWhatTheFilterChooses(t *testing.T) {
	g := NewWithT(t)
	follower, r := newSifting()
	r.ledger.life.Deactivation = &store.Deactivation{At: start, Until: start.Add(time.Hour)}
	r.ledger.life.Owed.Spans = []store.Span{{}}
	request := store.Request{Type: v1alpha1.RequestReactivate, Value: "now", Replay: true}
	r.requests = map[store.RequestType]store.Request{request.Type: request}
	offerFrom(follower, 1, 3)
	g.Expect(r.canAnswer(request)).To(BeFalse())
	r.reactivate(request)
	g.Expect(r.requests).To(HaveLen(1))
	r.sift(t.Context())
	g.Expect(r.ledger.life.Owed).To(And(HaveField("Events", int64(2)), HaveField("Spans", Equal([]store.Span{{UpTo: 3}}))))
	follower.join(r)
	g.Expect(r.canAnswer(request)).To(BeTrue())
	r.reactivate(request)
	g.Expect(r.requests).To(BeEmpty())
	g.Expect(r.ledger.life.Replay.Running()).To(BeTrue())
}

// A full inbox has no more room than a full ledger.
func TestRoomOfTheInbox(t *testing.T) {
	g := NewWithT(t)
	follower, r := newSifting()
	offerFrom(follower, 1, maxOpen+10)
	g.Expect(r.inbox.events).To(HaveLen(maxOpen))
	g.Expect(r.live).To(BeFalse())
	g.Expect(follower.feed(r)).To(BeFalse())
	r.sift(t.Context())
	g.Expect(r.ledger.open).To(HaveLen(maxOpen - 1))
	g.Expect(r.ledger.cursor).To(Equal(int64(maxOpen)))
}

// stuckStore is a real store whose reading of open events waits.
type stuckStore struct {
	store.Store
	reading chan struct{}
	free    chan struct{}
}

// Read implements store.Log.
func (s *stuckStore) Read(ctx context.Context, query store.Query) ([]contact.Event, error) {
	found, err := s.Store.Read(ctx, query)
	if len(query.Positions) > 0 {
		s.reading <- struct{}{}
		select {
		case <-s.free:
		case <-ctx.Done():
		}
	}
	return found, err
}

// A store that is slow with one subscription's events holds up no other's, nor the log reader,
// checkpoints or a scrape. What was read before a contact was forgotten is not sent.
func TestNoLockIsHeldOverAReadOfTheStore(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	stuck := r.subscribe("stuck", nil)
	neighbor := r.subscribe("neighbor", nil)
	r.receiver.AnswerWith(func(w http.ResponseWriter, call *http.Request) {
		if call.URL.Path == "/stuck" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	stop := r.run()
	forgotten, kept := r.post("ada@example.com"), r.post("grace@example.com")
	g.Eventually(r.delivery(stuck), patience).Should(HaveField("Open", HaveLen(2)))
	g.Eventually(r.delivery(neighbor), patience).Should(settled)
	stop()
	r.receiver.Answer(http.StatusOK)
	calls := len(r.ids("/stuck"))

	slow := &stuckStore{Store: r.store, reading: make(chan struct{}, 1), free: make(chan struct{})}
	r.options.Store = slow
	r.run()
	g.Eventually(slow.reading, patience).Should(Receive())
	deletion := r.forget("ada@example.com")
	later := r.post("linus@example.com")
	g.Eventually(func() []string { return r.ids("/neighbor") }, patience).Should(ContainElements(deletion, later))
	g.Eventually(r.delivery(neighbor), patience).Should(settled)
	g.Expect(r.scrape()).To(ContainSubstring(r.series("pending_events", "neighbor") + " 0\n"))

	close(slow.free)
	g.Eventually(func() []string { return r.ids("/stuck")[calls:] }, patience).Should(ConsistOf(kept, deletion, later))
	g.Eventually(r.delivery(stuck), patience).Should(settled)
	g.Expect(r.ids("/stuck")[calls:]).NotTo(ContainElement(forgotten))
}
