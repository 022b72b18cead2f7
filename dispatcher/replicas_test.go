package dispatcher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/postgres"
	"postbus.dev/postbus/internal/store/sqlite"
	"postbus.dev/postbus/internal/testkit"
)

// replica is one of several dispatchers of a store. Calls tell by their User-Agent
// which one made them.
type replica struct {
	*mortal
	name    string
	metrics *prometheus.Registry
	// stop ends it in order.
	stop func()
}

// replicate runs a dispatcher beside those that run already.
func (r *rig) replicate(name string) *replica {
	r.t.Helper()
	one := &replica{name: name, mortal: &mortal{Store: r.open(), refused: map[store.SubscriptionKey]bool{}, written: time.Now()}}
	options := r.options
	r.options.Name, r.options.Version, r.options.Store = name, name, one.mortal
	one.stop = r.run()
	one.metrics, r.options = r.metrics, options
	return one
}

// owned is how many rows it owns.
func (o *replica) owned() int {
	families, _ := o.metrics.Gather()
	for _, family := range families {
		if family.GetName() == "postbus_dispatcher_owned_deliveries" {
			return int(family.GetMetric()[0].GetGauge().GetValue())
		}
	}
	return 0 // it has not begun
}

// die ends it as kill -9 does: from now on nothing of it reaches the store. What it
// was calling is called to the end, as by a process that dies right after.
func (o *replica) die() {
	o.kill()
	o.stop()
}

// mortal is a real store as a process sees it that can be killed, or stopped for a
// while. Both are seen in what it writes alone.
type mortal struct {
	store.Store
	mu     sync.Mutex
	joined int
	killed bool
	// stopped is closed when the process goes on; nil while it was not stopped.
	stopped chan struct{}
	// refused are the rows of which the store refused checkpoints.
	refused map[store.SubscriptionKey]bool
	// written is when the last checkpoint began that the store has.
	written time.Time
}

// lastWritten is when the last checkpoint began that the store has.
func (m *mortal) lastWritten() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.written
}

func (m *mortal) kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.killed = true
}

// pause lets nothing through until resume is called.
func (m *mortal) pause() (resume func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	stopped := make(chan struct{})
	m.stopped = stopped
	return func() { close(stopped) }
}

// pass returns nil when something may be written.
func (m *mortal) pass(ctx context.Context) error {
	m.mu.Lock()
	stopped, killed := m.stopped, m.killed
	m.mu.Unlock()
	if killed {
		return errKilled
	}
	if stopped == nil {
		return nil
	}
	select {
	case <-stopped:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *mortal) Checkpoint(ctx context.Context, progress []store.Progress) ([]store.SubscriptionKey, error) {
	if err := m.pass(ctx); err != nil {
		return nil, err
	}
	began := time.Now()
	gone, err := m.Store.Checkpoint(ctx, progress)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		m.written = began
	}
	for _, key := range gone {
		m.refused[key] = true
	}
	return gone, err
}

func (m *mortal) Join(ctx context.Context, name string, lasting time.Duration) ([]string, error) {
	if err := m.pass(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.joined++
	m.mu.Unlock()
	return m.Store.Join(ctx, name, lasting)
}

// joins is how often it has joined.
func (m *mortal) joins() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.joined
}

func (m *mortal) Leave(ctx context.Context, name string) error {
	if err := m.pass(ctx); err != nil {
		return err
	}
	return m.Store.Leave(ctx, name)
}

func (m *mortal) ClaimDelivery(ctx context.Context, key store.SubscriptionKey, name string) (store.Delivery, error) {
	if err := m.pass(ctx); err != nil {
		return store.Delivery{}, err
	}
	return m.Store.ClaimDelivery(ctx, key, name)
}

func (m *mortal) ReleaseDelivery(ctx context.Context, key store.SubscriptionKey, name string) error {
	if err := m.pass(ctx); err != nil {
		return err
	}
	return m.Store.ReleaseDelivery(ctx, key, name)
}

func (m *mortal) AddAttempts(ctx context.Context, added []store.AttemptLog) error {
	if err := m.pass(ctx); err != nil {
		return err
	}
	return m.Store.AddAttempts(ctx, added)
}

func (m *mortal) refusals() []store.SubscriptionKey {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Keys(m.refused))
}

// engine makes a store, and says how another process opens it. One that only one
// process can open is used by all.
type engine func(t *testing.T) (opened store.Store, open func() store.Store)

// onEachEngine runs a test on both engines of the store, with a rig for each.
func onEachEngine(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	for name, newStore := range map[string]engine{"SQLite": sqliteEngine, "PostgreSQL": postgresEngine} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opened, open := newStore(t)
			r := newRigOn(t, opened)
			r.open = open
			test(t, r)
		})
	}
}

