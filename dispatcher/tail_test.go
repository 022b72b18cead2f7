package dispatcher

import (
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/utils/clock"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
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
