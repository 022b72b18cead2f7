package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/store"
)

// fuse is a real store at which the process dies: after so many checkpoints none
// reaches it any more, and the process does not hear of the last that did.
type fuse struct {
	store.Store
	mu   sync.Mutex
	left int
}

var errKilled = errors.New("the process was killed")

// Checkpoint writes, and burns the fuse.
func (f *fuse) Checkpoint(ctx context.Context, progress []store.Progress) ([]store.SubscriptionKey, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left == 0 {
		return nil, errKilled
	}
	gone, err := f.Store.Checkpoint(ctx, progress)
	if f.left--; f.left == 0 {
		return nil, errKilled
	}
	return gone, err
}

func (f *fuse) blown() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left == 0
}

// week is the life of a subscription whose callback is down for a week, by a clock
// of its own: five retries every 5 minutes, five days of events kept.
type week struct {
	*rig
	WithT
	clock *clocktesting.FakeClock
	crm   *v1alpha1.WebhookSubscription
	stop  func()
	fuse  *fuse // nil where nobody dies

	mu sync.Mutex
	up bool
	// left is how many calls more the callback takes before it goes down by itself;
	// 0 where it does not.
	left  int
	calls []callInWeek
}

// callInWeek is a call that the receiver got.
type callInWeek struct {
	id       string
	at       time.Time
	replayed bool
	taken    bool
}

// newWeek begins a week in which the process dies after so many checkpoints, and
// is followed by one that lives; 0 for one that does not die.
func newWeek(t *testing.T, checkpoints int, edit func(*v1alpha1.WebhookSubscription)) *week {
	w := &week{rig: newRig(t), WithT: *NewWithT(t), clock: clocktesting.NewFakeClock(start)}
	w.options.Clock = w.clock
	w.receiver.AnswerWith(w.answer)
	w.crm = w.subscribe("crm", func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Retry.Intervals = nil     // the documented ones
		s.Spec.RateLimit.MaxInFlight = 2 // one of a replay, so that they arrive as they were sent
		if edit != nil {
			edit(s)
		}
	})
	if checkpoints > 0 {
		w.fuse = &fuse{Store: w.store, left: checkpoints}
		w.options.Store = w.fuse
	}
	w.stop = w.run()
	return w
}

func (w *week) answer(writer http.ResponseWriter, request *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, callInWeek{
		id: request.Header.Get(signature.HeaderID), at: w.clock.Now(),
		replayed: request.Header.Get(headerReplay) == "true", taken: w.up,
	})
	switch {
	case !w.up:
		writer.WriteHeader(http.StatusInternalServerError)
	case w.left > 0:
		w.left--
		w.up = w.left > 0
	}
}

func (w *week) setUp(up bool) { w.setUpFor(up, 0) }

// setUpFor is setUp for so many calls.
func (w *week) setUpFor(up bool, calls int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.up, w.left = up, calls
}

// taken returns the events that the callback took, by when it first did, and
// whether a replay brought them.
func (w *week) taken() (ids []string, replayed []bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, call := range w.calls {
		if call.taken && !slices.Contains(ids, call.id) {
			ids, replayed = append(ids, call.id), append(replayed, call.replayed)
		}
	}
	return ids, replayed
}

// called returns the events that were called with, a call each, but for the first
// of them.
func (w *week) called(but int) (ids []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, call := range w.calls[but:] {
		ids = append(ids, call.id)
	}
	return ids
}

// until lets time pass, a little at once, until what was written says so. A
// process that has died is followed by another.
func (w *week) until(says func(store.Delivery) bool) store.Delivery {
	w.t.Helper()
	var row store.Delivery
	w.Eventually(func() bool {
		if w.fuse != nil && w.fuse.blown() {
			w.stop()
			w.fuse, w.options.Store = nil, nil
			w.stop = w.run()
		}
		if row = w.delivery(w.crm)(); says(row) {
			return true
		}
		w.clock.Step(checkpointInterval)
		return false
	}, patience, 2*time.Millisecond).Should(BeTrue(), func() string { return fmt.Sprintf("%+v", row) })
	return row
}

