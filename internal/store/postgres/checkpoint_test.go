package postgres

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/store"
)

// What a checkpoint costs grows with its rows, not with their square, nor with the log:
// no statement compares each of them with each, or reads more events than they name.
func TestCheckpointLooksRowsUp(t *testing.T) {
	g := NewWithT(t)
	s := openAt(t, newPlace(t))
	const rows, events = 300, 30_000
	_, err := s.Change(t.Context(), save("a@example.com"))
	g.Expect(err).NotTo(HaveOccurred())
	_, err = s.pool.Exec(t.Context(), `INSERT INTO events
		SELECT position + n, day, id, namespace, list, address, type, source, time, payload, size FROM events, generate_series(1, $1) n`, events)
	g.Expect(err).NotTo(HaveOccurred())
	var keys keyArrays
	numbers, texts := make([]int64, rows), make([]string, rows)
	for n := range rows {
		key := store.SubscriptionKey{Namespace: "marketing", Name: fmt.Sprintf("crm-%d", n)}
		g.Expect(s.OpenDelivery(t.Context(), key)).To(Succeed())
		opened, err := s.LoadDelivery(t.Context(), key)
		g.Expect(err).NotTo(HaveOccurred())
		keys.add(key)
		numbers[n], texts[n] = opened.Token, "{}"
	}
	for text, others := range map[string][]any{
		lockRows:         {numbers},
		updateDeliveries: {numbers, numbers, numbers, numbers, texts, texts, texts},
		insertSetAside:   {numbers},
		deleteSetAside:   {numbers},
		saveAttempts:     {numbers, texts},
		selectAttempts:   nil,
	} {
		plan, err := readAll(t.Context(), s, pgx.RowTo[string], "EXPLAIN (ANALYZE, TIMING OFF) "+text,
			append([]any{keys.namespaces, keys.names}, others...)...)
		g.Expect(err).NotTo(HaveOccurred())
		expectRows(g, plan, rows)
	}
}
