package postgres

import (
	"fmt"
	"regexp"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"
	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// actualRows are what a node of a plan has returned each time, and how often it ran.
var actualRows = regexp.MustCompile(`actual rows=(\d+)(?:\.\d+)? loops=(\d+)`)

// expectRows expects that no node of a plan that was run has returned more rows.
func expectRows(g *WithT, plan []string, most int) {
	nodes := 0
	for _, line := range plan {
		for _, found := range actualRows.FindAllStringSubmatch(line, -1) {
			rows, err := strconv.Atoi(found[1])
			g.Expect(err).NotTo(HaveOccurred())
			loops, err := strconv.Atoi(found[2])
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(rows*loops).To(BeNumerically("<=", most), "%s", plan)
			nodes++
		}
	}
	g.Expect(nodes).NotTo(BeZero(), "%s", plan)
}

// What a page costs depends on the page, not on how much is behind it: also in a
// partition that the server has no statistics of, as in each day's first minute.
func TestPageIsReadInOrder(t *testing.T) {
	g := NewWithT(t)
	s := openAt(t, newPlace(t))
	const events, page = 4000, 100
	changes := make([]store.Change, events)
	for i := range changes {
		changes[i] = save(fmt.Sprintf("%d@example.com", i))
	}
	_, err := s.ChangeAll(t.Context(), changes)
	g.Expect(err).NotTo(HaveOccurred())
	text, arguments := s.pageOf(store.Query{
		After: 10, UpTo: events, Limit: page,
		Filter: store.Filter{Namespace: list.Namespace, Types: []v1alpha1.EventType{contact.EventCreate}},
	})
	plan, err := readAll(t.Context(), s, pgx.RowTo[string], "EXPLAIN (ANALYZE, TIMING OFF) "+text, arguments...)
	g.Expect(err).NotTo(HaveOccurred())
	expectRows(g, plan, page+1)
	g.Expect(plan).To(ContainElement(ContainSubstring("actual rows=100")))
}