// attempts is how many attempts of the first open event were written.
func attempts(row store.Delivery) int {
	if len(row.Open) == 0 {
		return 0
	}
	return row.Open[0].Attempts
}

// fail has two events fail until the callback is deactivated, and returns their
// ids.
func (w *week) fail() (ids []string) {
	w.t.Helper()
	ids = append(ids, w.postAt("ada@example.com", w.clock.Now()))
	w.until(func(row store.Delivery) bool { return attempts(row) == 1 })
	for n := range 5 {
		if n == 2 {
			ids = append(ids, w.postAt("grace@example.com", w.clock.Now()))
			w.until(func(row store.Delivery) bool { return len(row.Open) == 2 && row.Open[1].Attempts > 0 })
		}
		w.clock.SetTime(w.delivery(w.crm)().Open[0].NextAttempt) // however long the disk took
		w.until(func(row store.Delivery) bool { return attempts(row) == n+2 })
	}
	row := w.until(func(row store.Delivery) bool { return row.Life.Deactivation != nil })
	w.Expect(row.Open).To(HaveLen(2), "they are in the buffer")
	return ids
}

// wait lets seven days pass with an event each, and returns their ids and times.
func (w *week) wait() (ids []string, times []time.Time) {
	w.t.Helper()
	deactivated := w.delivery(w.crm)().Life.Deactivation.At
	for day := range 7 {
		w.clock.SetTime(deactivated.Add(time.Duration(day)*24*time.Hour + 12*time.Hour))
		address := []string{"ada@example.com", fmt.Sprintf("day%d@example.com", day)}[day%2]
		times = append(times, w.clock.Now())
		ids = append(ids, w.postAt(address, w.clock.Now()))
		w.until(func(row store.Delivery) bool { return row.Life.Owed.Events+row.Life.Deactivation.Lost == int64(day)+1 })
	}
	w.clock.Step(24 * time.Hour)
	return ids, times
}

func (w *week) reactivate(value string, replay bool) store.Delivery {
	w.t.Helper()
	w.Expect(w.store.PutRequest(w.t.Context(), store.Request{
		Key: keyOf(w.crm), Type: v1alpha1.RequestReactivate, Value: value, Replay: replay,
	})).To(Succeed())
	return w.until(func(row store.Delivery) bool { return row.Life.Answers[v1alpha1.RequestReactivate].Value == value })
}

// live goes through the whole week and on to what comes after it.
func (w *week) live(replay bool) {
	w.t.Helper()
	unsent := w.fail()
	before := len(w.called(0))
	days, times := w.wait()
	row := w.delivery(w.crm)()
	w.Expect(row.Life.Deactivation).To(HaveValue(And(
		HaveField("Lost", int64(2)), HaveField("LostFrom", times[5].UTC()), HaveField("LostTo", times[6].UTC()))))
	w.Expect(w.called(before)).To(Or(BeEmpty(), Equal(unsent[1:])),
		"nothing is sent to a callback that was deactivated, but for the call that was on its way")

	w.setUp(true)
	w.reactivate("day 8", replay)
	want := append(unsent, days[:5]...)
	if !replay {
		want = nil
	}
	buffered := len(want)
	// An event of one who is in the replay, and one of another.
	want = append(want, w.postAt("ada@example.com", w.clock.Now()), w.postAt("zoe@example.com", w.clock.Now()))
	w.until(func(row store.Delivery) bool {
		ids, _ := w.taken()
		return len(ids) == len(want) && len(row.Open) == 0 && !row.Life.Replay.Running()
	})
	ids, replayed := w.taken()
	w.Expect(ids).To(ConsistOf(want))
	var again []string
	for i, id := range ids {
		if replayed[i] {
			again = append(again, id)
		}
	}
	w.Expect(slices.Equal(again, want[:buffered])).To(BeTrue(), "what was unsent and days 1 to 5, in order: %v", again)
	w.Expect(slices.Index(ids, want[len(want)-2])).To(BeNumerically(">=", slices.Index(ids, days[4])), "ada's in order")
}

