package dispatcher

import (
	"net/http"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/testkit"
)

// postTo is post for a list of another name.
func (r *rig) postTo(list, address string) string {
	r.t.Helper()
	decision, err := r.store.Change(r.t.Context(), store.Change{
		List: contact.ListKey{Namespace: r.namespace, Name: list}, Address: address,
		Apply: func(*contact.Contact) contact.Decision {
			return contact.Decision{
				Contact: contact.Contact{Email: address, Permission: contact.PermissionSingleOptIn, Revision: 1}, Changed: true,
				Events: []contact.Event{{Type: contact.EventSubscribe, Source: contact.SourceAPI, Time: time.Now()}},
			}
		},
	})
	NewWithT(r.t).Expect(err).NotTo(HaveOccurred())
	return decision.Events[0].ID
}

// removeList removes the events of a list from the log, as the controller does.
func (r *rig) removeList(list string) {
	r.t.Helper()
	g := NewWithT(r.t)
	_, err := r.store.RemoveEvents(r.t.Context(), contact.ListKey{Namespace: r.namespace, Name: list}, 1000)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(r.store.RaiseOnce(r.t.Context(), store.Once{Key: list, Now: time.Now(), Until: time.Now().Add(time.Hour)}, contact.Event{
		Type: contact.EventListRemoved, Source: contact.SourceAPI, Time: time.Now(), List: contact.ListKey{Namespace: r.namespace},
		Operation: &contact.Operation{Kind: "ContactList", Name: list},
	})).To(Succeed())
}

// A replay has events of lists alone that exist and that the controller has bound to
// their namespace, whatever a subscription names.
func TestReplayIsOfListsThatExist(t *testing.T) {
	r := newRig(t)
	r.declareList("newsletter", nil)
	NewWithT(t).Expect(plane.Client.Create(t.Context(), testkit.List(r.namespace, "unbound"))).To(Succeed())
	kept, gone, unbound := r.post("ada@example.com"), r.postTo("gone", "ada@example.com"), r.postTo("unbound", "ada@example.com")
	all := r.subscribe("all", nil)
	none := r.subscribe("none", func(s *v1alpha1.WebhookSubscription) { s.Spec.Lists = []string{"gone", "unbound"} })
	r.run()
	for name, row := range map[string]struct {
		object  *v1alpha1.WebhookSubscription
		request store.Request
		want    []string
		refusal string
	}{
		"all that there is":                    {all, store.Request{Type: v1alpha1.RequestReplayRange, Until: time.Now()}, []string{kept}, ""},
		"lists that are not there":             {none, store.Request{Type: v1alpha1.RequestReplayRange, Until: time.Now()}, nil, ""},
		"an event of a list that is gone":      {all, store.Request{Type: v1alpha1.RequestReplayEvent, EventID: gone}, nil, "The event's list gone does not exist."},
		"an event of a list that is not bound": {all, store.Request{Type: v1alpha1.RequestReplayEvent, EventID: unbound}, nil, "list unbound does not exist"},
		"an event of a list that is there":     {all, store.Request{Type: v1alpha1.RequestReplayEvent, EventID: kept}, []string{kept}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			before := len(r.replayed())
			row.request.Value = name
			answer := r.ask(row.object, row.request)
			if row.refusal != "" {
				g.Expect(answer).To(And(HaveField("Result", v1alpha1.RequestRefused), HaveField("Message", ContainSubstring(row.refusal))))
			} else {
				g.Eventually(r.delivery(row.object), patience).Should(HaveField("Life.Replay", HaveValue(And(
					HaveField("FinishedAt", Not(BeZero())), HaveField("Total", int64(len(row.want)))))))
			}
			g.Expect(r.replayed()[before:]).To(ConsistOf(row.want))
		})
	}
}

