package sqlite

import (
	"database/sql"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// What a page costs depends on the page, not on how much is behind it.
func TestPageIsReadInOrder(t *testing.T) {
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "postbus.db"))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	defer func() { NewWithT(t).Expect(s.Close()).To(Succeed()) }()
	for name, query := range map[string]store.Query{
		"of a subscription": {After: 10, UpTo: 4000, Filter: store.Filter{
			Namespace: "marketing", Types: []v1alpha1.EventType{contact.EventCreate}, Lists: []string{"newsletter"},
		}},
		"of the tail": {After: 10, Filter: store.Filter{Types: contact.LogTypes}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			text, arguments := pageOf(query)
			var steps []string
			g.Expect(queryAll(t.Context(), s.read, func(rows *sql.Rows) error {
				var step string
				err := rows.Scan(new(int), new(int), new(int), &step)
				steps = append(steps, step)
				return err
			}, "EXPLAIN QUERY PLAN "+text, arguments...)).To(Succeed())
			g.Expect(steps[0]).To(HavePrefix("SEARCH events USING INTEGER PRIMARY KEY (rowid>?"))
			g.Expect(steps).NotTo(ContainElement(ContainSubstring("ORDER BY")))
		})
	}
}
