package storetest

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// testLogOrder has readers follow the log while writers race: whoever follows
// it by "what comes after the last position that I saw" must see each event.
func testLogOrder(t *testing.T, s store.Store) {
	g := NewWithT(t)
	const writers, each, readers = 16, 100, 4
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for n := range each {
				mustChange(t, s, save(address(w*each+n), "Max"))
			}
		})
	}
	seen := make([][]contact.Event, readers)
	for r := range readers {
		all.Go(func() {
			var last int64
			for len(seen[r]) < writers*each {
				if err := s.WaitForEvents(t.Context(), last); err != nil {
					t.Errorf("wait for events after %d: %v", last, err)
					return
				}
				for _, event := range mustRead(t, s, store.Query{After: last, Limit: 1 + 7*r}) {
					seen[r] = append(seen[r], event)
					last = event.Position
				}
			}
		})
	}
	all.Wait()
	log := mustRead(t, s, store.Query{Limit: writers * each * 2})
	g.Expect(log).To(HaveLen(writers * each))
	for i := 1; i < len(log); i++ {
		g.Expect(log[i].Position).To(BeNumerically(">", log[i-1].Position))
	}
	for r := range readers {
		g.Expect(positions(seen[r])).To(Equal(positions(log)), "reader %d", r)
	}
	g.Expect(s.Head(t.Context())).To(Equal(log[len(log)-1].Position))
}

func positions(events []contact.Event) []int64 {
	var all []int64
	for _, event := range events {
		all = append(all, event.Position)
	}
	return all
}

func testQuery(t *testing.T, s store.Store) {
	put := func(list contact.ListKey, kind v1alpha1.EventType, source v1alpha1.EventSource) int64 {
		change := store.Change{List: list, Address: address(1), Apply: func(current *contact.Contact) contact.Decision {
			return contact.Decision{
				Contact: contact.Contact{Email: address(1), Revision: 1}, Changed: true,
				Events: []contact.Event{{Type: kind, Source: source, Time: now}},
			}
		}}
		return mustChange(t, s, change).Events[0].Position
	}
	otherList := contact.ListKey{Namespace: "marketing", Name: "shop"}
	otherTenant := contact.ListKey{Namespace: "sales", Name: "newsletter"}
	a := put(list, contact.EventCreate, contact.SourceAPI)
	b := put(list, contact.EventSubscribe, contact.SourceRecipient)
	c := put(otherList, contact.EventSubscribe, contact.SourceAPI)
	d := put(otherTenant, contact.EventSubscribe, contact.SourceConsole)

	for name, row := range map[string]struct {
		query store.Query
		want  []int64
	}{
		"everything":                 {store.Query{}, []int64{a, b, c, d}},
		"a page":                     {store.Query{After: a, Limit: 2}, []int64{b, c}},
		"a range":                    {store.Query{After: a, UpTo: c}, []int64{b, c}},
		"some positions":             {store.Query{Positions: []int64{d, a, d + 100}}, []int64{a, d}},
		"no positions":               {store.Query{Positions: []int64{}}, nil},
		"a namespace":                {store.Query{Filter: store.Filter{Namespace: "marketing"}}, []int64{a, b, c}},
		"lists":                      {store.Query{Filter: store.Filter{Lists: []string{"newsletter"}}}, []int64{a, b, d}},
		"types":                      {store.Query{Filter: store.Filter{Types: []v1alpha1.EventType{"Create", "Delete"}}}, []int64{a}},
		"sources":                    {store.Query{Filter: store.Filter{Sources: []v1alpha1.EventSource{"API", "Console"}}}, []int64{a, c, d}},
		"all of these at once":       {store.Query{After: a, Filter: store.Filter{Namespace: "marketing", Lists: []string{"shop"}, Types: []v1alpha1.EventType{"Subscribe"}, Sources: []v1alpha1.EventSource{"API"}}}, []int64{c}},
		"a name that looks like SQL": {store.Query{Filter: store.Filter{Lists: []string{"'; DROP TABLE events --"}}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			events := mustRead(t, s, row.query)
			g.Expect(positions(events)).To(Equal(row.want))
			for _, event := range events {
				g.Expect(row.query.Filter.Matches(&event)).To(BeTrue(), "the filter means the same in memory")
			}
			if row.query.Limit == 0 {
				g.Expect(s.CountEvents(t.Context(), row.query)).To(Equal(int64(len(row.want))))
			}
		})
	}
}

// testPages reads a log of small and of large events in pages that are limited by number, by
// bytes and by both. Every way sees every event once.
func testPages(t *testing.T, s store.Store) {
	g := NewWithT(t)
	const events, large = 60, 20_000
	var sizes []int
	for n := range events {
		made := mustChange(t, s, saveAs(address(n), func(c *contact.Contact) {
			if n%7 == 3 {
				c.CustomFields = map[string]any{"about": strings.Repeat("x", large)}
			}
		}))
		sizes = append(sizes, made.Events[0].Size)
	}
	all := mustRead(t, s, store.Query{})
	g.Expect(all).To(HaveLen(events))
	for i := range all {
		g.Expect(all[i].Size).To(Equal(sizes[i]), "an event has the size that it was appended with")
		g.Expect(all[i].Size).To(Or(BeNumerically("~", 1500, 500), BeNumerically("~", large+1500, 500)))
	}
	some := positions(all)[3:40]
	for name, row := range map[string]struct {
		query store.Query
		want  []int64
	}{
		"of one byte":              {store.Query{MaxBytes: 1}, positions(all)},
		"of a few small events":    {store.Query{MaxBytes: 5000}, positions(all)},
		"of two large ones":        {store.Query{MaxBytes: 2 * large}, positions(all)},
		"of everything":            {store.Query{MaxBytes: 1 << 30}, positions(all)},
		"of few bytes and events":  {store.Query{MaxBytes: 5000, Limit: 3}, positions(all)},
		"of a range":               {store.Query{MaxBytes: 5000, UpTo: all[40].Position}, positions(all[:41])},
		"of some events by filter": {store.Query{MaxBytes: 5000, Filter: store.Filter{Types: []v1alpha1.EventType{contact.EventCreate}}}, positions(all)},
		"of some by position":      {store.Query{MaxBytes: 5000, Positions: some}, some},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			query, seen := row.query, []int64(nil)
			for full := true; full; {
				page := mustRead(t, s, query)
				full = query.Full(page)
				for i, size := 0, 0; i < len(page); i++ {
					g.Expect(size).To(BeNumerically("<", query.MaxBytes), "it ends behind the event that reaches the limit")
					size += page[i].Size
				}
				g.Expect(page).NotTo(BeEmpty(), "a page has an event, as there are more")
				seen = append(seen, positions(page)...)
				query.After = seen[len(seen)-1]
				if len(seen) == len(row.want) {
					break
				}
			}
			g.Expect(seen).To(Equal(row.want))
		})
	}
}

func testWaitCancelled(t *testing.T, s store.Store) {
	g := NewWithT(t)
	ctx, cancel := context.WithCancel(t.Context())
	waited := make(chan error)
	go func() { waited <- s.WaitForEvents(ctx, 0) }()
	cancel()
	g.Eventually(waited, 10*time.Second).Should(Receive(MatchError(context.Canceled)))
}
