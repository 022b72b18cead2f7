package controllers

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	eventsv1 "k8s.io/api/events/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/testkit"
)

// The whole life of a callback is in Kubernetes Events, each change of it once,
// however often its counters change meanwhile.
func TestEventsTellOfTheLifeOfACallback(t *testing.T) {
	g := NewWithT(t)
	namespace := plane.Namespace(t)
	s := openStore(t)
	start(t, s, Lease{Namespace: namespace})
	subscription := testkit.Subscription(namespace, "crm", callbackURL)
	g.Expect(plane.Client.Create(t.Context(), subscription)).To(Succeed())
	ready := conditionOf(t, subscription, v1alpha1.ConditionReady)
	g.Eventually(ready, soon).Should(Equal("True Active"))
	addContact(t, s, contact.ListKey{Namespace: namespace, Name: "newsletter"}, "ada@example.com", contact.PermissionOther)

	at := time.Now()
	write := func(edit func(*store.Progress)) {
		delivery, err := s.LoadDelivery(t.Context(), keyOf(subscription))
		g.Expect(err).NotTo(HaveOccurred())
		progress := store.Progress{Delivery: delivery}
		edit(&progress)
		g.Expect(s.Checkpoint(t.Context(), []store.Progress{progress})).To(BeEmpty())
	}
	for _, step := range []struct {
		edit func(*store.Progress)
		want string
	}{
		{func(p *store.Progress) {
			p.Health.FailingSince = at
			p.Health.LastFailure = &store.Failure{Time: at, Reason: v1alpha1.FailureHTTPStatus, HTTPStatus: 500, Attempts: 1}
		}, "False Failing"},
		{func(p *store.Progress) { p.Life.Deactivation = &store.Deactivation{At: at, Until: at.Add(time.Hour)} }, "False Deactivated"},
		{func(p *store.Progress) {
			p.Health.FailingSince, p.Life.Deactivation = time.Time{}, nil
			p.Life.Replay = &store.Replay{Of: v1alpha1.ReplayOfBuffer, Total: 2, StartedAt: at}
		}, "True Replaying"},
		{func(p *store.Progress) { p.Life.Replay.Sent, p.Life.Replay.FinishedAt, p.Aside = 1, at, []int64{1} }, "True Active"},
	} {
		write(step.edit)
		g.Eventually(ready, soon).Should(Equal(step.want))
		write(func(p *store.Progress) { p.Behind++ }) // a change that is none of state
		g.Eventually(func() int64 { ready(); return *subscription.Status.PendingEvents }, soon).Should(BeNumerically(">", 0))
		write(func(p *store.Progress) { p.Behind = 0 })
		g.Eventually(func() int64 { ready(); return *subscription.Status.PendingEvents }, soon).Should(BeZero())
	}
	before := client.MergeFrom(subscription.DeepCopy())
	subscription.Annotations = map[string]string{v1alpha1.AnnotationReplaySince: "yesterday"}
	g.Expect(plane.Client.Patch(t.Context(), subscription, before)).To(Succeed())

	times := func() map[string]int {
		found := &eventsv1.EventList{}
		g.Expect(plane.Client.List(t.Context(), found, client.InNamespace(namespace))).To(Succeed())
		counts := map[string]int{}
		for _, event := range found.Items {
			if event.Regarding.Name == subscription.Name {
				counts[event.Type+" "+event.Reason]++
				if event.Series != nil {
					counts[event.Type+" "+event.Reason] += int(event.Series.Count)
				}
			}
		}
		return counts
	}
	g.Eventually(times, soon).Should(HaveKey("Warning " + v1alpha1.ReasonRequestRefused))
	counts := times()
	// Sent at the start and at the end: client-go makes a series of the two, which it
	// writes some minutes later.
	g.Expect(counts["Normal "+v1alpha1.ReasonActive]).To(BeElementOf(1, 2))
	delete(counts, "Normal "+v1alpha1.ReasonActive)
	g.Expect(counts).To(Equal(map[string]int{
		"Warning " + v1alpha1.ReasonFailing: 1, "Warning " + v1alpha1.ReasonDeactivated: 1, "Normal " + v1alpha1.ReasonReplaying: 1,
		"Warning " + v1alpha1.ReasonEventsSetAside: 1, "Warning " + v1alpha1.ReasonRequestRefused: 1,
	}))
}
