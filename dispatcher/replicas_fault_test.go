package dispatcher

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/testkit"
)

// A process that is stopped for long wakes in a world that has taken it for dead: it
// calls nobody, what it wrote down is refused, and it takes part again.
func TestPausedReplica(t *testing.T) { onEachEngine(t, testPausedReplica) }

func testPausedReplica(t *testing.T, r *rig) {
	g := NewWithT(t)
	keys := r.subscribeMany(10, nil)
	a, b := r.replicate("a"), r.replicate("b")
	r.settled(keys, patience, a, b)
	resume := b.pause()
	unwritten := r.post("ada@example.com")
	g.Eventually(func() map[string][]string { return r.callers(unwritten) }, patience).Should(Equal(expected(keys, "a", "b")), "b has not died yet")

	r.settled(keys, replacedIn, a)
	for path, callers := range r.callers(unwritten) {
		if expected(keys, "a", "b")[path][0] == "b" {
			g.Eventually(func() []string { return r.callers(unwritten)[path] }, patience).Should(Equal([]string{"b", "a"}), "nobody knows of it")
		} else {
			g.Expect(callers).To(Equal([]string{"a"}))
		}
	}
	later := r.post("grace@example.com")
	g.Eventually(func() map[string][]string { return r.callers(later) }, patience).Should(Equal(expected(keys, "a")))
	g.Expect(b.refusals()).To(BeEmpty())

	resume()
	g.Eventually(b.refusals, patience).Should(ConsistOf(shares(keys, []string{"a", "b"})["b"]))
	r.settled(keys, patience, a, b)
	last := r.post("zoe@example.com")
	g.Eventually(func() map[string][]string { return r.callers(last) }, patience).Should(Equal(expected(keys, "a", "b")))
	g.Expect(r.callers(later)).To(Equal(expected(keys, "a")), "b made no call of it")
}

// A store that was away for longer than a dispatcher lives: it begins no call, and
// goes on where it stood, without sending anything twice.
func TestStoreIsAwayForLong(t *testing.T) { onEachEngine(t, testStoreIsAwayForLong) }

func testStoreIsAwayForLong(t *testing.T, r *rig) {
	g := NewWithT(t)
	keys := r.subscribeMany(3, nil)
	a := r.replicate("a")
	r.settled(keys, patience, a)
	resume := a.pause()
	before := r.post("ada@example.com")
	g.Eventually(func() map[string][]string { return r.callers(before) }, patience).Should(Equal(expected(keys, "a")))
	g.Eventually(func() []string {
		living, err := r.store.Join(t.Context(), "witness", time.Millisecond)
		g.Expect(err).NotTo(HaveOccurred())
		return living
	}, patience).ShouldNot(ContainElement("a"))
	during := r.post("ada@example.com")
	g.Consistently(func() map[string][]string { return r.callers(during) }, time.Second).Should(BeEmpty())
	resume()
	g.Eventually(func() map[string][]string { return r.callers(during) }, patience).Should(Equal(expected(keys, "a")))
	g.Expect(r.callers(before)).To(Equal(expected(keys, "a")), "nobody else could have sent it")
}

// Two replicas hold limits together while subscriptions move between them.
func TestLimitsOverReplicas(t *testing.T) { onEachEngine(t, testLimitsOverReplicas) }

func testLimitsOverReplicas(t *testing.T, r *rig) {
	const maxInFlight, perSecond, events = 2, 50, 250
	g := NewWithT(t)
	inFlight, most := map[string]*atomic.Int64{}, map[string]*atomic.Int64{}
	keys := r.subscribeMany(4, func(s *v1alpha1.WebhookSubscription) {
		s.Spec.RateLimit.MaxInFlight, s.Spec.RateLimit.RequestsPerSecond = maxInFlight, perSecond
	})
	for _, key := range keys {
		inFlight["/"+key.Name], most["/"+key.Name] = &atomic.Int64{}, &atomic.Int64{}
	}
	r.receiver.AnswerWith(func(_ http.ResponseWriter, call *http.Request) {
		now := inFlight[call.URL.Path].Add(1)
		defer inFlight[call.URL.Path].Add(-1)
		for highest := most[call.URL.Path].Load(); now > highest && !most[call.URL.Path].CompareAndSwap(highest, now); {
			highest = most[call.URL.Path].Load()
		}
		<-time.After(30 * time.Millisecond) // so that two at once are less than the rate
	})
	a := r.replicate("a")
	r.settled(keys, patience, a)
	r.postMany("ada", events)
	for n := 0; r.receiver.Count() < 3*events; n++ { // they come and go all the while
		b := r.replicate(fmt.Sprint("b", n))
		r.settled(keys, patience, a, b)
		b.stop()
		r.settled(keys, patience, a)
	}
	g.Eventually(r.receiver.Count, 2*patience).Should(Equal(events * len(keys)))
	for _, key := range keys {
		path := "/" + key.Name
		g.Expect(most[path].Load()).To(BeNumerically("<=", maxInFlight))
		var times []time.Time
		for _, call := range r.receiver.Calls() {
			if call.Path == path {
				times = append(times, call.Time)
			}
		}
		g.Expect(mostWithin(times, time.Second)).To(BeNumerically("<=", perSecond+perSecond/5), "as measured by the receiver of a busy machine")
	}
}

