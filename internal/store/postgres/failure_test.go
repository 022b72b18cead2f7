package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/testkit"
)

// load are writers and a reader that go on while servers die.
type load struct {
	t       *testing.T
	stop    context.CancelFunc
	all     sync.WaitGroup
	refused atomic.Int64
	// longest is how long a caller has waited for an answer, in nanoseconds.
	longest atomic.Int64

	mu sync.Mutex
	// accepted are the events that a writer was told of, by position.
	accepted map[int64]contact.Event
	// read are those that the reader was given.
	read []contact.Event
}

// startLoad has every store be written to, and the first be read.
func startLoad(t *testing.T, stores ...*Store) *load {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	l := &load{t: t, stop: stop, accepted: map[int64]contact.Event{}}
	for i, s := range stores {
		for w := range 4 {
			l.all.Go(func() { l.write(ctx, s, i*4+w) })
		}
	}
	l.all.Go(func() { l.follow(ctx, stores[0]) })
	return l
}

// write saves one contact after another. A caller is told that the store is not
// available, and nothing else.
func (l *load) write(ctx context.Context, s *Store, writer int) {
	for n := 0; ctx.Err() == nil; n++ {
		began := time.Now()
		decision, err := s.Change(context.WithoutCancel(ctx), save(address(writer, n)))
		l.longest.Store(max(l.longest.Load(), int64(time.Since(began))))
		if err != nil {
			l.fail(ctx, err)
			continue
		}
		l.mu.Lock()
		l.accepted[decision.Events[0].Position] = decision.Events[0]
		l.mu.Unlock()
	}
}

func (l *load) fail(ctx context.Context, err error) {
	if !errors.Is(err, store.ErrUnavailable) {
		l.t.Errorf("a caller got %v", err)
	}
	l.refused.Add(1)
	select {
	case <-time.After(50 * time.Millisecond):
	case <-ctx.Done():
	}
}

func (l *load) follow(ctx context.Context, s *Store) {
	for last := int64(0); ctx.Err() == nil; {
		if s.WaitForEvents(ctx, last) != nil {
			return
		}
		events, err := s.Read(context.WithoutCancel(ctx), store.Query{After: last})
		if err != nil {
			l.fail(ctx, err)
			continue
		}
		l.mu.Lock()
		for _, event := range events {
			if event.Position <= last {
				l.t.Errorf("after %d came %d", last, event.Position)
			}
			l.read, last = append(l.read, event), event.Position
		}
		l.mu.Unlock()
	}
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.accepted)
}

// goesOn waits until a good many more were accepted.
func (l *load) goesOn() {
	l.t.Helper()
	before := l.count()
	NewWithT(l.t).Eventually(l.count, time.Minute, 10*time.Millisecond).Should(BeNumerically(">", before+200))
}

// check ends the load and holds the store to what it has said: every event that a
// caller or a reader was given is there, in its place.
func (l *load) check(s *Store) {
	l.t.Helper()
	g := NewWithT(l.t)
	l.stop()
	l.all.Wait()
	count, err := s.CountEvents(l.t.Context(), store.Query{})
	g.Expect(err).NotTo(HaveOccurred())
	log := map[int64]contact.Event{}
	for n, event := range follow(l.t, s, int(count)) {
		log[event.Position] = event
		if n < len(l.read) {
			g.Expect(l.read[n].ID).To(Equal(event.ID), "the reader was given every event, in this order")
		}
	}
	for position, event := range l.accepted {
		g.Expect(log[position].ID).To(Equal(event.ID), "accepted at %d", position)
		found, err := s.FindContact(l.t.Context(), list, event.Address)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(found.ID).To(Equal(event.Contact.ID))
	}
	g.Expect(len(l.read)).To(BeNumerically("<=", len(log)), "what was read is not taken back")
	// Its turn and its commit may each take all of their patience.
	g.Expect(time.Duration(l.longest.Load())).To(BeNumerically("<", 3*patience))
	l.t.Logf("%d accepted, %d refused, %d in the log, nobody waited longer than %s",
		len(l.accepted), l.refused.Load(), count, time.Duration(l.longest.Load()).Round(time.Millisecond))
}

func TestServerIsKilled(t *testing.T) {
	g := NewWithT(t)
	place := newPlace(t)
	l := startLoad(t, openAt(t, place), openAt(t, place))
	for _, end := range []func() error{server.Kill, server.Stop, server.Kill} {
		l.goesOn()
		refused := l.refused.Load()
		g.Expect(end()).To(Succeed())
		g.Eventually(l.refused.Load, 20*time.Second).Should(BeNumerically(">", refused))
		g.Expect(server.Start()).To(Succeed())
	}
	l.goesOn()
	l.check(openAt(t, place))
}

