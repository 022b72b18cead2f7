package controllers

import (
	"context"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

func TestRequestsOfAnnotations(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	since, until := now.Add(-48*time.Hour), now.Add(-24*time.Hour)
	type annotations map[string]string
	for name, row := range map[string]struct {
		annotations annotations
		want        []store.Request
		invalid     string
	}{
		"none":                     {annotations: annotations{"other": "value", v1alpha1.AnnotationReplayEvents: "true"}},
		"a reactivation":           {annotations: annotations{v1alpha1.AnnotationReactivate: "a"}, want: []store.Request{{Type: v1alpha1.RequestReactivate, Value: "a"}}},
		"a reactivation by a date": {annotations: annotations{v1alpha1.AnnotationReactivate: "2026-11-22 10:00"}, want: []store.Request{{Type: v1alpha1.RequestReactivate, Value: "2026-11-22 10:00"}}},
		"a reactivation with the buffer": {
			annotations: annotations{v1alpha1.AnnotationReactivate: "a", v1alpha1.AnnotationReplayEvents: "true"},
			want:        []store.Request{{Type: v1alpha1.RequestReactivate, Value: "a", Replay: true}},
		},
		"a reactivation with anything but true": {
			annotations: annotations{v1alpha1.AnnotationReactivate: "a", v1alpha1.AnnotationReplayEvents: "yes"},
			want:        []store.Request{{Type: v1alpha1.RequestReactivate, Value: "a"}},
		},
		"a range": {
			annotations: annotations{v1alpha1.AnnotationReplaySince: "2026-11-20T10:00:00Z", v1alpha1.AnnotationReplayUntil: "2026-11-21T11:00:00+01:00 again"},
			want: []store.Request{{
				Type: v1alpha1.RequestReplayRange, Value: "2026-11-20T10:00:00Z/2026-11-21T11:00:00+01:00 again", Since: since, Until: until,
			}},
		},
		"a range until now": {
			annotations: annotations{v1alpha1.AnnotationReplaySince: "2026-11-20T10:00:00Z"},
			want:        []store.Request{{Type: v1alpha1.RequestReplayRange, Value: "2026-11-20T10:00:00Z/", Since: since, Until: now}},
		},
		"a range without a beginning": {
			annotations: annotations{v1alpha1.AnnotationReplayUntil: "2026-11-20T10:00:00Z"},
			invalid:     "postbus.dev/replay-since must be a time such as",
		},
		"a range that is no time": {
			annotations: annotations{v1alpha1.AnnotationReplaySince: "yesterday"},
			invalid:     "postbus.dev/replay-since must be a time such as",
		},
		"a range that ends before it begins": {
			annotations: annotations{v1alpha1.AnnotationReplaySince: "2026-11-20T10:00:00Z", v1alpha1.AnnotationReplayUntil: "2026-11-20T09:00:00Z"},
			invalid:     "postbus.dev/replay-until is before postbus.dev/replay-since",
		},
		"an event": {
			annotations: annotations{v1alpha1.AnnotationReplayEvent: "evt_1 again"},
			want:        []store.Request{{Type: v1alpha1.RequestReplayEvent, Value: "evt_1 again", EventID: "evt_1"}},
		},
		"what was set aside, and a test": {
			annotations: annotations{v1alpha1.AnnotationReplayFailed: "true", v1alpha1.AnnotationTest: "now"},
			want: []store.Request{
				{Type: v1alpha1.RequestReplayFailed, Value: "true"}, {Type: v1alpha1.RequestTest, Value: "now"},
			},
		},
		"a value without end": {annotations: annotations{v1alpha1.AnnotationTest: strings.Repeat("ä", 300)}, invalid: "the value is too long"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			subscription := &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Namespace: "marketing", Name: "crm", Annotations: row.annotations}}
			requests := requestsOf(subscription, now)
			if row.invalid != "" {
				g.Expect(requests).To(HaveLen(1))
				g.Expect(requests[0].invalid).To(MatchError(ContainSubstring(row.invalid)))
				g.Expect(len(requests[0].Value)).To(BeNumerically("<=", 600))
				return
			}
			g.Expect(requests).To(HaveLen(len(row.want)))
			for i, want := range row.want {
				want.Key = keyOf(subscription)
				g.Expect(requests[i].invalid).NotTo(HaveOccurred())
				got := requests[i].Request
				g.Expect(got.Since.Equal(want.Since)).To(BeTrue())
				g.Expect(got.Until.Equal(want.Until)).To(BeTrue())
				got.Since, got.Until, want.Since, want.Until = time.Time{}, time.Time{}, time.Time{}, time.Time{}
				g.Expect(got).To(Equal(want))
			}
		})
	}
}