// mostWithin is most for times that may not be in order.
func mostWithin(times []time.Time, within time.Duration) int {
	slices.SortFunc(times, time.Time.Compare)
	return most(times, within)
}

// What is asked for while rows move is done once.
func TestRequestsDuringHandover(t *testing.T) { onEachEngine(t, testRequestsDuringHandover) }

func testRequestsDuringHandover(t *testing.T, r *rig) {
	g := NewWithT(t)
	keys := r.subscribeMany(10, nil)
	a := r.replicate("a")
	r.settled(keys, patience, a)
	rounds := 0
	for _, ask := range []func() *replica{
		func() *replica { return r.replicate("b") },
		func() *replica { a.stop(); return nil },
	} {
		rounds++
		var asking sync.WaitGroup
		asking.Go(func() {
			for _, key := range keys {
				request := store.Request{Key: key, Type: v1alpha1.RequestTest, Value: fmt.Sprint("round ", rounds)}
				g.Expect(r.store.PutRequest(t.Context(), request)).To(Succeed())
			}
		})
		ask()
		asking.Wait()
		for _, key := range keys {
			g.Eventually(func() store.Answer {
				row, err := r.store.LoadDelivery(t.Context(), key)
				g.Expect(err).NotTo(HaveOccurred())
				return row.Life.Answers[v1alpha1.RequestTest]
			}, patience).Should(And(HaveField("Value", fmt.Sprint("round ", rounds)), HaveField("Result", v1alpha1.RequestDone)))
		}
		g.Expect(r.receiver.Count()).To(Equal(rounds*len(keys)), "each once")
	}
}

// Opt-in mails and notices have one owner as well, from the first one on.
func TestMailsOfReplicas(t *testing.T) { onEachEngine(t, testMailsOfReplicas) }

func testMailsOfReplicas(t *testing.T, r *rig) {
	g := NewWithT(t)
	server := testkit.NewMailServer(t, testkit.MailServerOptions{})
	r.options.Mail = mailOptions(t, server, MailPlain)
	testkit.CreateBound(t, plane.Client, r.store, testkit.List(r.namespace, "newsletter"))
	r.receiver.Answer(http.StatusGone)
	r.subscribe("crm", func(s *v1alpha1.WebhookSubscription) { s.Spec.Notify.Emails = []string{"ops@example.com"} })
	replicas := map[string]*replica{"a": r.replicate("a"), "b": r.replicate("b")}
	for _, one := range replicas {
		g.Eventually(one.joins, patience).Should(BeNumerically(">", 1))
	}
	r.optIn("ada@example.com", nil)
	g.Eventually(func() []string { return recipients(server) }, patience).Should(ConsistOf("ada@example.com", "ops@example.com"))
	owner := ownerOf(store.MailKey(r.list()), []string{"a", "b"})
	g.Eventually(replicas[owner].owned, patience).Should(BeNumerically(">", 0))

	replicas[owner].stop()
	r.optIn("grace@example.com", nil)
	g.Eventually(func() []string { return recipients(server) }, patience).Should(HaveLen(3))
	g.Consistently(server.Count, time.Second).Should(Equal(3), "each once")
	g.Expect(r.receiver.Count()).To(Equal(1), "a callback that is deactivated stays so")
}

// churn is a life of several replicas in which they come and go by chance.
type churn struct {
	*rig
	WithT
	chance   *rand.Rand
	keys     []store.SubscriptionKey
	replicas []*replica
	started  int
	// posted are the ids of each contact's events, in order.
	posted map[string][]string
	// deaths are the times of killings: when the last checkpoint began that the store
	// has, and when the last call had ended.
	deaths []struct{ from, to time.Time }

	mu    sync.Mutex
	down  map[string]bool
	taken []takenCall
}

// takenCall is a call that its receiver took.
type takenCall struct {
	path, id string
	at       time.Time
}

