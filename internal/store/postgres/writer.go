package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/batch"
)

// writer appends to the log, on one goroutine.
type writer struct {
	store *Store
	queue *batch.Queue[*job]
}

// job is what one caller wants. It shares a transaction with others.
type job struct {
	ctx   context.Context
	steps []step
	// overdue is when the job has waited for its turn for too long.
	overdue time.Time

	// results has what became of each step, unless err is set: nothing was done then.
	results []store.ChangeResult
	err     error
}

// step is a change of a contact or, where raise is set, an operational event. Of
// the change that has Once alone.
type step struct {
	change store.Change
	raise  *contact.Event
}

func newWriter(s *Store) *writer {
	w := &writer{store: s}
	w.queue = batch.NewQueue(w.runBatch)
	return w
}

// close finishes what is queued.
func (w *writer) close() { w.queue.Close() }

// do makes steps in one commit, and returns once that is durable.
func (w *writer) do(ctx context.Context, steps []step) ([]store.ChangeResult, error) {
	j := &job{ctx: ctx, steps: steps, overdue: time.Now().Add(patience)}
	if err := w.queue.Do(ctx, j); err != nil {
		return nil, err
	}
	return j.results, j.err
}

// errOverdue: the jobs before it have taken all the time that there was.
var errOverdue = errors.New("it has been busy for too long")

// runBatch sets the results of each job, or its error.
func (w *writer) runBatch(batch []*job) {
	jobs := make([]*job, 0, len(batch))
	for _, j := range batch {
		switch {
		case j.ctx.Err() != nil:
			j.err = j.ctx.Err() // nobody waits for it any more
		case time.Now().After(j.overdue):
			j.err = fmt.Errorf("%w: %w", store.ErrUnavailable, errOverdue)
		default:
			jobs = append(jobs, j)
		}
	}
	if len(jobs) == 0 {
		return
	}
	err := w.commit(jobs)
	if err != nil && len(jobs) > 1 && !isAway(err) {
		for _, j := range jobs { // one of them is at fault
			w.runBatch([]*job{j})
		}
		return
	}
	for _, j := range jobs {
		if err != nil {
			j.results, j.err = nil, fmt.Errorf("%w: %w", store.ErrUnavailable, err)
		}
	}
}

// commit makes the steps of jobs in one transaction. It returns nil when that is
// durable; each job has its results then.
func (w *writer) commit(jobs []*job) error {
	ctx, cancel := context.WithTimeout(w.store.lifetime, patience)
	defer cancel()
	tx, err := w.store.lockLog(ctx, jobs)
	if err != nil {
		return err
	}
	made, err := tx.decide(ctx, jobs)
	if err != nil {
		release(ctx, tx.conn)
		return err
	}
	batch, err := made.statements(w.store)
	if err != nil {
		release(ctx, tx.conn)
		return err
	}
	if err := w.store.finish(ctx, tx.conn, batch); err != nil {
		return err
	}
	w.store.appended(made)
	results := made.results
	for _, j := range jobs {
		j.results, results = slices.Clip(results[:len(j.steps)]), results[len(j.steps):]
	}
	return nil
}

// appended takes note of what was committed.
func (s *Store) appended(made *plan) {
	s.log.Reach(made.head)
	if made.newDay() {
		s.days.begin(made.stored.day, made.stored.head+1)
	}
}
