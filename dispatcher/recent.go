package dispatcher

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"postbus.dev/postbus/internal/store"
)

const (
	// recentInterval is how often the attempts of one subscription are written at
	// most. It is shorter than the interval at which the controller tells status,
	// so that one more write of it is seldom needed.
	recentInterval = 4 * time.Second
	// recentBatch is how many subscriptions share a commit of attempts, so that
	// no other change waits long for it.
	recentBatch = 50
)

// recentAttempts has the attempts that were made and are not written yet. They
// are told to people and nothing depends on them, so they are written beside the
// checkpoints, and a process that dies may lose the last ones. A subscription
// whose attempts are written takes no room here.
type recentAttempts struct {
	store store.Attempts

	mu     sync.Mutex
	unsaid map[store.SubscriptionKey]*store.AttemptLog
	// notBefore is when attempts of a subscription may be written again.
	notBefore map[store.SubscriptionKey]time.Time
}

func newRecentAttempts(attempts store.Attempts) *recentAttempts {
	return &recentAttempts{
		store: attempts, unsaid: map[store.SubscriptionKey]*store.AttemptLog{}, notBefore: map[store.SubscriptionKey]time.Time{},
	}
}

// note takes note of an attempt of a subscription whose row has this token.
func (a *recentAttempts) note(key store.SubscriptionKey, token int64, attempt store.Attempt) {
	a.mu.Lock()
	defer a.mu.Unlock()
	log := a.unsaid[key]
	if log == nil || log.Token != token {
		log = &store.AttemptLog{Key: key, Token: token}
		a.unsaid[key] = log
	}
	log.Attempts = append(log.Attempts, attempt)
	if len(log.Attempts) >= 2*store.MaxAttempts { // seldom, because it copies
		log.Attempts = slices.Clone(store.LastAttempts(log.Attempts, store.MaxAttempts))
	}
}

// write writes what is due; all there is when it is the last time. What could not
// be written is written the next time.
func (a *recentAttempts) write(ctx context.Context, now time.Time, last bool) {
	a.save(ctx, a.take(now, last))
}

func (a *recentAttempts) save(ctx context.Context, logs []store.AttemptLog) {
	for some := range slices.Chunk(logs, recentBatch) {
		if err := a.store.AddAttempts(ctx, some); err != nil {
			if ctx.Err() == nil {
				logr.FromContextOrDiscard(ctx).Error(err, "attempts were not written, trying again", "subscriptions", len(some))
			}
			a.putBack(some)
		}
	}
}

// writeOf writes all there is of these subscriptions, whose rows are about to be
// left to others. What could not be written is written the next time, unless the row
// has another owner by then.
func (a *recentAttempts) writeOf(ctx context.Context, keys map[store.SubscriptionKey]struct{}) {
	a.mu.Lock()
	var last []store.AttemptLog
	for key := range keys {
		if log := a.unsaid[key]; log != nil {
			last = append(last, *log)
			delete(a.unsaid, key)
		}
		delete(a.notBefore, key)
	}
	a.mu.Unlock()
	a.save(ctx, last)
}

// take returns what is due, at most a batch of it unless it is the last time.
func (a *recentAttempts) take(now time.Time, last bool) (due []store.AttemptLog) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key, at := range a.notBefore {
		if !at.After(now) {
			delete(a.notBefore, key)
		}
	}
	for key, log := range a.unsaid {
		if _, early := a.notBefore[key]; early && !last {
			continue
		}
		if len(due) == recentBatch && !last {
			break
		}
		due = append(due, *log)
		delete(a.unsaid, key)
		a.notBefore[key] = now.Add(recentInterval)
	}
	return due
}

func (a *recentAttempts) putBack(logs []store.AttemptLog) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, log := range logs {
		switch later := a.unsaid[log.Key]; {
		case later == nil:
			a.unsaid[log.Key] = &log
		case later.Token == log.Token:
			later.Attempts = store.LastAttempts(slices.Concat(log.Attempts, later.Attempts), store.MaxAttempts)
		}
	}
}

// attemptOf is what people are told of an attempt.
func attemptOf(made call, o outcome, began, ended time.Time) store.Attempt {
	return store.Attempt{
		Time: began.UTC().Truncate(time.Microsecond), EventID: made.event.ID, EventType: made.event.Type, Number: made.number,
		Outcome: o.label(), HTTPStatus: o.status, Duration: ended.Sub(began), Replay: made.replayed, Test: made.test,
	}
}