func sqliteEngine(t *testing.T) (store.Store, func() store.Store) {
	opened, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "postbus.db"))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return opened, func() store.Store { return opened }
}

// postgreSQL is the server that tests on it share. It starts with the first.
var (
	postgreSQL      *testkit.PostgreSQL
	startPostgreSQL = sync.OnceValue(func() (err error) {
		postgreSQL, err = testkit.StartPostgreSQL()
		return err
	})
)

func stopPostgreSQL() error {
	if postgreSQL == nil {
		return nil
	}
	return postgreSQL.Remove()
}

func postgresEngine(t *testing.T) (store.Store, func() store.Store) {
	g := NewWithT(t)
	if err := startPostgreSQL(); !errors.Is(err, testkit.ErrNoPostgreSQL) || os.Getenv("CI") == "true" {
		g.Expect(err).NotTo(HaveOccurred())
	}
	file := filepath.Join(t.TempDir(), "dsn")
	g.Expect(os.WriteFile(file, []byte(postgreSQL.Database(t)), 0o600)).To(Succeed())
	_, err := postgres.Migrate(t.Context(), postgres.Options{DSNFile: file}, postgres.Roles{})
	g.Expect(err).NotTo(HaveOccurred())
	open := func() store.Store {
		opened, err := postgres.Open(t.Context(), postgres.Options{DSNFile: file})
		g.Expect(err).NotTo(HaveOccurred())
		return opened
	}
	return open(), func() store.Store {
		opened := open()
		t.Cleanup(func() { g.Expect(opened.Close()).To(Succeed()) })
		return opened
	}
}

// subscribeMany makes so many subscriptions to the receiver, and returns their keys.
func (r *rig) subscribeMany(count int, edit func(*v1alpha1.WebhookSubscription)) (keys []store.SubscriptionKey) {
	r.t.Helper()
	for n := range count {
		keys = append(keys, keyOf(r.subscribe(fmt.Sprintf("crm-%d", n), edit)))
	}
	return keys
}

// callers returns who called each path with this event, in order.
func (r *rig) callers(id string) map[string][]string {
	callers := map[string][]string{}
	for _, call := range r.receiver.Calls() {
		if call.Header.Get(signature.HeaderID) == id {
			callers[call.Path] = append(callers[call.Path], strings.TrimPrefix(call.Header.Get("User-Agent"), "postbus/"))
		}
	}
	return callers
}

// expected returns who ought to call each path, once.
func expected(keys []store.SubscriptionKey, candidates ...string) map[string][]string {
	callers := map[string][]string{}
	for _, key := range keys {
		callers["/"+key.Name] = []string{ownerOf(key, candidates)}
	}
	return callers
}

// settled waits until the replicas own what they ought to.
func (r *rig) settled(keys []store.SubscriptionKey, within time.Duration, replicas ...*replica) {
	r.t.Helper()
	var names []string
	for _, one := range replicas {
		names = append(names, one.name)
	}
	owned := shares(keys, names)
	for _, one := range replicas {
		NewWithT(r.t).Eventually(one.owned, within).Should(Equal(len(owned[one.name])), one.name)
	}
}

const (
	// handedOverIn bounds the time in which rows change hands in order, which is a
	// second where the machine has nothing else to do: it is shorter than livesFor,
	// after which they would change hands without that.
	handedOverIn = 5 * time.Second
	// replacedIn bounds the time in which the rows of a dead replica have another owner.
	// It is 10 s where the machine has nothing else to do.
	replacedIn = 20 * time.Second
)

func TestReplicasShare(t *testing.T) { onEachEngine(t, testReplicasShare) }

func testReplicasShare(t *testing.T, r *rig) {
	g := NewWithT(t)
	keys := r.subscribeMany(30, nil)
	a := r.replicate("a")
	r.settled(keys, patience, a)
	b := r.replicate("b")
	r.settled(keys, patience, a, b)
	one := r.post("ada@example.com")
	g.Eventually(func() map[string][]string { return r.callers(one) }, patience).Should(Equal(expected(keys, "a", "b")))

	c := r.replicate("c")
	r.settled(keys, patience, a, b, c)
	two := r.post("ada@example.com")
	g.Eventually(func() map[string][]string { return r.callers(two) }, patience).Should(Equal(expected(keys, "a", "b", "c")))
	g.Expect(r.receiver.Count()).To(Equal(60), "each event once")

	// What is new while they run has one owner as well.
	late := r.subscribe("late", nil)
	three := r.post("ada@example.com")
	g.Eventually(func() []string { return r.callers(three)["/late"] }, patience).Should(Equal([]string{ownerOf(keyOf(late), []string{"a", "b", "c"})}))
}

