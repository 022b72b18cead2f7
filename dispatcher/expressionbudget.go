package dispatcher

import (
	"context"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"

	"postbus.dev/postbus/internal/cputime"
)

const (
	// expressionShare is the part of one CPU that the expressions of a subscription may use on
	// average, and expressionBurst what they may use at once after a quiet time. A usual filter
	// takes some 5 µs, so 10 % are 20,000 events a second.
	expressionShare = 0.1
	expressionBurst = time.Second
	// lightShare and lightBurst are what they may use without a place in the lane, which
	// subscriptions share. A usual filter stays below it up to 4,000 events a second, so it
	// never waits for those that are costly.
	lightShare = 0.02
	lightBurst = 20 * time.Millisecond
	// overspentInterval is how often the log says at most that a subscription overspends.
	overspentInterval = time.Minute
)

// expressionBudget bounds the CPU time that one subscription uses for its filter and its
// template. At most one of its expressions is evaluated at a time. A subscription that has
// used up its budget waits, and its events wait in the log; no other subscription does.
type expressionBudget struct {
	clock  clock.Clock
	logger logr.Logger
	// lane has room for those that are evaluated at a time beyond the light share of each
	// subscription. All subscriptions of a dispatcher share it, so that many costly expressions
	// leave CPUs for the rest.
	lane chan struct{}
	// total counts the seconds of all subscriptions.
	total prometheus.Counter
	// turn is held while an expression is evaluated. Waiting for it ends with the context.
	turn chan struct{}
	// before, when not nil, is called before each evaluation.
	before func()

	// mu is held for no evaluation. A runner's lock comes before it.
	mu           sync.Mutex
	whole, light allowance
	used         time.Duration
	toldAt       time.Time
}

func newExpressionBudget(clock clock.Clock, logger logr.Logger, lane chan struct{}, total prometheus.Counter) *expressionBudget {
	now := clock.Now()
	return &expressionBudget{
		clock: clock, logger: logger, lane: lane, total: total, turn: make(chan struct{}, 1),
		whole: allowance{share: expressionShare, burst: expressionBurst, left: expressionBurst, at: now},
		light: allowance{share: lightShare, burst: lightBurst, left: lightBurst, at: now},
	}
}

// run evaluates once the budget allows it, and charges the CPU time. The error is the
// context's, when that ends before.
func (b *expressionBudget) run(ctx context.Context, evaluate func()) error {
	if b == nil { // of mails, which have no expressions
		evaluate()
		return nil
	}
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := b.wait(ctx); err != nil {
		return err
	}
	if !b.isLight() {
		select {
		case b.lane <- struct{}{}:
			defer func() { <-b.lane }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if b.before != nil {
		b.before()
	}
	b.spend(cputime.Of(evaluate))
	return nil
}

// wait returns when the budget is not overspent.
func (b *expressionBudget) wait(ctx context.Context) error {
	for {
		now := b.clock.Now()
		missing := b.next(now).Sub(now)
		if missing <= 0 {
			return ctx.Err()
		}
		b.tell(now)
		sleep(ctx, b.clock, missing)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// next returns when an expression may be evaluated, at the earliest now.
func (b *expressionBudget) next(now time.Time) time.Time {
	if b == nil {
		return now
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return now.Add(b.whole.missing(now))
}

// allows reports whether an expression may be evaluated now.
func (b *expressionBudget) allows(now time.Time) bool { return !b.next(now).After(now) }

// isLight reports whether the next evaluation needs no place in the lane.
func (b *expressionBudget) isLight() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.light.missing(b.clock.Now()) == 0
}

// spend charges CPU time.
func (b *expressionBudget) spend(used time.Duration) {
	b.total.Add(used.Seconds())
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.clock.Now()
	b.whole.spend(now, used)
	b.light.spend(now, used)
	b.used += used
}

// spent returns the CPU time that was used so far.
func (b *expressionBudget) spent() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// tell logs that the budget is overspent, now and then.
func (b *expressionBudget) tell(now time.Time) {
	b.mu.Lock()
	due := now.Sub(b.toldAt) >= overspentInterval
	if due {
		b.toldAt = now
	}
	b.mu.Unlock()
	if due {
		b.logger.Info("Expressions use more CPU time than they may, events wait", "share", expressionShare)
	}
}

// allowance is an amount of time that grows by a share of what passes, up to a burst. It
// can be overspent.
type allowance struct {
	share float64
	burst time.Duration
	left  time.Duration
	at    time.Time
}

// refill adds what has accrued.
func (a *allowance) refill(now time.Time) {
	if passed := now.Sub(a.at); passed > 0 {
		a.left = min(a.burst, a.left+time.Duration(a.share*float64(passed)))
		a.at = now
	}
}

func (a *allowance) spend(now time.Time, used time.Duration) {
	a.refill(now)
	a.left -= used
}

// missing returns the time until something is left, 0 when something is.
func (a *allowance) missing(now time.Time) time.Duration {
	a.refill(now)
	if a.left > 0 {
		return 0
	}
	return time.Duration(float64(1-a.left) / a.share)
}