// annotate sets annotations as kubectl annotate --overwrite does.
func (b *bench) annotate(subscription *v1alpha1.WebhookSubscription, annotations map[string]string) {
	b.t.Helper()
	patch := client.MergeFrom(subscription.DeepCopy())
	if subscription.Annotations == nil {
		subscription.Annotations = map[string]string{}
	}
	for name, value := range annotations {
		subscription.Annotations[name] = value
	}
	b.Expect(plane.Client.Patch(b.t.Context(), subscription, patch)).To(Succeed())
}

func TestDeactivationIsTold(t *testing.T) {
	b := newBench(t)
	subscription := b.newSubscription()
	b.pass(subscription)
	b.Expect(<-b.events.Events).To(HavePrefix("Normal Active"))
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	b.deliver(subscription, func(row *store.Delivery) {
		row.Open = []store.OpenEvent{{Position: 1, Attempts: 6}}
		row.Health = store.Health{
			FailingSince: at.Add(-25 * time.Minute), DeactivationDue: at,
			LastFailure: &store.Failure{Time: at, Reason: v1alpha1.FailureConnectionRefused, Attempts: 5},
		}
	})
	b.pass(subscription)
	b.Expect(subscription.Status.State).To(Equal(v1alpha1.StateFailing))
	b.Expect(subscription.Status.DeactivationDue.UTC()).To(Equal(at))
	b.Expect(<-b.events.Events).To(HavePrefix("Warning Failing"))

	b.deliver(subscription, func(row *store.Delivery) {
		row.Life = store.Life{
			Deactivation: &store.Deactivation{At: at, Until: at.Add(120 * time.Hour), Lost: 2, LostFrom: at.Add(121 * time.Hour), LostTo: at.Add(130 * time.Hour)},
			Owed:         store.Owed{Events: 11},
		}
	})
	b.pass(subscription)
	status := &subscription.Status
	b.Expect(status.State).To(Equal(v1alpha1.StateFailed))
	message := b.expect(subscription, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonDeactivated)
	b.Expect(message).To(And(ContainSubstring("2026-11-22T10:00:00Z: ConnectionRefused."), ContainSubstring("until 2026-11-27T10:00:00Z"),
		ContainSubstring("kubectl annotate --overwrite -n "+b.namespace+" webhooksubscription crm postbus.dev/reactivate=")))
	b.Expect(<-b.events.Events).To(HavePrefix("Warning Deactivated"))
	b.Expect(status.DeactivatedAt.UTC()).To(Equal(at))
	b.Expect(status.FailingSince.UTC()).To(Equal(at.Add(-25 * time.Minute)))
	b.Expect(status.DeactivationDue).To(BeNil())
	b.Expect(*status.PendingEvents).To(Equal(int64(12)))
	b.Expect(status.Buffer).To(HaveValue(And(
		HaveField("Events", HaveValue(Equal(int64(12)))), HaveField("Until.Time", BeTemporally("==", at.Add(120*time.Hour))),
		HaveField("LostEvents", HaveValue(Equal(int64(2)))), HaveField("LostFrom", HaveValue(HaveField("Time", BeTemporally("==", at.Add(121*time.Hour)))))),
	))

	b.annotate(subscription, map[string]string{v1alpha1.AnnotationReactivate: "now", v1alpha1.AnnotationReplayEvents: "true"})
	b.pass(subscription)
	b.Expect(status.Requests).To(ConsistOf(v1alpha1.RequestStatus{
		Type: v1alpha1.RequestReactivate, Value: "now", Result: v1alpha1.RequestPending,
	}))
	asked, err := b.store.LoadRequests(t.Context(), keyOf(subscription))
	b.Expect(err).NotTo(HaveOccurred())
	b.Expect(asked).To(ConsistOf(And(HaveField("Value", "now"), HaveField("Replay", true))))
	b.pass(subscription)
	b.Expect(b.store.RequestsSince(t.Context(), asked[0].Revision)).To(BeEmpty(), "it is asked once")

	b.deliver(subscription, func(row *store.Delivery) {
		row.Health.FailingSince = time.Time{}
		row.Life = store.Life{
			Replay:  &store.Replay{Of: v1alpha1.ReplayOfBuffer, Total: 12, Sent: 3, Failed: 1, StartedAt: at},
			Answers: map[store.RequestType]store.Answer{v1alpha1.RequestReactivate: {Value: "now", Result: v1alpha1.RequestDone, Message: "Done.", Time: at}},
		}
	})
	b.pass(subscription)
	b.Expect(status.State).To(Equal(v1alpha1.StateReplaying))
	b.expect(subscription, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReplaying)
	b.Expect(<-b.events.Events).To(HavePrefix("Normal Replaying"))
	b.Expect(status.LastHandledReactivation).To(Equal("now"))
	b.Expect(status.Requests).To(ConsistOf(And(HaveField("Result", v1alpha1.RequestDone), HaveField("Message", "Done."))))
	b.Expect(status.Replay).To(HaveValue(And(
		HaveField("State", v1alpha1.ReplayRunning), HaveField("Remaining", HaveValue(Equal(int64(8)))), HaveField("FinishedAt", BeNil()))))
	b.Expect([]any{status.DeactivatedAt, status.Buffer}).To(HaveEach(BeNil()))

	b.deliver(subscription, func(row *store.Delivery) { row.Life.Replay.FinishedAt = at })
	b.pass(subscription)
	b.Expect(status.State).To(Equal(v1alpha1.StateActive))
	b.Expect(status.Replay.State).To(Equal(v1alpha1.ReplayCompleted))
	b.Expect(<-b.events.Events).To(HavePrefix("Normal Active"))
}

