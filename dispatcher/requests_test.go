package dispatcher

import (
	"net/http"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/store"
)

// ask puts a request and returns its answer.
func (r *rig) ask(object *v1alpha1.WebhookSubscription, request store.Request) store.Answer {
	r.t.Helper()
	g := NewWithT(r.t)
	request.Key = keyOf(object)
	g.Expect(r.store.PutRequest(r.t.Context(), request)).To(Succeed())
	var answer store.Answer
	g.Eventually(func() string {
		answer = r.delivery(object)().Life.Answers[request.Type]
		return answer.Value
	}, patience).Should(Equal(request.Value))
	return answer
}

// replayed returns the webhook-ids of calls that a replay made.
func (r *rig) replayed() (ids []string) {
	for _, call := range r.receiver.Calls() {
		if call.Header.Get(headerReplay) == "true" {
			ids = append(ids, call.Header.Get(signature.HeaderID))
		}
	}
	return ids
}

// TestReplays asks an active subscription for all that it can be asked for, one
// after the other.
func TestReplays(t *testing.T) {
	r := newRig(t)
	r.declareList("newsletter", nil)
	other := newRig(t)
	other.store = r.store
	crm := r.subscribe("crm", func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Events = []v1alpha1.EventType{contact.EventSubscribe}
		s.Spec.RateLimit.MaxInFlight = 1
	})
	r.run()
	day := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	var ids []string
	for n, address := range []string{"a@example.com", "b@example.com", "c@example.com", "d@example.com"} {
		ids = append(ids, r.postAt(address, day.Add(time.Duration(n)*time.Hour)))
	}
	changed := r.postAt("a@example.com", day.Add(5*time.Hour)) // a ChangeProfile
	foreign := other.postAt("a@example.com", day.Add(6*time.Hour))
	head, err := r.store.Head(t.Context())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	NewWithT(t).Eventually(r.delivery(crm), patience).Should(And(HaveField("Open", BeEmpty()), HaveField("Cursor", head)))

	count := 0
	for _, row := range []struct {
		name    string
		request store.Request
		want    []string
		refusal string
	}{
		{"a range, both ends included", store.Request{
			Type: v1alpha1.RequestReplayRange, Since: day.Add(time.Hour), Until: day.Add(2 * time.Hour),
		}, ids[1:3], ""},
		{"the same range, asked for again", store.Request{
			Type: v1alpha1.RequestReplayRange, Since: day.Add(time.Hour), Until: day.Add(2 * time.Hour),
		}, ids[1:3], ""},
		{"a range of nothing that it asks for", store.Request{
			Type: v1alpha1.RequestReplayRange, Since: day.Add(4 * time.Hour), Until: time.Now(),
		}, nil, ""},
		{"all that there is", store.Request{Type: v1alpha1.RequestReplayRange, Until: time.Now()}, ids, ""},
		{"one event", store.Request{Type: v1alpha1.RequestReplayEvent, EventID: ids[2]}, ids[2:3], ""},
		{"an event that it does not ask for", store.Request{Type: v1alpha1.RequestReplayEvent, EventID: changed}, nil, "none that the subscription asks for"},
		{"an event of another namespace", store.Request{Type: v1alpha1.RequestReplayEvent, EventID: foreign}, nil, "no event of this id"},
		{"an event that there is not", store.Request{Type: v1alpha1.RequestReplayEvent, EventID: store.EventID(999)}, nil, "no event of this id"},
		{"the place of an event by another id", store.Request{Type: v1alpha1.RequestReplayEvent, EventID: store.EventID(1)}, nil, "no event of this id"},
		{"no id", store.Request{Type: v1alpha1.RequestReplayEvent, EventID: "42"}, nil, "no event of this id"},
		{"what was set aside, where nothing was", store.Request{Type: v1alpha1.RequestReplayFailed}, nil, ""},
		{"a reactivation of what is active", store.Request{Type: v1alpha1.RequestReactivate, Replay: true}, nil, "not deactivated"},
		{"something of a later version", store.Request{Type: "Dance"}, nil, "does not know requests of the type Dance"},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := NewWithT(t)
			row.request.Value = row.name
			answer := r.ask(crm, row.request)
			if row.refusal != "" {
				g.Expect(answer.Result).To(Equal(v1alpha1.RequestRefused))
				g.Expect(answer.Message).To(ContainSubstring(row.refusal))
			} else {
				g.Expect(answer.Result).To(Equal(v1alpha1.RequestDone), answer.Message)
				g.Eventually(r.delivery(crm), patience).Should(HaveField("Life.Replay", HaveValue(And(
					HaveField("FinishedAt", Not(BeZero())), HaveField("Total", int64(len(row.want))), HaveField("Sent", int64(len(row.want)))))))
			}
			g.Expect(r.replayed()[count:]).To(ConsistOf(row.want))
			count += len(row.want)
		})
	}
	NewWithT(t).Expect(r.receiver.Count()).To(Equal(len(ids)+count), "nothing but what was asked for")
}

