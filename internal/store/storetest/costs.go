package storetest

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// Cost is what a call of a store has its database do.
type Cost struct {
	// Statements are those of a call, however much it is asked for; BEGIN and COMMIT
	// are among them.
	Statements int
	// Each are those that come with each change or row that it is asked for.
	Each int
	// RoundTrips is how often it waits for a server; 0 without one.
	RoundTrips int
}

// Traffic is what a store has had its database do.
type Traffic struct {
	Statements []string
	RoundTrips int
}

// RunCosts holds an engine to exactly these costs, one of each kind of call that
// appends to the log or writes deliveries. take returns the traffic of such calls
// since it was called last.
func RunCosts(t *testing.T, s store.Store, take func() Traffic, costs map[string]Cost) {
	g := NewWithT(t)
	g.Expect(costs).To(HaveLen(len(calls)))
	next := 0
	for name, prepare := range calls {
		cost, known := costs[name]
		g.Expect(known).To(BeTrue(), name)
		for _, size := range []int{2, 1, 10, 300} { // the first has statements prepared
			var numbers []int
			for range size {
				next++
				numbers = append(numbers, next)
			}
			call := prepare(t, s, numbers)
			take()
			g.Expect(call()).To(Succeed(), name)
			traffic := take()
			if size == 2 {
				continue
			}
			g.Expect(traffic.Statements).To(HaveLen(cost.Statements+size*cost.Each), "%s: %d of them", name, size)
			g.Expect(traffic.RoundTrips).To(Equal(cost.RoundTrips), "round trips: %s: %d of them", name, size)
		}
	}
}

// calls prepare a call about as many contacts, or subscriptions, as there are
// numbers, each of which is used once.
var calls = map[string]func(t *testing.T, s store.Store, numbers []int) (call func() error){
	"new contacts": func(t *testing.T, s store.Store, numbers []int) func() error {
		return changeAll(t, s, numbers, func(n int) store.Change { return save(address(n), "Max") })
	},
	"new contacts with external ids": func(t *testing.T, s store.Store, numbers []int) func() error {
		return changeAll(t, s, numbers, func(n int) store.Change {
			return saveAs(address(n), func(c *contact.Contact) { c.ExternalID = address(n) })
		})
	},
	"new contacts under names of calls": func(t *testing.T, s store.Store, numbers []int) func() error {
		return changeAll(t, s, numbers, func(n int) store.Change {
			change := save(address(n), "Max")
			change.Once = &store.Once{Key: address(n), Fingerprint: "x", Now: now, Until: now.Add(time.Hour)}
			return change
		})
	},
	"known contacts": func(t *testing.T, s store.Store, numbers []int) func() error {
		change := func(n int) store.Change { return save(address(n), "Moritz") }
		NewWithT(t).Expect(changeAll(t, s, numbers, change)()).To(Succeed())
		return changeAll(t, s, numbers, change)
	},
	"people who are forgotten": func(t *testing.T, s store.Store, numbers []int) func() error {
		known := changeAll(t, s, numbers, func(n int) store.Change { return save(address(n), "Max") })
		NewWithT(t).Expect(known()).To(Succeed())
		return changeAll(t, s, numbers, func(n int) store.Change { return forget(address(n)) })
	},
	"a checkpoint": func(t *testing.T, s store.Store, numbers []int) func() error {
		return checkpointAll(t, s, numbers, func(*store.Progress) {})
	},
	"a checkpoint that sets aside and raises": func(t *testing.T, s store.Store, numbers []int) func() error {
		return checkpointAll(t, s, numbers, func(p *store.Progress) {
			p.Aside, p.Raised, p.Operations = []int64{1}, []contact.Event{failing()}, 1
		})
	},
	"attempts": func(t *testing.T, s store.Store, numbers []int) func() error {
		var added []store.AttemptLog
		for _, row := range openAll(t, s, numbers) {
			added = append(added, store.AttemptLog{Key: row.Key, Token: row.Token, Attempts: []store.Attempt{attempt(1), attempt(2)}})
		}
		return func() error { return s.AddAttempts(t.Context(), added) }
	},
}

func changeAll(t *testing.T, s store.Contacts, numbers []int, change func(n int) store.Change) func() error {
	var changes []store.Change
	for _, n := range numbers {
		changes = append(changes, change(n))
	}
	return func() error {
		results, err := s.ChangeAll(t.Context(), changes)
		for _, result := range results {
			NewWithT(t).Expect(result.Err).NotTo(HaveOccurred())
			NewWithT(t).Expect(result.Decision.Changed).To(BeTrue())
		}
		return err
	}
}

func checkpointAll(t *testing.T, s store.Deliveries, numbers []int, edit func(*store.Progress)) func() error {
	var progress []store.Progress
	for _, row := range openAll(t, s, numbers) {
		row.Cursor++
		row.Open = []store.OpenEvent{{Position: row.Cursor, Attempts: 1, NextAttempt: now}}
		written := store.Progress{Delivery: row}
		edit(&written)
		progress = append(progress, written)
	}
	return func() error {
		gone, err := s.Checkpoint(t.Context(), progress)
		NewWithT(t).Expect(gone).To(BeEmpty())
		return err
	}
}

// openAll opens a row for each number.
func openAll(t *testing.T, s store.Deliveries, numbers []int) (rows []store.Delivery) {
	for _, n := range numbers {
		key := store.SubscriptionKey{Namespace: "marketing", Name: fmt.Sprintf("crm-%d", n)}
		rows = append(rows, store.Delivery{Key: key, Token: open(t, s, key)})
	}
	return rows
}
