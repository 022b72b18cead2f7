package dispatcher

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/testkit"
)

var allOperations = []v1alpha1.OperationalEvent{
	v1alpha1.OperationalFailing, v1alpha1.OperationalDeactivated, v1alpha1.OperationalReactivated, v1alpha1.OperationalKeyExpiring,
}

// alarm asks for operational events and nothing else.
func alarm(s *v1alpha1.WebhookSubscription) {
	s.Spec.Events, s.Spec.OperationalEvents = []v1alpha1.EventType{contact.EventNone}, allOperations
}

// failsSoon has a callback deactivated after one retry.
func failsSoon(s *v1alpha1.WebhookSubscription) {
	s.Spec.Retry.Intervals = []metav1.Duration{{Duration: time.Second}}
}

// breakPath has calls to a path answered with 500, and all others with 200.
func (r *rig) breakPath(path string) {
	r.receiver.AnswerWith(func(w http.ResponseWriter, request *http.Request) {
		if request.URL.Path == path {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
}

// told are the operational events that a path of the receiver got, each as its
// type and the object that it is about.
func (r *rig) told(path string) (all []string) {
	for _, call := range r.receiver.Calls() {
		var body operationBody
		NewWithT(r.t).Expect(json.Unmarshal(call.Body, &body)).To(Succeed())
		if call.Path == path && body.Data.Kind != "" {
			all = append(all, string(body.Type)+" "+body.Data.Name)
		}
	}
	return all
}

func (r *rig) request(object *v1alpha1.WebhookSubscription, request store.Request) {
	r.t.Helper()
	request.Key = keyOf(object)
	NewWithT(r.t).Expect(r.store.PutRequest(r.t.Context(), request)).To(Succeed())
}

// A callback's whole story reaches those who asked for it: of their namespace,
// in order, each event once, and nobody hears of themselves.
func TestOperationalEventsReachWhoAskedForThem(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	other := newRig(t) // another tenant with the same store
	other.store = r.store
	crm := r.subscribe("crm", func(s *v1alpha1.WebhookSubscription) {
		failsSoon(s)
		s.Spec.OperationalEvents = allOperations
	})
	r.subscribe("alarm", alarm)
	r.subscribe("narrow", func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Lists, s.Spec.Sources = []string{"shop"}, []v1alpha1.EventSource{contact.SourceConsole}
		s.Spec.OperationalEvents = []v1alpha1.OperationalEvent{v1alpha1.OperationalDeactivated}
	})
	r.subscribe("chat", func(s *v1alpha1.WebhookSubscription) {
		alarm(s)
		s.Spec.Filter = `event.list == "newsletter"`
		s.Spec.Payload = v1alpha1.Payload{
			Format: v1alpha1.FormatTemplate, Template: `{"text": event.type + ": " + event.operation.name + " " + event.operation.reason}`,
		}
	})
	r.subscribe("others", nil)
	other.subscribe("alarm", alarm)
	r.run()
	r.breakPath("/crm")
	r.post("ada@example.com")
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Life.Deactivation", Not(BeNil())))
	r.breakPath("/nothing")
	r.request(crm, store.Request{Type: v1alpha1.RequestReactivate, Value: "now", Replay: true})
	g.Eventually(func() []string { return r.told("/alarm") }, patience).Should(Equal([]string{
		"subscription.failing crm", "subscription.deactivated crm", "subscription.reactivated crm",
	}))
	g.Eventually(func() []string { return r.told("/narrow") }, patience).Should(Equal([]string{"subscription.deactivated crm"}))
	g.Eventually(func() []string { return r.ids("/chat") }, patience).Should(HaveLen(3), "a filter is of contacts' events")
	calls := r.receiver.Calls()
	first := slices.IndexFunc(calls, func(c testkit.Call) bool { return c.Path == "/chat" })
	g.Expect(string(calls[first].Body)).To(Equal(`{"text":"subscription.failing: crm HTTPStatus"}`))
	g.Expect(r.ids("/alarm")).To(HaveLen(3), "no events of contacts")
	g.Expect(r.ids("/narrow")).To(HaveLen(1), "lists and sources choose among those")
	g.Expect(r.told("/crm")).To(BeEmpty(), "nobody hears of themselves")
	g.Expect(r.told("/others")).To(BeEmpty(), "nobody hears who did not ask")
	g.Expect(other.receiver.Count()).To(BeZero(), "nor another tenant")
}

// mute is a real store that writes each checkpoint, and leaves the first that raises
// something new without an answer. One subscription raises.
type mute struct {
	store.Store
	// unanswered is how many operational events were in checkpoints without answer.
	unanswered int64
}

func (m *mute) Checkpoint(ctx context.Context, progress []store.Progress) ([]store.SubscriptionKey, error) {
	gone, err := m.Store.Checkpoint(ctx, progress)
	for i := range progress {
		if progress[i].Operations > m.unanswered {
			m.unanswered = progress[i].Operations
			return nil, store.ErrUnavailable
		}
	}
	return gone, err
}

// A checkpoint that was written without an answer is written again, and nobody is
// told twice.
func TestOperationalEventsAreRaisedOnce(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	unreliable := &mute{Store: r.store}
	r.options.Store = unreliable
	crm := r.subscribe("crm", failsSoon)
	r.subscribe("alarm", alarm)
	stop := r.run()
	r.breakPath("/crm")
	r.post("ada@example.com")
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Life.Deactivation", Not(BeNil())))
	r.request(crm, store.Request{Type: v1alpha1.RequestReactivate, Value: "now"})
	g.Eventually(func() []string { return r.told("/alarm") }, patience).Should(ContainElement("subscription.reactivated crm"))
	stop()
	g.Expect(r.told("/alarm")).To(Equal([]string{
		"subscription.failing crm", "subscription.deactivated crm", "subscription.reactivated crm",
	}))
	g.Expect(unreliable.unanswered).To(Equal(int64(3)))
	written, err := r.store.Read(t.Context(), store.Query{Filter: store.Filter{
		Types: []v1alpha1.EventType{contact.EventNone}, Operations: allOperations,
	}})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(written).To(HaveLen(3))
}

// The same that a callback got live it gets by a replay, and one whose own
// callback was down meanwhile.
func TestOperationalEventsAreKeptAndReplayed(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	began := time.Now().Add(-time.Second)
	watcher := r.subscribe("alarm", alarm)
	r.run()
	g.Expect(r.store.RaiseOnce(t.Context(), store.Once{Key: "a", Now: began, Until: began.Add(time.Hour)}, contact.Event{
		List: contact.ListKey{Namespace: r.namespace}, Type: contact.EventKeyExpiring, Time: time.Now(),
		Operation: &contact.Operation{Kind: "ApiKey", Name: "form", ExpiresAt: time.Now().Add(time.Hour)},
	})).To(Succeed())
	g.Eventually(func() []string { return r.told("/alarm") }, patience).Should(Equal([]string{"apikey.expiring form"}))
	r.request(watcher, store.Request{Type: v1alpha1.RequestReplayRange, Value: "all", Since: began, Until: time.Now()})
	g.Eventually(func() []string { return r.told("/alarm") }, patience).Should(HaveLen(2))
	ids := r.ids("/alarm")
	g.Expect(ids[0]).To(Equal(ids[1]))
	r.request(watcher, store.Request{Type: v1alpha1.RequestReplayEvent, Value: ids[0], EventID: ids[0]})
	g.Eventually(func() []string { return r.told("/alarm") }, patience).Should(HaveLen(3))

	r.request(watcher, store.Request{Type: v1alpha1.RequestTest, Value: "1"})
	g.Eventually(r.delivery(watcher), patience).Should(HaveField("Life.Answers", HaveKeyWithValue(
		v1alpha1.RequestTest, HaveField("Result", v1alpha1.RequestDone))))
	calls := r.receiver.Calls()
	g.Expect(calls[3].Header.Get(headerTest)).To(Equal("true"))
	g.Expect(string(calls[3].Body)).To(ContainSubstring(`"type":"subscription.failing"`), "of the kind that it asks for")
	g.Expect(calls[3].Header.Get(signature.HeaderID)).To(HavePrefix("test_"))
}

// Objects don't wait for each other, events of one object do.
func TestOperationalEventsKeepTheirObjectsOrder(t *testing.T) {
	g := NewWithT(t)
	l := perContact()
	for n, name := range []string{"crm", "crm", "shop"} {
		e := event(int64(n+1), 0)
		e.Type, e.Operation = contact.EventFailing, &contact.Operation{Kind: kindSubscription, Name: name}
		e.Address = e.Operation.Object()
		l.take(e, start)
	}
	l.take(event(4, 1), start)
	first := sendAll(l, start)
	g.Expect(positions(first)).To(Equal([]int64{1, 3, 4}))
	l.settle(first[0], good, start, mailRules)
	g.Expect(positions(sendAll(l, start))).To(Equal([]int64{2}))
}

func TestRenderOperation(t *testing.T) {
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	operation := contact.Operation{
		Kind: kindSubscription, Name: "crm", Reason: v1alpha1.FailureHTTPStatus, HTTPStatus: 500, FailingSince: at,
	}
	for name, row := range map[string]struct {
		kind v1alpha1.EventType
		edit func(*contact.Operation)
		want string
	}{
		"a callback begins to fail": {
			contact.EventFailing, func(o *contact.Operation) { o.DeactivationDue = at.Add(25 * time.Minute) },
			`"reason":"HTTPStatus","httpStatus":500,"failingSince":"2026-11-22T10:00:00Z","deactivationDue":"2026-11-22T10:25:00Z"`,
		},
		"a callback is deactivated": {
			contact.EventDeactivated, func(o *contact.Operation) { o.BufferedUntil = at.Add(time.Hour) },
			`"reason":"HTTPStatus","httpStatus":500,"failingSince":"2026-11-22T10:00:00Z","bufferedUntil":"2026-11-22T11:00:00Z","bufferedEvents":0`,
		},
		"a callback is reactivated": {
			contact.EventReactivated, func(o *contact.Operation) {
				*o = contact.Operation{Kind: kindSubscription, Name: "crm", Events: 12}
			}, `"bufferedEvents":12,"replay":false`,
		},
		"a key expires": {
			contact.EventKeyExpiring, func(o *contact.Operation) {
				*o = contact.Operation{Kind: "ApiKey", Name: "form", ExpiresAt: at}
			}, `"expiresAt":"2026-11-22T10:00:00Z"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			told := operation
			row.edit(&told)
			e := &contact.Event{List: contact.ListKey{Namespace: "marketing"}, Type: row.kind, Time: at, Operation: &told}
			g.Expect(standard{}.knows(e)).To(BeTrue())
			g.Expect(slices.ContainsFunc([]format{mailingwork{}, mailUp{}, maileon{}}, func(f format) bool { return f.knows(e) })).To(BeFalse())
			carried, err := standard{cloudEvents: true}.render(e, nil)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(string(carried.body)).To(Equal(strings.Join([]string{
				`{"type":"`, string(row.kind), `","timestamp":"2026-11-22T10:00:00Z","data":{"namespace":"marketing","kind":"`, told.Kind,
				`","name":"`, told.Name, `",`, row.want, `}}`,
			}, "")))
			g.Expect(carried.header).To(And(HaveKeyWithValue("ce-type", "dev.postbus."+string(row.kind)),
				HaveKeyWithValue("ce-source", "/namespaces/marketing"), HaveKeyWithValue("ce-subject", told.Kind+"/"+told.Name)))
		})
	}
}