// An event that the callback never takes, beside others that it does, is set aside;
// once the receiver is mended it is sent again.
func TestPoisonBesideHealthyEvents(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	r.declareList("newsletter", nil)
	crm := r.subscribe("crm", func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Retry.Intervals = []metav1.Duration{{Duration: time.Second}}
	})
	poison := r.post("poison@example.com")
	healing := func(w http.ResponseWriter, call *http.Request) {
		if call.Header.Get(signature.HeaderID) == poison {
			w.WriteHeader(http.StatusUnprocessableEntity)
		}
	}
	r.receiver.AnswerWith(healing)
	r.run()
	var others []string
	g.Eventually(func() int64 {
		others = append(others, r.post("healthy@example.com"))
		return r.delivery(crm)().SetAside
	}, patience).Should(Equal(int64(1)))
	g.Eventually(func() []string { return r.ids("/crm") }, patience).Should(ContainElements(others))
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Health.FailingSince", BeZero()))
	g.Expect(r.delivery(crm)().Life.Deactivation).To(BeNil())

	r.ask(crm, store.Request{Type: v1alpha1.RequestReplayFailed, Value: "too soon"})
	g.Eventually(r.delivery(crm), patience).Should(HaveField("SetAside", int64(0)), "it is on its way")
	g.Eventually(func() int64 {
		others = append(others, r.post("healthy@example.com"))
		return r.delivery(crm)().SetAside
	}, patience).Should(Equal(int64(1)), "it is set aside again")
	g.Expect(r.delivery(crm)().Life.Replay).To(HaveValue(And(HaveField("Failed", int64(1)), HaveField("Sent", BeZero()))))

	r.receiver.Answer(http.StatusOK)
	r.ask(crm, store.Request{Type: v1alpha1.RequestReplayFailed, Value: "now"})
	g.Eventually(r.delivery(crm), patience).Should(And(
		HaveField("SetAside", BeZero()), HaveField("Life.Replay", HaveValue(HaveField("Sent", int64(1))))))
	g.Expect(r.replayed()).To(HaveEach(poison))
}

// A callback that answers 410 is not called again, whatever it answered before.
func TestGoneDeactivatesAtOnce(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	crm := r.subscribe("crm", nil)
	r.run()
	r.post("ada@example.com")
	g.Eventually(r.receiver.Count, patience).Should(Equal(1))
	r.receiver.Answer(http.StatusGone)
	r.post("ada@example.com")
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Life.Deactivation", Not(BeNil())))
	r.post("grace@example.com")
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Life.Owed.Events", int64(1)))
	g.Expect(r.receiver.Count()).To(Equal(2))

	refused := r.ask(crm, store.Request{Type: v1alpha1.RequestReplayFailed, Value: "a"})
	g.Expect(refused.Message).To(ContainSubstring("reactivate it first"))
	failed := r.ask(crm, store.Request{Type: v1alpha1.RequestTest, Value: "a"})
	g.Expect(failed).To(And(HaveField("Result", v1alpha1.RequestFailed), HaveField("Message", ContainSubstring("HTTPStatus (410)"))))
	r.receiver.Answer(http.StatusNoContent)
	worked := r.ask(crm, store.Request{Type: v1alpha1.RequestTest, Value: "b"})
	g.Expect(worked).To(And(HaveField("Result", v1alpha1.RequestDone), HaveField("Message", ContainSubstring("(204)"))))
	calls := r.receiver.Calls()
	g.Expect(calls).To(HaveLen(4))
	g.Expect(calls[3].Header.Get(headerTest)).To(Equal("true"))
	g.Expect(calls[3].Header.Get(signature.HeaderID)).To(HavePrefix("test_"))
	g.Expect(r.delivery(crm)().Life.Deactivation).NotTo(BeNil(), "a test reactivates nothing")

	// While it is suspended it can be reactivated; what was kept waits.
	r.suspend(crm, true)
	r.ask(crm, store.Request{Type: v1alpha1.RequestReactivate, Value: "a", Replay: true})
	g.Expect(r.delivery(crm)()).To(And(
		HaveField("Life.Deactivation", BeNil()), HaveField("Life.Replay", HaveValue(HaveField("Total", int64(2))))))
	g.Expect(r.receiver.Count()).To(Equal(4))
	r.suspend(crm, false)
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Life.Replay", HaveValue(HaveField("Sent", int64(2)))))
}