// newPair starts a server and its synchronous standby, and returns the connection
// string of whichever of them is the primary.
func newPair(t *testing.T) (primary, standby *testkit.PostgreSQL, place string) {
	t.Helper()
	primary = testkit.NewPostgreSQL(t)
	dsn := primary.Database(t)
	standby = primary.Standby(t)
	_, database, _ := strings.Cut(dsn, fmt.Sprintf(":%d/", primary.Port))
	return primary, standby, writeDSN(t, fmt.Sprintf("%s,127.0.0.1:%d/%s?target_session_attrs=read-write",
		strings.TrimSuffix(dsn, "/"+database), standby.Port, database))
}

// The primary dies and its synchronous standby takes over: what was accepted is
// there, and what was read is not taken back.
func TestStandbyIsPromoted(t *testing.T) {
	g := NewWithT(t)
	primary, standby, place := newPair(t)
	l := startLoad(t, openAt(t, place), openAt(t, place))
	l.goesOn()
	g.Expect(primary.Kill()).To(Succeed())
	g.Expect(standby.Promote()).To(Succeed())
	l.goesOn()
	l.check(openAt(t, place))
}

// A server that takes nothing more is told to callers, and costs nobody more than
// seconds.
func TestStandbyIsAway(t *testing.T) {
	g := NewWithT(t)
	primary := testkit.NewPostgreSQL(t)
	place := writeDSN(t, primary.Database(t))
	s := openAt(t, place)
	standby := primary.Standby(t)
	_, err := s.Change(t.Context(), save("a@example.com"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(standby.Stop()).To(Succeed())
	began := time.Now()
	_, err = s.Change(t.Context(), save("b@example.com"))
	g.Expect(err).To(MatchError(store.ErrUnavailable), "the commit waits for the standby")
	g.Expect(time.Since(began)).To(BeNumerically("<", 2*patience))
	g.Expect(s.Head(t.Context())).To(Equal(int64(1)), "nobody sees what the standby has not got")

	g.Expect(standby.Start()).To(Succeed())
	g.Eventually(func() (int64, error) { return s.Head(t.Context()) }, 20*time.Second).Should(Equal(int64(2)), "it was under way all the time")
	_, err = s.Change(t.Context(), save("c@example.com"))
	g.Expect(err).NotTo(HaveOccurred())
}

// A process that ends while its commit waits for the standby leaves the commit waiting.
func TestCloseWhileTheStandbyIsAway(t *testing.T) {
	g := NewWithT(t)
	primary := testkit.NewPostgreSQL(t)
	place := writeDSN(t, primary.Database(t))
	ending, other := openAt(t, place), openAt(t, place)
	standby := primary.Standby(t)
	g.Expect(standby.Stop()).To(Succeed())
	_, err := ending.Change(t.Context(), save("a@example.com"))
	g.Expect(err).To(MatchError(store.ErrUnavailable))
	began := time.Now()
	g.Expect(ending.Close()).To(Succeed())
	g.Expect(time.Since(began)).To(BeNumerically("<", patience), "it does not wait for the standby")
	g.Consistently(func() (int64, error) { return other.Head(t.Context()) }, 2*time.Second).
		Should(BeZero(), "nobody sees what the standby has not got")

	g.Expect(standby.Start()).To(Succeed())
	g.Eventually(func() (int64, error) { return other.Head(t.Context()) }, 20*time.Second).Should(Equal(int64(1)))
}

// A checkpoint that was committed without an answer is written again, with what was
// raised meanwhile: each event is in the log once.
func TestCheckpointWithoutAnswer(t *testing.T) {
	g := NewWithT(t)
	primary := testkit.NewPostgreSQL(t)
	s := openAt(t, writeDSN(t, primary.Database(t)))
	standby := primary.Standby(t)
	key := store.SubscriptionKey{Namespace: "marketing", Name: "crm"}
	g.Expect(s.OpenDelivery(t.Context(), key)).To(Succeed())
	row, err := s.LoadDelivery(t.Context(), key)
	g.Expect(err).NotTo(HaveOccurred())
	progress := store.Progress{Delivery: row}
	raise := func(kind v1alpha1.EventType) {
		progress.Operations++
		progress.Raised = append(progress.Raised, contact.Event{
			List: contact.ListKey{Namespace: key.Namespace}, Type: kind, Time: time.Now(),
			Operation: &contact.Operation{Kind: "WebhookSubscription", Name: key.Name},
		})
	}
	raise(contact.EventFailing)
	g.Expect(standby.Stop()).To(Succeed())
	_, err = s.Checkpoint(t.Context(), []store.Progress{progress})
	g.Expect(err).To(MatchError(store.ErrUnavailable), "the commit waits for the standby")
	g.Expect(standby.Start()).To(Succeed())
	g.Eventually(func() (int64, error) { return s.Head(t.Context()) }, 20*time.Second).Should(Equal(int64(1)), "it was under way all the time")

	raise(contact.EventDeactivated)
	g.Expect(s.Checkpoint(t.Context(), []store.Progress{progress})).To(BeEmpty())
	read, err := s.Read(t.Context(), store.Query{Filter: store.Filter{Types: contact.LogTypes}})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(read).To(HaveExactElements(HaveField("Type", contact.EventFailing), HaveField("Type", contact.EventDeactivated)))
}

// A standby that lacks the last commits takes over. Their events are lost, but what
// comes after is not hidden behind them.
func TestStandbyLacksTheLast(t *testing.T) {
	g := NewWithT(t)
	primary, standby, place := newPair(t)
	s := openAt(t, place)
	crm, shop := store.SubscriptionKey{Namespace: "marketing", Name: "crm"}, store.SubscriptionKey{Namespace: "marketing", Name: "shop"}
	g.Expect(s.OpenDelivery(t.Context(), crm)).To(Succeed())
	_, err := s.Change(t.Context(), save("a@example.com"))
	g.Expect(err).NotTo(HaveOccurred())

	g.Expect(standby.Stop()).To(Succeed())
	primary.Execute(t, "ALTER SYSTEM RESET synchronous_standby_names")
	primary.Execute(t, "SELECT pg_reload_conf()")
	lost, err := s.Change(t.Context(), save("b@example.com"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(s.OpenDelivery(t.Context(), shop)).To(Succeed())
	read, err := s.Read(t.Context(), store.Query{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(read).To(HaveLen(2))
	seen, err := s.DeliveriesSince(t.Context(), 0)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(seen).To(HaveLen(2))

	g.Expect(primary.Kill()).To(Succeed())
	g.Expect(standby.Start()).To(Succeed())
	g.Expect(standby.Promote()).To(Succeed())
	var next contact.Decision
	g.Eventually(func() (err error) {
		next, err = s.Change(t.Context(), save("c@example.com"))
		return err
	}, 20*time.Second).Should(Succeed())
	g.Expect(next.Contact.ID).To(BeNumerically(">", lost.Contact.ID), "links to who is lost name nobody else")
	g.Expect(s.OpenDelivery(t.Context(), shop)).To(Succeed())
	g.Expect(s.Read(t.Context(), store.Query{After: read[1].Position})).To(ConsistOf(HaveField("Address", "c@example.com")))
	g.Expect(s.DeliveriesSince(t.Context(), seen[1].Revision)).To(ConsistOf(HaveField("Key", shop)))
}

// A server that is a standby now, or that an administrator has made read-only, is
// as good as away.
func TestServerIsReadOnly(t *testing.T) {
	g := NewWithT(t)
	dsn := server.Database(t)
	place := writeDSN(t, dsn)
	s := openAt(t, place)
	key := store.SubscriptionKey{Namespace: "marketing", Name: "crm"}
	_, database, _ := strings.Cut(dsn, fmt.Sprintf(":%d/", server.Port))
	server.Execute(t, "ALTER DATABASE "+database+" SET default_transaction_read_only = on")
	server.Execute(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+database+"'")
	_, err := s.Change(t.Context(), save("a@example.com"))
	g.Expect(err).To(MatchError(store.ErrUnavailable))
	g.Expect(s.OpenDelivery(t.Context(), key)).To(MatchError(store.ErrUnavailable))
	_, err = s.Join(t.Context(), "a", time.Minute)
	g.Expect(err).To(MatchError(store.ErrUnavailable))
	_, err = s.Checkpoint(t.Context(), []store.Progress{{Delivery: store.Delivery{Key: key}}})
	g.Expect(err).To(MatchError(store.ErrUnavailable))
	_, err = Open(t.Context(), Options{DSNFile: place})
	g.Expect(err).To(MatchError(store.ErrUnavailable))
	g.Expect(s.Head(t.Context())).To(BeZero(), "it can be read")

	server.Execute(t, "ALTER DATABASE "+database+" RESET default_transaction_read_only")
	server.Execute(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+database+"'")
	_, err = s.Change(t.Context(), save("a@example.com"))
	g.Expect(err).NotTo(HaveOccurred())
}

// What pg_dump has written while the store was in use goes on where it stood.
func TestBackupIsRestored(t *testing.T) {
	g := NewWithT(t)
	dsn := server.Database(t)
	s := openAt(t, writeDSN(t, dsn))
	key := store.SubscriptionKey{Namespace: "marketing", Name: "crm"}
	g.Expect(s.OpenDelivery(t.Context(), key)).To(Succeed())
	changed, err := s.Change(t.Context(), save("a@example.com"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(s.Join(t.Context(), "a", time.Hour)).To(Equal([]string{"a"}))
	row, err := s.ClaimDelivery(t.Context(), key, "a")
	g.Expect(err).NotTo(HaveOccurred())

	dump := server.Dump(t, dsn)
	_, err = s.Change(t.Context(), save("b@example.com")) // too late for it
	g.Expect(err).NotTo(HaveOccurred())
	restoredDSN := server.Database(t)
	server.Restore(t, dump, restoredDSN)
	restored := openAt(t, writeDSN(t, restoredDSN))
	g.Expect(restored.Identity()).To(Equal(s.Identity()), "links in mails stay good")
	g.Expect(restored.Read(t.Context(), store.Query{})).To(HaveLen(1))
	g.Expect(restored.LoadDelivery(t.Context(), key)).To(Equal(row))
	again, err := restored.Change(t.Context(), save("b@example.com"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(again.Events[0].Position).To(Equal(changed.Events[0].Position + 1))
	g.Expect(again.Contact.ID).To(Equal(changed.Contact.ID + 1))
	g.Expect(restored.ClaimDelivery(t.Context(), key, "a")).NotTo(HaveField("Token", row.Token))
}

// A new password is taken up from the file, without a restart.
func TestPasswordChanges(t *testing.T) {
	g := NewWithT(t)
	dsn := server.Database(t)
	database := dsn[strings.LastIndex(dsn, "/")+1:]
	server.Execute(t, "CREATE ROLE rotating LOGIN PASSWORD 'first-secret'")
	server.Execute(t, "ALTER DATABASE "+database+" OWNER TO rotating")
	t.Cleanup(func() { server.Execute(t, "ALTER ROLE rotating NOLOGIN") })
	as := func(password string) string {
		return fmt.Sprintf("host=127.0.0.1 port=%d dbname=%s user=rotating password=%s search_path=tenant", server.Port, database, password)
	}
	place := writeDSN(t, as("first-secret"))
	s := openAt(t, place)
	server.Execute(t, "ALTER ROLE rotating PASSWORD 'second-secret'")
	server.Execute(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rotating'")
	_, err := s.Change(t.Context(), save("a@example.com"))
	g.Expect(err).To(MatchError(store.ErrUnavailable))
	g.Expect(err.Error()).NotTo(ContainSubstring("secret"))
	g.Expect(os.WriteFile(place, []byte(as("second-secret")), 0o600)).To(Succeed())
	_, err = s.Change(t.Context(), save("a@example.com"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(s.listening.Load, 10*time.Second).Should(BeTrue(), "the listener takes it up, too")
	var schema string
	g.Expect(s.readRow(t.Context(), []any{&schema}, `SELECT current_schema()`)).To(Succeed())
	g.Expect(schema).To(Equal("tenant"))
}

// What can't be opened says why, and tells no secret.
func TestOpenRefuses(t *testing.T) {
	newPlace(t)
	const secret = "p%zz ss/w@rd"
	port, err := testkit.FreePort()
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	for name, row := range map[string]struct {
		dsn  string
		want error
		says string
	}{
		"an empty file":       {"", errConnectionString, "no connection string"},
		"a URL that is none":  {"postgres://postbus:" + secret + "@127.0.0.1:what/db", errConnectionString, "no connection string"},
		"words that are none": {"host=127.0.0.1 password='" + secret, errConnectionString, "no connection string"},
		"a missing authority": {"host=127.0.0.1 password=w@rd sslmode=verify-full sslrootcert=/nowhere/ca.crt", errConnectionString, "a file that it names"},
		"nobody there":        {fmt.Sprintf("postgres://postbus:w%%40rd@127.0.0.1:%d/db", port), store.ErrUnavailable, "connection refused"},
		"a wrong password":    {fmt.Sprintf("postgres://postbus:w%%40rd@127.0.0.1:%d/postgres", server.Port), store.ErrUnavailable, "password authentication failed"},
		"no such database":    {server.DSN("nowhere"), store.ErrUnavailable, `"nowhere" does not exist`},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := Open(t.Context(), Options{DSNFile: writeDSN(t, row.dsn)})
			g.Expect(err).To(MatchError(row.want))
			g.Expect(err).To(MatchError(ContainSubstring(row.says)))
			for _, part := range []string{"w@rd", "w%40rd", "p%zz", "correct-horse"} {
				g.Expect(err.Error()).NotTo(ContainSubstring(part))
			}
		})
	}
	_, err = Open(t.Context(), Options{DSNFile: "/nowhere/dsn"})
	NewWithT(t).Expect(err).To(MatchError(os.ErrNotExist))
}