// writtenMeanwhile is a store whose row the dispatcher writes once, right after the
// controller has read it.
type writtenMeanwhile struct {
	store.Store
	write func()
}

// LoadDelivery implements Store.
func (w *writtenMeanwhile) LoadDelivery(ctx context.Context, key store.SubscriptionKey) (store.Delivery, error) {
	row, err := w.Store.LoadDelivery(ctx, key)
	if write := w.write; write != nil {
		w.write = nil
		write()
	}
	return row, err
}

// Whoever waits until a request is done looks for its replay in the same status.
func TestAnswerComesWithItsReplay(t *testing.T) {
	b := newBench(t)
	subscription := b.newSubscription()
	b.annotate(subscription, map[string]string{v1alpha1.AnnotationReplayFailed: "now"})
	b.pass(subscription)
	written := b.store
	b.store = &writtenMeanwhile{Store: written, write: func() {
		checkpoint(t, written, keyOf(subscription), func(row *store.Delivery) {
			row.Life = store.Life{
				Replay:  &store.Replay{Of: v1alpha1.ReplayOfFailed, Total: 2, StartedAt: b.now},
				Answers: map[store.RequestType]store.Answer{v1alpha1.RequestReplayFailed: {Value: "now", Result: v1alpha1.RequestDone, Time: b.now}},
			}
		})
	}}
	status := &subscription.Status
	b.pass(subscription)
	b.Expect(status.Replay).To(BeNil())
	b.Expect(status.Requests).To(ConsistOf(HaveField("Result", v1alpha1.RequestPending)))
	b.pass(subscription)
	b.Expect(status.Replay).To(HaveValue(HaveField("State", v1alpha1.ReplayRunning)))
	b.Expect(status.Requests).To(ConsistOf(HaveField("Result", v1alpha1.RequestDone)))
}

// What can't be done is told in status and by an event, once; what was set aside
// is too.
func TestRefusedRequestsAreTold(t *testing.T) {
	b := newBench(t)
	subscription := b.newSubscription()
	b.annotate(subscription, map[string]string{v1alpha1.AnnotationReplaySince: "yesterday"})
	b.pass(subscription)
	b.Expect(subscription.Status.Requests).To(ConsistOf(And(
		HaveField("Result", v1alpha1.RequestRefused), HaveField("Value", "yesterday/"), HaveField("Message", ContainSubstring("must be a time")))))
	told := *subscription.Status.Requests[0].Time
	b.Expect([]string{<-b.events.Events, <-b.events.Events}).To(ConsistOf(HavePrefix("Normal Active"), HavePrefix("Warning RequestRefused ReplayRange")))
	b.Expect(b.store.LoadRequests(t.Context(), keyOf(subscription))).To(BeEmpty())

	b.deliver(subscription, func(row *store.Delivery) { row.Behind = 1 })
	b.pass(subscription)
	b.Expect(subscription.Status.Requests[0].Time).To(HaveValue(Equal(told)))

	row, err := b.store.LoadDelivery(t.Context(), keyOf(subscription))
	b.Expect(err).NotTo(HaveOccurred())
	for _, email := range []string{"ada@example.com", "grace@example.com"} {
		addContact(t, b.store, contact.ListKey{Namespace: "marketing", Name: "newsletter"}, email, contact.PermissionOther)
	}
	b.Expect(b.store.Checkpoint(t.Context(), []store.Progress{{Delivery: row, Aside: []int64{1, 2}}})).To(BeEmpty())
	b.pass(subscription)
	b.Expect(subscription.Status.SetAsideEvents).To(Equal(ptr.To(int64(2))))
	b.Expect(<-b.events.Events).To(HavePrefix("Warning EventsSetAside 2 events"))
	b.Expect(b.expect(subscription, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonActive)).To(ContainSubstring("set aside"))
	b.pass(subscription)
	b.Expect(b.events.Events).To(BeEmpty())

	b.annotate(subscription, map[string]string{v1alpha1.AnnotationReplaySince: ""})
	b.pass(subscription)
	b.Expect(subscription.Status.Requests).To(BeEmpty())
}