// A person who is forgotten while the callback is down is in no replay, and the
// event that says so is kept until it was sent.
func TestForgottenWhileDeactivated(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	crm := r.subscribe("crm", nil)
	r.run()
	r.receiver.Answer(http.StatusGone)
	r.post("ada@example.com")
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Life.Deactivation", Not(BeNil())))
	r.post("grace@example.com")
	r.post("ada@example.com")
	deletion := r.forget("grace@example.com")
	kept := r.post("zoe@example.com")
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Life.Owed.Events", int64(4)))
	r.receiver.Answer(http.StatusOK)
	before := r.receiver.Count()
	r.ask(crm, store.Request{Type: v1alpha1.RequestReactivate, Value: "a", Replay: true})
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Life.Replay", HaveValue(And(
		HaveField("FinishedAt", Not(BeZero())), HaveField("Total", int64(4))))), "its total is what was there to be sent")
	g.Expect(r.ids("/crm")[before:]).To(And(HaveLen(4), ContainElements(deletion, kept)))
	for _, call := range r.receiver.Calls()[before:] {
		if call.Header.Get(signature.HeaderID) != deletion {
			g.Expect(string(call.Body)).NotTo(ContainSubstring("grace"))
		}
	}
}

// A test that takes the place of one that is under way is made once.
func TestTestInPlaceOfAnother(t *testing.T) {
	g := NewWithT(t)
	r := &runner{
		life: newLife(time.Now()), wake: make(chan struct{}, 1), ledger: perContact(), clock: clock.RealClock{},
		sub: &subscription{accepted: true}, requests: map[store.RequestType]store.Request{},
	}
	first := store.Request{Type: v1alpha1.RequestTest, Value: "1"}
	second := store.Request{Type: v1alpha1.RequestTest, Value: "2"}
	r.ask(first)
	r.testing = first.Value
	r.ask(second)
	g.Expect(r.wantsAnswer()).To(BeTrue())
	r.testing = second.Value
	r.endTest(first, attempted{outcome: good, ended: start}, time.Second)
	g.Expect(r.wantsAnswer()).To(BeFalse(), "the second is under way")
	g.Expect(r.ledger.life.Answers).To(BeEmpty())
	r.endTest(second, attempted{outcome: good, ended: start}, time.Second)
	g.Expect(r.ledger.answered(second)).To(BeTrue())
	g.Expect(r.requests).To(BeEmpty())
}

// A replay ends though what was left of it was forgotten while nobody ran.
func TestForgottenInAReplayWhileNobodyRuns(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	r.declareList("newsletter", nil)
	crm := r.subscribe("crm", func(s *v1alpha1.WebhookSubscription) { s.Spec.Events = []v1alpha1.EventType{contact.EventSubscribe} })
	stop := r.run()
	id := r.post("ada@example.com")
	g.Eventually(r.delivery(crm), patience).Should(settled)
	r.receiver.Answer(http.StatusInternalServerError)
	r.ask(crm, store.Request{Type: v1alpha1.RequestReplayEvent, Value: "1", EventID: id})
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Open", ConsistOf(HaveField("Replayed", true))))
	stop()
	r.forget("ada@example.com")
	r.run()
	g.Eventually(r.delivery(crm), patience).Should(And(
		HaveField("Open", BeEmpty()), HaveField("Life.Replay", HaveValue(HaveField("FinishedAt", Not(BeZero()))))))
}