func TestKilledReplicaIsReplaced(t *testing.T) { onEachEngine(t, testKilledReplicaIsReplaced) }

func testKilledReplicaIsReplaced(t *testing.T, r *rig) {
	g := NewWithT(t)
	keys := r.subscribeMany(10, nil)
	a, b := r.replicate("a"), r.replicate("b")
	r.settled(keys, patience, a, b)
	b.die()
	killed := time.Now()
	sent := r.post("ada@example.com")
	r.settled(keys, replacedIn, a)
	t.Logf("replaced within %s", time.Since(killed).Round(time.Millisecond))
	g.Eventually(func() map[string][]string { return r.callers(sent) }, patience).Should(Equal(expected(keys, "a")))
}

// One that ends leaves at once what nothing is under way of, and the rest when that
// has ended.
func TestEndingReplicaIsReplaced(t *testing.T) { onEachEngine(t, testEndingReplicaIsReplaced) }

func testEndingReplicaIsReplaced(t *testing.T, r *rig) {
	g := NewWithT(t)
	r.options.ShutdownTimeout = patience
	keys := r.subscribeMany(10, nil)
	a, b := r.replicate("a"), r.replicate("b")
	r.settled(keys, patience, a, b)
	slow := shares(keys, []string{"a", "b"})["b"][0]
	letGo := make(chan struct{})
	r.receiver.AnswerWith(func(_ http.ResponseWriter, call *http.Request) {
		if call.URL.Path == "/"+slow.Name {
			select {
			case <-letGo:
			case <-call.Context().Done(): // the test has failed
			}
		}
	})
	one := r.post("ada@example.com")
	g.Eventually(func() map[string][]string { return r.callers(one) }, patience).Should(Equal(expected(keys, "a", "b")))

	ended := make(chan struct{})
	go func() { defer close(ended); b.stop() }()
	g.Eventually(a.owned, handedOverIn).Should(Equal(9))
	two := r.post("grace@example.com")
	wanted := expected(keys, "a")
	delete(wanted, "/"+slow.Name)
	g.Eventually(func() map[string][]string { return r.callers(two) }, patience).Should(Equal(wanted), "a call of the last one is under way still")
	g.Expect(ended).NotTo(BeClosed())

	close(letGo)
	g.Eventually(a.owned, handedOverIn).Should(Equal(10))
	g.Eventually(ended, patience).Should(BeClosed())
	g.Eventually(func() map[string][]string { return r.callers(two) }, patience).Should(Equal(expected(keys, "a")))
	g.Expect(r.receiver.Count()).To(Equal(20), "nothing is sent twice")
}

// A row moves while a call is under way: that one is not made again, and what comes
// after it of the same contact waits for it.
func TestHandoverUnderWay(t *testing.T) { onEachEngine(t, testHandoverUnderWay) }

func testHandoverUnderWay(t *testing.T, r *rig) {
	g := NewWithT(t)
	r.options.ShutdownTimeout = patience
	keys := r.subscribeMany(10, nil)
	a := r.replicate("a")
	r.settled(keys, patience, a)
	letGo := make(chan struct{})
	r.receiver.AnswerWith(func(_ http.ResponseWriter, call *http.Request) {
		if body, _ := io.ReadAll(call.Body); bytes.Contains(body, []byte("ada@")) {
			select {
			case <-letGo:
			case <-call.Context().Done(): // the test has failed
			}
		}
	})
	first := r.post("ada@example.com")
	g.Eventually(func() map[string][]string { return r.callers(first) }, patience).Should(Equal(expected(keys, "a")))
	second := r.post("ada@example.com")
	b := r.replicate("b")
	mine := len(shares(keys, []string{"a", "b"})["b"])
	g.Eventually(b.joins, patience).Should(BeNumerically(">", 1))
	g.Consistently(b.owned, time.Second).Should(BeZero())
	other := r.post("grace@example.com")
	g.Eventually(func() map[string][]string { return r.callers(other) }, patience).Should(HaveLen(10-mine), "of the rows that stay")
	close(letGo)
	g.Eventually(b.owned, handedOverIn).Should(Equal(mine))
	for _, id := range []string{second, other} {
		g.Eventually(func() map[string][]string { return r.callers(id) }, patience).Should(Equal(expected(keys, "a", "b")))
	}
	g.Expect(r.receiver.Count()).To(Equal(30), "nothing is sent twice")
	for _, key := range keys {
		ids := r.ids("/" + key.Name)
		g.Expect(slices.Index(ids, first)).To(BeNumerically("<", slices.Index(ids, second)))
	}
}
