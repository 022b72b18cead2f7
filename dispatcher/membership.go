package dispatcher

import (
	"context"
	"crypto/rand"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"postbus.dev/postbus/internal/store"
)

// The times of membership are real ones, and not by Options.Clock: the store tells
// the living from the dead by its own clock, which no test can turn forward.
const (
	// livesFor is how long a dispatcher lives after it has joined. The others see
	// that one was killed no later than joinInterval after that, so its rows have
	// another owner in less than 10 s.
	livesFor = 6 * time.Second
	// joinInterval is how often a dispatcher joins: it lives on when three joins
	// in a row fail.
	joinInterval = 1500 * time.Millisecond
	// joinRetry is the wait after a join that failed.
	joinRetry = 500 * time.Millisecond
	// joinTimeout ends a join that hangs while there is time for another.
	joinTimeout = livesFor / 2
	// ownersPause is how long rows that are released one after the other are
	// waited for, to look at them together.
	ownersPause = 100 * time.Millisecond
)

// life is a time during which a dispatcher is one of the living without a break,
// as far as it can know. Rows are claimed in a life, and end to be owned with it:
// whatever the process was doing meanwhile, others may have them.
type life struct {
	// joined is when the last join that succeeded was begun.
	joined atomic.Pointer[time.Time]
}

func newLife(joined time.Time) *life {
	l := &life{}
	l.joined.Store(&joined)
	return l
}

// lasts tells whether the life has not ended. It is cheap, and true for no longer
// than the store has the dispatcher for alive: the store counts from later on. Both
// of Go's clocks are asked, for the monotonic one stands still while a machine is
// suspended.
func (l *life) lasts() bool {
	now, joined := time.Now(), *l.joined.Load()
	return now.Sub(joined) < livesFor && now.Round(0).Sub(joined.Round(0)) < livesFor
}

// prolong notes a join that was begun at this time and has succeeded. It returns
// false when that was too late.
func (l *life) prolong(joined time.Time) bool {
	if !l.lasts() {
		return false
	}
	l.joined.Store(&joined)
	return true
}

// membership keeps a dispatcher one of the living, and knows the others.
type membership struct {
	owners  store.Owners
	metrics *metrics
	// name is the dispatcher's, for the life of the process.
	name string
	// changed is called with news of the owners: moved when rows may have to be
	// owned by others now, false when it may be that some were released.
	changed func(moved bool)
	// wake asks for a join before its time.
	wake chan struct{}

	mu sync.Mutex
	// candidates may own rows, as far as the last join told.
	candidates []string
	// life is the present one, nil before the first join.
	life *life
}

func newMembership(options *Options, metrics *metrics) *membership {
	name := options.Name
	if name == "" {
		host, _ := os.Hostname() // only for people to read
		name = host + "-" + strings.ToLower(rand.Text()[:8])
	}
	return &membership{owners: options.Store, metrics: metrics, name: name, wake: make(chan struct{}, 1)}
}

// lifeFor returns the life in which the dispatcher ought to own a row, nil when it
// ought not to.
func (m *membership) lifeFor(key store.SubscriptionKey) *life {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.life == nil || !m.life.lasts() || ownerOf(key, m.candidates) != m.name {
		return nil
	}
	return m.life
}

// lives tells whether the dispatcher is one of the living.
func (m *membership) lives() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.life != nil && m.life.lasts()
}

// run joins again and again until the context ends. Once ending is closed the
// others are told that they are to take the rows.
func (m *membership) run(ctx context.Context, ending <-chan struct{}) {
	var watcher sync.WaitGroup
	watcher.Go(func() { m.watch(ctx) })
	defer watcher.Wait()
	names, broken := []string{m.name}, false
	for ctx.Err() == nil {
		wait := joinInterval
		err := m.join(ctx, names)
		if err != nil && ctx.Err() == nil {
			wait = joinRetry
			m.metrics.joinErrors.Inc()
			if !broken {
				logr.FromContextOrDiscard(ctx).Error(err, "dispatcher can't tell others that it lives, trying again")
			}
		}
		broken = err != nil
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-m.wake:
		case <-timer.C:
		case <-ending:
			ending, names = nil, append(names, m.name+leaving)
		}
		timer.Stop()
	}
}

// join makes the dispatcher one of the living, under these names.
func (m *membership) join(ctx context.Context, names []string) error {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	began := time.Now()
	var living []string
	for _, name := range names {
		var err error
		if living, err = m.owners.Join(ctx, name, livesFor); err != nil {
			return err
		}
	}
	m.changed(m.note(began, living))
	return nil
}

// note takes note of a join. It returns whether rows may have to be owned by
// others now, or, after a break, be claimed anew.
func (m *membership) note(began time.Time, living []string) (moved bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	candidates := candidatesOf(living)
	moved = !slices.Equal(candidates, m.candidates)
	m.candidates = candidates
	if m.life == nil || !m.life.prolong(began) {
		m.life, moved = newLife(began), true
	}
	return moved
}

// watch has the dispatcher join at once when others come or go, or release rows,
// until the context ends.
func (m *membership) watch(ctx context.Context) {
	var generation int64
	for ctx.Err() == nil {
		wait := ownersPause
		risen, err := m.owners.WaitForOwners(ctx, generation)
		if err != nil {
			wait = joinInterval // joining alone will do meanwhile, and tells of the fault
		} else {
			generation = risen
			select {
			case m.wake <- struct{}{}:
			default: // it is going to join anyway
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// leave makes the dispatcher one of the living no more: it owns nothing then.
func (m *membership) leave(ctx context.Context) {
	for _, name := range []string{m.name, m.name + leaving} {
		if err := m.owners.Leave(ctx, name); err != nil {
			logr.FromContextOrDiscard(ctx).Error(err, "dispatcher can't tell others that it ends, they notice by themselves", "within", livesFor.String())
			return
		}
	}
}
