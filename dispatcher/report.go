package dispatcher

import (
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/store"
)

// report is what a scrape is told of one runner. But for what is counted it is made
// when somebody asks, so it can't be out of step with what the runner does.
type report struct {
	key   store.SubscriptionKey
	state v1alpha1.SubscriptionState
	// pending is how many events are not delivered, as status.pendingEvents tells.
	pending int64
	// oldest is when the first of them happened; zero when none waits. What a replay
	// sends is not among them.
	oldest time.Time
	// bodyBytes and pendingBytes are what it holds of the budgets.
	bodyBytes, pendingBytes int64
	// setAside is how many events were set aside since the runner was made.
	setAside int
	// expressions is the CPU time that the filter and the template have used since then.
	expressions time.Duration
	// attempts are those since then, by outcome, and latency is how long deliveries
	// took; nil for mails.
	attempts map[string]int
	latency  prometheus.Metric
}

// report tells of the runner as it is now.
func (r *runner) report() report {
	r.mu.Lock()
	told := report{
		key: r.key, state: r.state(), pending: int64(len(r.ledger.open)) + r.ledger.life.Owed.Events + r.behind(),
		oldest: r.ledger.oldest(), setAside: r.ledger.setAsides,
		bodyBytes: r.bodies.used, pendingBytes: r.ledger.pending.used,
	}
	if first := r.inbox.first(); told.oldest.IsZero() && first != nil {
		told.oldest = first.Time
	}
	if told.oldest.IsZero() && r.lag.events > 0 {
		told.oldest = r.lag.oldestTime
	}
	r.mu.Unlock()
	if r.budget != nil {
		told.expressions = r.budget.spent()
	}
	if r.tally != nil {
		told.attempts, told.latency = r.tally.count(), r.tally.latency
	}
	return told
}

// state is where the subscription stands, by the rules of the controller that tells
// it in status. mu is held.
func (r *runner) state() v1alpha1.SubscriptionState {
	switch {
	case !r.sub.accepted:
		return v1alpha1.StatePending
	case r.ledger.life.Deactivation != nil:
		return v1alpha1.StateFailed
	case r.sub.held:
		return v1alpha1.StateSuspended
	case !r.ledger.health.FailingSince.IsZero():
		return v1alpha1.StateFailing
	case r.ledger.life.Replay.Running():
		return v1alpha1.StateReplaying
	default:
		return v1alpha1.StateActive
	}
}

// oldest returns when the first of the events happened that wait for their delivery;
// zero when none does. An event that a replay sends is as old as somebody wished it.
func (l *ledger) oldest() (at time.Time) {
	deactivated := l.life.Deactivation
	for _, e := range l.open {
		if e.replayed && deactivated == nil {
			continue
		}
		if at.IsZero() || e.event.Time.Before(at) {
			at = e.event.Time
		}
	}
	if at.IsZero() && deactivated != nil && l.life.Owed.Events > 0 {
		at = deactivated.At // the buffer begins there
	}
	return at
}

// tally counts the calls of one subscription's callback, as long as its runner is
// there.
type tally struct {
	latency prometheus.Histogram

	mu       sync.Mutex
	attempts map[string]int
}

func newTally(latency prometheus.Histogram) *tally {
	return &tally{latency: latency, attempts: map[string]int{outcomeDelivered: 0}}
}

// note counts a call, of an event that was so old when it ended. How late a replay
// sends an event says nothing about the way there.
func (t *tally) note(made call, o outcome, age time.Duration) {
	if o.verdict == aborted {
		return
	}
	t.mu.Lock()
	t.attempts[o.label()]++
	t.mu.Unlock()
	if o.verdict == delivered && !made.replayed {
		t.latency.Observe(max(0, age.Seconds()))
	}
}

func (t *tally) count() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.attempts)
}
