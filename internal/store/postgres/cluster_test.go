package postgres

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

var list = contact.ListKey{Namespace: "marketing", Name: "newsletter"}

// save returns a change that makes a contact, or changes it, and raises one event.
func save(address string) store.Change {
	return store.Change{List: list, Address: address, Apply: func(current *contact.Contact) contact.Decision {
		next := contact.Contact{Email: address, Permission: contact.PermissionSingleOptIn}
		kind := contact.EventCreate
		if current != nil {
			next, kind = *current, contact.EventChangeProfile
		}
		next.Revision++
		return contact.Decision{
			Contact: next, Changed: true, Created: current == nil,
			Events: []contact.Event{{Type: kind, Source: contact.SourceAPI, Time: time.Now()}},
		}
	}}
}

// once gives a change a name.
func once(change store.Change, key string) store.Change {
	now := time.Now()
	change.Once = &store.Once{Key: key, Fingerprint: "x", Now: now, Until: now.Add(time.Hour)}
	return change
}

func address(writer, n int) string { return fmt.Sprintf("max.%d.%d@example.com", writer, n) }

// follow reads the log of a store as the tail does until it has seen as many
// events, and fails where one is out of order.
func follow(t *testing.T, s *Store, count int) []contact.Event {
	t.Helper()
	var seen []contact.Event
	for last := int64(0); len(seen) < count; {
		if err := s.WaitForEvents(t.Context(), last); err != nil {
			t.Errorf("wait for events after %d: %v", last, err)
			return seen
		}
		events, err := s.Read(t.Context(), store.Query{After: last, Limit: 37})
		if err != nil {
			t.Errorf("read after %d: %v", last, err)
			return seen
		}
		for _, event := range events {
			if event.Position <= last {
				t.Errorf("after %d came %d", last, event.Position)
			}
			seen, last = append(seen, event), event.Position
		}
	}
	return seen
}

// Several replicas write and read at once: whoever follows the log by "what comes
// after the last position that I saw" sees every event.
func TestReplicasShareOneLog(t *testing.T) {
	g := NewWithT(t)
	const replicas, writers, each = 3, 8, 40
	place := newPlace(t)
	stores := make([]*Store, replicas)
	for i := range stores {
		stores[i] = openAt(t, place)
	}
	g.Expect(stores[1].Identity()).To(Equal(stores[0].Identity()))

	var all sync.WaitGroup
	seen := make([][]contact.Event, replicas)
	for r, s := range stores {
		all.Go(func() { seen[r] = follow(t, s, replicas*writers*each) })
		for w := range writers {
			all.Go(func() {
				for n := range each {
					if _, err := s.Change(t.Context(), save(address(r*writers+w, n))); err != nil {
						t.Errorf("change: %v", err)
					}
				}
			})
		}
	}
	all.Wait()
	for r := range seen {
		g.Expect(seen[r]).To(HaveLen(replicas * writers * each))
		g.Expect(seen[r]).To(Equal(seen[0]))
	}
	g.Expect(stores[0].Count(t.Context(), list)).To(HaveField("Contacts", int64(replicas*writers*each)))
}

// Replicas that are asked the same at once make one contact, and one change of
// one name.
func TestReplicasTakeTurns(t *testing.T) {
	g := NewWithT(t)
	const callers = 20
	place := newPlace(t)
	stores := []*Store{openAt(t, place), openAt(t, place)}
	var (
		all     sync.WaitGroup
		mu      sync.Mutex
		created int
		first   int
		ids     = map[int64]bool{}
	)
	for _, s := range stores {
		for range callers {
			all.Go(func() {
				decision, err := s.Change(t.Context(), save("new@example.com"))
				repeat, onceErr := s.Change(t.Context(), once(save("once@example.com"), "key"))
				mu.Lock()
				defer mu.Unlock()
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(onceErr).NotTo(HaveOccurred())
				ids[decision.Contact.ID] = true
				if decision.Created {
					created++
				}
				if !repeat.Repeated {
					first++
				}
			})
		}
	}
	all.Wait()
	g.Expect(created).To(Equal(1))
	g.Expect(ids).To(HaveLen(1))
	g.Expect(first).To(Equal(1))
	g.Expect(stores[0].FindContact(t.Context(), list, "new@example.com")).To(HaveField("Revision", int64(2*callers)))
	g.Expect(stores[0].FindContact(t.Context(), list, "once@example.com")).To(HaveField("Revision", int64(1)))
	g.Expect(stores[1].Head(t.Context())).To(Equal(int64(2*callers + 1)))
}