func newChurn(t *testing.T, r *rig, seed uint64) *churn {
	c := &churn{
		rig: r, WithT: *NewWithT(t), chance: rand.New(rand.NewPCG(seed, 1)),
		posted: map[string][]string{}, down: map[string]bool{},
	}
	c.receiver.AnswerWith(c.answer)
	c.options.ShutdownTimeout = patience
	c.keys = c.subscribeMany(8, func(s *v1alpha1.WebhookSubscription) { // none is deactivated, however long it is down
		second, tenSeconds := metav1.Duration{Duration: time.Second}, metav1.Duration{Duration: 10 * time.Second}
		s.Spec.Retry.Intervals = slices.Concat(slices.Repeat([]metav1.Duration{second}, 10), slices.Repeat([]metav1.Duration{tenSeconds}, 20))
	})
	c.begin()
	c.settled(c.keys, patience, c.replicas...)
	return c
}

func (c *churn) answer(writer http.ResponseWriter, call *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down[call.URL.Path] {
		writer.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	c.taken = append(c.taken, takenCall{path: call.URL.Path, id: call.Header.Get(signature.HeaderID), at: time.Now()})
}

func (c *churn) begin() {
	c.replicas = append(c.replicas, c.replicate(fmt.Sprint("replica-", c.started)))
	c.started++
}

// end ends one of the replicas, in order or not.
func (c *churn) end(killed bool) {
	i := c.chance.IntN(len(c.replicas))
	one := c.replicas[i]
	c.replicas = slices.Delete(c.replicas, i, i+1)
	if !killed {
		one.stop()
		return
	}
	one.die()
	c.deaths = append(c.deaths, struct{ from, to time.Time }{one.lastWritten(), time.Now()})
}

// step does something by chance. kills is whether one may be killed.
func (c *churn) step(kills bool) {
	for range c.chance.IntN(4) {
		address := fmt.Sprintf("contact-%d@example.com", c.chance.IntN(12))
		c.posted[address] = append(c.posted[address], c.post(address))
	}
	switch dice := c.chance.IntN(60); {
	case dice < 2 && len(c.replicas) < 4:
		c.begin()
	case dice < 4 && len(c.replicas) > 1:
		c.end(kills && c.chance.IntN(2) == 0)
	case dice < 8:
		c.mu.Lock()
		path := "/" + c.keys[c.chance.IntN(len(c.keys))].Name
		c.down[path] = !c.down[path]
		c.mu.Unlock()
	}
}

// run does steps for a while, and then lets all arrive.
func (c *churn) run(steps int, kills bool) {
	c.t.Helper()
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	total := 0
	for range steps {
		c.step(kills)
		<-pace.C
	}
	for _, ids := range c.posted {
		total += len(ids)
	}
	c.mu.Lock()
	clear(c.down)
	c.mu.Unlock()
	c.Eventually(func() int { return len(c.firsts()) }, 2*patience).Should(Equal(total * len(c.keys)))
	c.t.Logf("%d events to %d callbacks by %d replicas, %d of them killed: %d calls taken",
		total, len(c.keys), c.started, len(c.deaths), len(c.taken))
}

// firsts returns when each event was first taken, by path and id.
func (c *churn) firsts() map[[2]string]time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	firsts := map[[2]string]time.Time{}
	for _, call := range c.taken {
		if _, known := firsts[[2]string{call.path, call.id}]; !known {
			firsts[[2]string{call.path, call.id}] = call.at
		}
	}
	return firsts
}

// check holds what arrived to what is promised: one contact's events first arrive in
// order, and none arrives twice but for those that were on their way to the store
// when their dispatcher was killed.
func (c *churn) check() {
	c.t.Helper()
	firsts := c.firsts()
	for _, key := range c.keys {
		for address, ids := range c.posted {
			var times []time.Time
			for _, id := range ids {
				times = append(times, firsts[[2]string{"/" + key.Name, id}])
			}
			c.Expect(slices.IsSortedFunc(times, time.Time.Compare)).To(BeTrue(), "%s of %s", address, key.Name)
		}
	}
	seen := map[[2]string]bool{}
	var unexplained []string
	for _, call := range c.taken {
		event := [2]string{call.path, call.id}
		if seen[event] && !c.diedWith(firsts[event]) {
			unexplained = append(unexplained, strings.Join(event[:], " "))
		}
		seen[event] = true
	}
	c.Expect(unexplained).To(BeEmpty(), "sent twice without a reason")
}

// diedWith tells whether what arrived then may not have been written because its
// dispatcher was killed.
func (c *churn) diedWith(at time.Time) bool {
	for _, death := range c.deaths {
		// Between its arrival and its outcome a checkpoint may begin, which lacks that.
		if at.After(death.from.Add(-4*checkpointInterval)) && at.Before(death.to) {
			return true
		}
	}
	return false
}

func TestReplicasComeAndGo(t *testing.T) {
	for name, kills := range map[string]bool{"in order": false, "and are killed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onEachEngine(t, func(t *testing.T, r *rig) {
				seed := uint64(time.Now().UnixNano())
				t.Log("seed", seed)
				c := newChurn(t, r, seed)
				c.run(400, kills)
				c.check()
			})
		})
	}
}
