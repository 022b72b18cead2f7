package controllers

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// happened stores an event of this age, and returns its position.
func happened(t *testing.T, s store.Store, address string, age time.Duration) int64 {
	t.Helper()
	decision, err := s.Change(t.Context(), store.Change{
		List: contact.ListKey{Namespace: "marketing", Name: "newsletter"}, Address: address,
		Apply: func(*contact.Contact) contact.Decision {
			return contact.Decision{
				Contact: contact.Contact{Email: address, Revision: 1}, Changed: true,
				Events: []contact.Event{{Type: contact.EventCreate, Source: contact.SourceAPI, Time: time.Now().Add(-age)}},
			}
		},
	})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return decision.Events[0].Position
}

// The acting controller removes what is old, and says who is behind.
func TestOldEventsAreRemoved(t *testing.T) {
	g := NewWithT(t)
	s := openStore(t)
	behind := store.SubscriptionKey{Namespace: "marketing", Name: "behind"}
	g.Expect(s.OpenDelivery(t.Context(), behind)).To(Succeed())
	happened(t, s, "ada@example.com", DefaultRetention+time.Hour)
	happened(t, s, "grace@example.com", DefaultRetention+time.Minute)
	g.Expect(s.OpenDelivery(t.Context(), store.SubscriptionKey{Namespace: "marketing", Name: "ahead"})).To(Succeed())
	young := happened(t, s, "zoe@example.com", DefaultRetention-time.Hour)
	last := happened(t, s, "hedy@example.com", 0)

	registry := prometheus.NewRegistry()
	c := startWith(t, s, Lease{Namespace: plane.Namespace(t)}, func(o *Options) { o.Registerer = registry })
	g.Eventually(c.logs.String, soon).Should(And(
		ContainSubstring("Old events are removed from the log"), ContainSubstring(`"events"=2`),
		ContainSubstring(`"subscriptionsThatHadSomeToCome"=1`)))
	left, err := s.Read(t.Context(), store.Query{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(left).To(HaveExactElements(HaveField("Position", young), HaveField("Position", last)))
	families, err := registry.Gather()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(families).To(ContainElement(HaveValue(And(
		HaveField("GetName()", "postbus_controller_removed_events_total"), HaveField("GetMetric()", HaveExactElements(HaveField("GetCounter().GetValue()", 2.0)))))))
}

func TestWhoHadEventsToCome(t *testing.T) {
	for name, row := range map[string]struct {
		delivery store.Delivery
		want     bool
	}{
		"nobody who is past them":        {store.Delivery{Cursor: 10}, false},
		"one that has not seen them all": {store.Delivery{Cursor: 9}, true},
		"one that is sending one":        {store.Delivery{Cursor: 20, Open: []store.OpenEvent{{Position: 10}}}, true},
		"nobody who sends later ones":    {store.Delivery{Cursor: 20, Open: []store.OpenEvent{{Position: 11}}}, false},
		"one that keeps one":             {store.Delivery{Cursor: 20, Life: store.Life{Owed: store.Owed{Spans: []store.Span{{After: 9, UpTo: 12}}}}}, true},
		"nobody who keeps later ones":    {store.Delivery{Cursor: 20, Life: store.Life{Owed: store.Owed{Spans: []store.Span{{After: 10, UpTo: 12}}}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(hadToCome(&row.delivery, 10)).To(Equal(row.want))
		})
	}
}