// Contacts of one commit may exchange what belongs to one of them only.
func TestExternalIDsMoveWithinACommit(t *testing.T) {
	g := NewWithT(t)
	s := openAt(t, newPlace(t))
	withID := func(address, id string) store.Change {
		change := save(address)
		apply := change.Apply
		change.Apply = func(current *contact.Contact) contact.Decision {
			decision := apply(current)
			decision.Contact.ExternalID = id
			return decision
		}
		return change
	}
	_, err := s.ChangeAll(t.Context(), []store.Change{withID("a", "1"), withID("b", "2")})
	g.Expect(err).NotTo(HaveOccurred())
	results, err := s.ChangeAll(t.Context(), []store.Change{
		withID("c", "1"), withID("a", "3"), withID("b", "1"), withID("a", "2"), withID("d", "3"), withID("e", "2"),
	})
	g.Expect(err).NotTo(HaveOccurred())
	for i, refused := range []bool{true, false, false, false, false, true} {
		if refused {
			g.Expect(results[i].Err).To(MatchError(store.ErrExternalIDTaken), "%d", i)
		} else {
			g.Expect(results[i].Err).NotTo(HaveOccurred(), "%d", i)
		}
	}
	for address, id := range map[string]string{"a": "2", "b": "1", "d": "3"} {
		g.Expect(s.FindContact(t.Context(), list, address)).To(HaveField("ExternalID", id))
	}
	g.Expect(s.Count(t.Context(), list)).To(HaveField("Contacts", int64(3)))
}

// A replica that is stopped while it holds the log's lock is thrown out: the others
// wait for seconds, and nobody is refused.
func TestStoppedWriterIsThrownOut(t *testing.T) {
	g := NewWithT(t)
	const stoppedFor = 3 * time.Second // shorter than sessionSettings has it, for a machine that is slow itself
	g.Expect(sessionSettings).To(HaveKeyWithValue("idle_in_transaction_session_timeout", "5s"))
	place := writeDSN(t, server.Database(t)+fmt.Sprintf("?idle_in_transaction_session_timeout=%d", stoppedFor.Milliseconds()))
	stopped, other := openAt(t, place), openAt(t, place)
	began := time.Now()
	conn, err := stopped.start(t.Context(), func(batch *pgx.Batch) { lockCounter(batch, "log") })
	g.Expect(err).NotTo(HaveOccurred())
	_, err = other.Change(t.Context(), save("a@example.com"))
	g.Expect(err).NotTo(HaveOccurred(), "it has waited for less than its patience")
	g.Expect(time.Since(began)).To(BeNumerically(">", stoppedFor))

	// When it is woken, what it was about to write is refused.
	batch := &pgx.Batch{}
	batch.Queue(setCounter, "log", 1)
	g.Expect(isAway(stopped.finish(t.Context(), conn, batch))).To(BeTrue())
	_, err = stopped.Change(t.Context(), save("b@example.com"))
	g.Expect(err).NotTo(HaveOccurred(), "it goes on with a new connection")
	g.Expect(other.Head(t.Context())).To(Equal(int64(2)))
}

// A thousand rows are two round trips.
func TestCheckpointOfManyRows(t *testing.T) {
	g := NewWithT(t)
	s := openAt(t, newPlace(t))
	_, err := s.Change(t.Context(), save("a@example.com"))
	g.Expect(err).NotTo(HaveOccurred())
	var progress []store.Progress
	for n := range 1000 {
		key := store.SubscriptionKey{Namespace: "marketing", Name: fmt.Sprint(n)}
		progress = append(progress, store.Progress{Delivery: store.Delivery{Key: key, Cursor: int64(n)}, Aside: []int64{1}})
	}
	conn, err := s.acquire(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	_, err = conn.Exec(t.Context(), `INSERT INTO deliveries (namespace, name, cursor) SELECT 'marketing', n, 0 FROM generate_series(0, 999) n`)
	g.Expect(err).NotTo(HaveOccurred())
	release(t.Context(), conn)
	for i := range progress {
		row, err := s.LoadDelivery(t.Context(), progress[i].Key)
		g.Expect(err).NotTo(HaveOccurred())
		progress[i].Token = row.Token
	}
	g.Expect(s.Checkpoint(t.Context(), progress)).To(BeEmpty())
	rows, err := s.DeliveriesSince(t.Context(), 0)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(rows).To(HaveLen(1000))
	for n, row := range rows {
		g.Expect(row.Cursor).To(Equal(int64(n)), "in the order of the checkpoint")
		g.Expect(row.SetAside).To(Equal(int64(1)))
	}
}
