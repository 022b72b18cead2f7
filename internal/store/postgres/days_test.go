package postgres

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/store"
)

// calendar says which day it is.
type calendar struct{ at atomic.Pointer[time.Time] }

func newCalendar(day time.Time) *calendar {
	c := &calendar{}
	c.at.Store(&day)
	return c
}

func (c *calendar) now() time.Time { return *c.at.Load() }

func (c *calendar) set(day time.Time) { c.at.Store(&day) }

func openWith(t *testing.T, place string, c *calendar) *Store {
	t.Helper()
	prepare(t, place)
	opened, err := open(t.Context(), Options{DSNFile: place}, len(migrations), c.now)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { NewWithT(t).Expect(opened.Close()).To(Succeed()) })
	NewWithT(t).Expect(opened.PrepareLog(t.Context())).To(Succeed())
	return opened
}

// partitions returns the names of the log's partitions.
func partitions(t *testing.T, s *Store) []string {
	t.Helper()
	names, err := readAll(t.Context(), s, pgx.RowTo[string],
		`SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'events'::regclass AND inhrelid::regclass::text LIKE 'events_2127%' ORDER BY 1`)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return names
}

var firstDay = time.Date(2127, 2, 27, 23, 30, 0, 0, time.UTC)

// The log goes on over days, and whole days are removed, beside another replica
// that knows nothing of it.
func TestDays(t *testing.T) {
	g := NewWithT(t)
	place, today := newPlace(t), newCalendar(firstDay)
	s, other := openWith(t, place, today), openWith(t, place, today)
	crm := store.SubscriptionKey{Namespace: "marketing", Name: "crm"}
	g.Expect(s.OpenDelivery(t.Context(), crm)).To(Succeed())
	for day := range 5 {
		today.set(firstDay.AddDate(0, 0, day))
		if day%2 == 0 { // the controller is seldom there
			g.Expect(s.PrepareLog(t.Context())).To(Succeed())
		}
		for _, writer := range []*Store{s, other} {
			_, err := writer.Change(t.Context(), save("a@example.com"))
			g.Expect(err).NotTo(HaveOccurred())
		}
	}
	g.Expect(partitions(t, s)).To(HaveLen(12), "a week ahead of the last day")
	g.Expect(partitions(t, s)[:5]).To(Equal([]string{
		"events_21270227", "events_21270228", "events_21270301", "events_21270302", "events_21270303",
	}))
	today.set(firstDay) // a clock that goes back moves no event to an earlier day
	_, err := s.Change(t.Context(), save("b@example.com"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(s.readDays(t.Context())).To(Succeed())
	for after := range int64(12) {
		for _, reader := range []*Store{s, other} {
			for upTo := after; upTo <= 11; upTo++ {
				query := store.Query{After: after, UpTo: max(upTo, 1)}
				count, err := reader.CountEvents(t.Context(), query)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(count).To(Equal(max(0, max(upTo, 1)-after)), "%+v", query)
			}
			events, err := reader.Read(t.Context(), store.Query{Positions: []int64{after, 11}})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(events).To(HaveLen(map[bool]int{true: 1, false: 2}[after == 0 || after == 11]))
		}
	}

	row, err := s.LoadDelivery(t.Context(), crm)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(s.Checkpoint(t.Context(), []store.Progress{{Delivery: row, Aside: []int64{1, 4, 5}}})).To(BeEmpty())
	g.Expect(other.Prune(t.Context(), firstDay.AddDate(0, 0, -1))).To(BeZero())
	g.Expect(other.Prune(t.Context(), firstDay.AddDate(0, 0, 2))).To(Equal(int64(4)), "the first two days have ended by then")
	g.Expect(partitions(t, s)).To(HaveLen(10))
	g.Expect(s.SetAsideEvents(t.Context(), crm, 0, 10)).To(Equal([]int64{5}))
	events, err := s.Read(t.Context(), store.Query{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(events).To(HaveLen(7))
	g.Expect(events[0].Position).To(Equal(int64(5)))

	// Even the day that is being written may be removed.
	g.Expect(other.Prune(t.Context(), firstDay.AddDate(0, 1, 0))).To(Equal(int64(7)))
	_, err = s.Change(t.Context(), save("c@example.com"))
	g.Expect(err).To(And(MatchError(store.ErrUnavailable), MatchError(ContainSubstring("no partition for today: a controller has to run"))))
	g.Expect(s.PrepareLog(t.Context())).To(Succeed())
	changed, err := s.Change(t.Context(), save("c@example.com"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(changed.Events[0].Position).To(Equal(int64(12)))
	g.Expect(other.Read(t.Context(), store.Query{After: 11})).To(HaveLen(1))
}

// A partition that somebody has detached by hand is removed, too, or its day can be used again.
func TestPruneGoesOn(t *testing.T) {
	g := NewWithT(t)
	today := newCalendar(firstDay)
	s := openWith(t, newPlace(t), today)
	_, err := s.Change(t.Context(), save("a@example.com"))
	g.Expect(err).NotTo(HaveOccurred())
	conn, err := s.connect(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	_, err = conn.Exec(t.Context(), `ALTER TABLE events DETACH PARTITION events_21270227`)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(conn.Close(t.Context())).To(Succeed())
	today.set(firstDay.AddDate(0, 0, 1))
	g.Expect(s.Prune(t.Context(), today.now())).To(BeZero(), "its events were out of the log already")
	var left *string
	g.Expect(s.readRow(t.Context(), []any{&left}, `SELECT to_regclass('events_21270227')::text`)).To(Succeed())
	g.Expect(left).To(BeNil())

	today.set(firstDay)
	g.Expect(s.PrepareLog(t.Context())).To(Succeed())
	_, err = s.Change(t.Context(), save("a@example.com"))
	g.Expect(err).NotTo(HaveOccurred())
}

// Reading goes on while days are removed, and waits for nobody.
func TestPruneHoldsUpNobody(t *testing.T) {
	g := NewWithT(t)
	today := newCalendar(firstDay)
	s := openWith(t, newPlace(t), today)
	_, err := s.Change(t.Context(), save("a@example.com"))
	g.Expect(err).NotTo(HaveOccurred())
	today.set(firstDay.AddDate(0, 0, 1))

	// A reader is in the midst of the log.
	reading, err := s.connect(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	_, err = reading.Exec(t.Context(), `SET idle_in_transaction_session_timeout = 0`)
	g.Expect(err).NotTo(HaveOccurred())
	tx, err := reading.Begin(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	_, err = tx.Exec(t.Context(), `SELECT count(*) FROM events`)
	g.Expect(err).NotTo(HaveOccurred())

	removed := make(chan int64, 1)
	go func() {
		count, err := s.Prune(t.Context(), today.now())
		if err != nil {
			t.Errorf("prune: %v", err)
		}
		removed <- count
	}()
	g.Eventually(func() ([]string, error) {
		return readAll(t.Context(), s, pgx.RowTo[string], `SELECT mode FROM pg_locks WHERE relation = 'events'::regclass AND NOT granted`)
	}, 20*time.Second, time.Millisecond).Should(ConsistOf("AccessExclusiveLock"), "it waits for the reader")
	_, err = s.Change(t.Context(), save("b@example.com"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(s.Read(t.Context(), store.Query{})).To(ContainElement(HaveField("Contact", HaveField("Email", "b@example.com"))))
	today.set(firstDay.AddDate(0, 0, 30)) // there is no partition of that day yet
	g.Expect(s.PrepareLog(t.Context())).To(Succeed())
	_, err = s.Change(t.Context(), save("c@example.com"))
	g.Expect(err).NotTo(HaveOccurred(), "a reader that nobody ends does not keep new days from beginning")
	g.Expect(removed).NotTo(Receive(), "it waits still, and they did not")
	g.Expect(tx.Rollback(t.Context())).To(Succeed())
	g.Expect(reading.Close(t.Context())).To(Succeed())
	g.Eventually(removed, 20*time.Second).Should(Receive(Equal(int64(1))))
}

func TestDaysWithin(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2027, 3, n, 0, 0, 0, 0, time.UTC) }
	d := &days{}
	d.setBegins([]dayBegin{{day(1), 10}, {day(2), 20}, {day(4), 30}})
	for name, row := range map[string]struct {
		after, upTo   int64
		since, before time.Time
	}{
		"the whole log":               {0, 0, time.Time{}, time.Time{}},
		"before all that is known":    {3, 5, time.Time{}, day(1)},
		"behind the end of a day":     {19, 0, day(2), time.Time{}},
		"within a day":                {12, 15, day(1), day(2)},
		"over the end of a day":       {12, 20, day(1), day(4)},
		"the newest day has no bound": {35, 40, day(4), time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			since, before := d.within(row.after, row.upTo)
			NewWithT(t).Expect(since).To(Equal(row.since))
			NewWithT(t).Expect(before).To(Equal(row.before))
		})
	}
}