// TestWeek is what the documentation promises, at its times.
func TestWeek(t *testing.T) {
	for name, replay := range map[string]bool{"with the buffer": true, "without it": false} {
		t.Run(name, func(t *testing.T) {
			w := newWeek(t, 0, nil)
			w.live(replay)
			seen := map[string]int{}
			var ada []time.Duration
			for _, call := range w.calls {
				if seen[call.id]++; call.id == w.calls[0].id && !call.taken {
					ada = append(ada, call.at.Sub(w.calls[0].at).Round(time.Minute))
				}
				if call.taken {
					w.Expect(seen).NotTo(HaveKeyWithValue(call.id+" taken", 1), "each once")
					seen[call.id+" taken"]++
				}
			}
			w.Expect(ada).To(Equal([]time.Duration{
				0, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 20 * time.Minute, 25 * time.Minute,
			}))
			row := w.delivery(w.crm)()
			if replay {
				w.Expect(row.Life.Replay).To(HaveValue(And(
					HaveField("Of", v1alpha1.ReplayOfBuffer), HaveField("Total", int64(7)),
					HaveField("Sent", int64(7)), HaveField("Failed", BeZero()), HaveField("Interrupted", BeFalse()))))
			} else {
				w.Expect(row.Life.Replay).To(BeNil())
			}
		})
	}
}

// TestWeekOfDeaths lives the week once for each checkpoint that it writes, with a
// process that is killed right after that.
func TestWeekOfDeaths(t *testing.T) {
	for name, replay := range map[string]bool{"with the buffer": true, "without it": false} {
		const enough = 1000
		whole := newWeek(t, enough, nil)
		whole.live(replay)
		whole.stop()
		for checkpoint := range enough - whole.fuse.left {
			t.Run(fmt.Sprintf("%s, killed after checkpoint %d", name, checkpoint+1), func(t *testing.T) {
				t.Parallel()
				newWeek(t, checkpoint+1, nil).live(replay)
			})
		}
	}
}

// TestInterruptedReplay has the callback go down again in the middle of its
// replay: what was left is kept, and sent once it is reactivated again.
func TestInterruptedReplay(t *testing.T) {
	w := newWeek(t, 0, func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Replay.RequestsPerSecond = 1
		s.Spec.Retry.Intervals = []metav1.Duration{{Duration: time.Minute}}
	})
	var want []string
	want = append(want, w.postAt("ada@example.com", w.clock.Now()))
	w.until(func(row store.Delivery) bool { return row.Life.Deactivation != nil })
	for n := range 20 {
		want = append(want, w.postAt(fmt.Sprintf("n%d@example.com", n%15), w.clock.Now()))
	}
	w.until(func(row store.Delivery) bool { return row.Life.Owed.Events == 20 })
	w.setUpFor(true, 6)
	w.reactivate("one", true)
	row := w.until(func(row store.Delivery) bool { return row.Life.Deactivation != nil })
	w.Expect(row.Life.Replay).To(HaveValue(And(HaveField("Interrupted", BeTrue()), HaveField("Total", int64(21)))))
	taken, _ := w.taken()
	w.Expect(int(row.Life.Owed.Events)+len(row.Open)+len(taken)).To(Equal(21), "nothing is lost of it")

	want = append(want, w.postAt("late@example.com", w.clock.Now()))
	w.until(func(later store.Delivery) bool { return later.Life.Owed.Events == row.Life.Owed.Events+1 })
	w.setUp(true)
	w.reactivate("two", true)
	row = w.until(func(row store.Delivery) bool { return !row.Life.Replay.Running() })
	w.Expect(row.Life.Replay.Total).To(Equal(row.Life.Replay.Sent))
	taken, _ = w.taken()
	w.Expect(taken).To(Equal(want))
}
