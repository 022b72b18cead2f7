package postgres

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// What the removal of a page of events costs depends on the page, not on the log: also in
// a partition that the server has no statistics of.
func TestRemovalReadsWhatItRemoves(t *testing.T) {
	const events, page = 4000, 100
	for name, row := range map[string]struct {
		statement string
		arguments []any
		removed   contact.ListKey
	}{
		"of a list":      {eventsOfList, []any{list.Namespace, page, list.Name}, list},
		"of a namespace": {eventsOfNamespace, []any{list.Namespace, page}, contact.ListKey{Namespace: list.Namespace}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := openAt(t, newPlace(t))
			changes := make([]store.Change, 2*events)
			for i := range changes {
				changes[i] = save(fmt.Sprintf("%d@example.com", i))
				if i >= events {
					changes[i].List.Namespace = "sales"
				}
			}
			_, err := s.ChangeAll(t.Context(), changes)
			g.Expect(err).NotTo(HaveOccurred())
			plan, err := readAll(t.Context(), s, pgx.RowTo[string], "EXPLAIN (ANALYZE, TIMING OFF) "+row.statement, row.arguments...)
			g.Expect(err).NotTo(HaveOccurred())
			expectRows(g, plan, page)
			removed, err := s.RemoveEvents(t.Context(), row.removed, page)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(removed).To(Equal(page))
			g.Expect(s.CountEvents(t.Context(), store.Query{})).To(BeEquivalentTo(2*events - page))
		})
	}
}