// A list of the name of an earlier namespace's list replays none of that one's events.
func TestReplayIsOfThePresentNamespace(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	r.declareList("newsletter", nil)
	former := r.post("ada@example.com")
	_, err := r.store.Change(t.Context(), store.Change{List: r.list(), Address: "ada@example.com", Apply: contact.EndWithList})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(r.store.RenewNamespace(t.Context(), r.namespace, "bound", "second")).To(Succeed())
	present := r.post("grace@example.com")
	crm := r.subscribe("crm", nil)
	r.run()
	answer := r.ask(crm, store.Request{Type: v1alpha1.RequestReplayRange, Value: "all", Until: time.Now()})
	g.Expect(answer.Message).To(Equal("A replay of 1 events was begun."))
	g.Eventually(r.replayed, patience).Should(Equal([]string{present}))
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Life.Replay", HaveValue(HaveField("FinishedAt", Not(BeZero())))))
	refused := r.ask(crm, store.Request{Type: v1alpha1.RequestReplayEvent, Value: "one", EventID: former})
	g.Expect(refused).To(And(HaveField("Result", v1alpha1.RequestRefused), HaveField("Message", "The log has no event of this id.")))
	g.Expect(r.replayed()).To(HaveLen(1))
}

// Dead letters of a list that is gone stay dead letters: the list may come back.
func TestDeadLettersOfAListThatIsGone(t *testing.T) {
	g := NewWithT(t)
	log, r := newAside(t)
	r.lists = bookOf("other")
	g.Expect(r.replayOwed(t.Context())).To(Succeed())
	g.Expect(r.ledger.open).To(BeEmpty())
	g.Expect(r.ledger.taken).To(BeEmpty())
	g.Expect(r.ledger.life.Replay).To(HaveValue(And(HaveField("Total", BeZero()), HaveField("FinishedAt", Not(BeZero())))))
	g.Expect(log.SetAsideEvents(t.Context(), r.key, 0, 10)).To(HaveLen(1))
}

// What a subscription has in memory of a list that is removed is sent no more, however
// often it was tried; other lists' events are.
func TestOpenEventsOfARemovedListAreDropped(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	crm := r.subscribe("crm", nil)
	r.receiver.Answer(http.StatusServiceUnavailable)
	r.run()
	removed, kept := r.post("ada@example.com"), r.postTo("other", "ada@example.com")
	g.Eventually(func() []string { return r.ids("/crm") }, patience).Should(ContainElements(removed, kept))
	r.removeList("newsletter")
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Open", ConsistOf(HaveField("Position", positionOf(kept)))))
	calls := r.receiver.Count()
	r.receiver.Answer(http.StatusOK)
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Open", BeEmpty()))
	g.Expect(r.ids("/crm")[calls:]).To(ConsistOf(kept))
}

func positionOf(id string) int64 {
	position, _ := store.EventPosition(id)
	return position
}

// Mails that were asked for on an earlier list of the name wait, as they are somebody
// else's, until the controller has bound the list.
func TestMailsOfAListThatIsNotBound(t *testing.T) {
	g := NewWithT(t)
	server := testkit.NewMailServer(t, testkit.MailServerOptions{})
	r := newMailRig(t, server, nil)
	unbound := testkit.List(r.namespace, "unbound")
	g.Expect(plane.Client.Create(t.Context(), unbound)).To(Succeed())
	r.optInTo("unbound", "ada@example.com")
	r.optIn("grace@example.com", nil)
	r.run()
	g.Eventually(func() []string { return recipients(server) }, patience).Should(Equal([]string{"grace@example.com"}))
	before := unbound.DeepCopy()
	unbound.Status.NamespaceUID = testkit.Bind(t, r.store, unbound)
	unbound.Status.ObservedGeneration = unbound.Generation
	g.Expect(plane.Client.Status().Patch(t.Context(), unbound, client.MergeFrom(before))).To(Succeed())
	g.Eventually(func() []string { return recipients(server) }, patience).Should(Equal([]string{"grace@example.com", "ada@example.com"}))
}

// A delivery that the store has of an earlier object of the name is not delivered for
// another one, whatever that one's status says.
func TestDeliveryOfAnEarlierObject(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	crm, other := r.subscribe("crm", nil), r.subscribe("other", nil)
	g.Expect(r.store.ReleaseObject(t.Context(), string(crm.UID))).To(Succeed())
	id := r.post("ada@example.com")
	r.run()
	g.Eventually(func() []string { return r.ids("/other") }, patience).Should(Equal([]string{id}))
	g.Eventually(r.delivery(other), patience).Should(HaveField("Open", BeEmpty()))
	g.Expect(r.ids("/crm")).To(BeEmpty())
	testkit.Bind(t, r.store, crm)
	g.Eventually(func() []string { return r.ids("/crm") }, patience).Should(Equal([]string{id}))
}
