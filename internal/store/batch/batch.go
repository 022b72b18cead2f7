// Package batch answers: which callers share one commit?
//
// An engine has one goroutine that appends to the log. What queues up while that
// commits becomes its next batch, so there is no timer: a caller who is alone does
// not wait, and many callers pay for one commit together.
//
//	callers ──Do──▶ queue ──▶ run (one batch at a time) ──▶ callers go on
package batch

import (
	"context"
	"fmt"
	"sync"

	"postbus.dev/postbus/internal/store"
)

const (
	// queueSize is how many jobs may wait for their turn; more callers wait to get
	// into the queue.
	queueSize = 4096
	// maxBatch is how many jobs share one commit at most. It bounds how long a job
	// waits for those before it, in this process and in others.
	maxBatch = 1024
)

// Queue has the jobs of any number of callers done on one goroutine. J is best a
// pointer: what became of a job is written into it.
type Queue[J any] struct {
	run     func(batch []J)
	stopped sync.WaitGroup

	// sending guards closed: whoever sends to the queue holds it for reading.
	sending sync.RWMutex
	closed  bool
	queue   chan queued[J]
}

// queued is a job whose caller waits until done is closed.
type queued[J any] struct {
	job  J
	done chan struct{}
}

// NewQueue returns a queue that has run do the jobs, one batch after the other: 1 to
// 1024 of them, in the order in which they came. run must not keep the slice. Close
// must be called in the end.
func NewQueue[J any](run func(batch []J)) *Queue[J] {
	q := &Queue[J]{run: run, queue: make(chan queued[J], queueSize)}
	q.stopped.Go(q.loop)
	return q
}

// Do returns nil once the job's batch was run. A job that is in the queue is run
// even when its context has ended by then; it is for run to leave it out. Otherwise
// it never will be, and the error is store.ErrUnavailable (wrapped), when the queue
// is closed, or the context's.
func (q *Queue[J]) Do(ctx context.Context, job J) error {
	waiting := queued[J]{job: job, done: make(chan struct{})}
	if err := q.send(ctx, waiting); err != nil {
		return err
	}
	<-waiting.done
	return nil
}

func (q *Queue[J]) send(ctx context.Context, waiting queued[J]) error {
	q.sending.RLock()
	defer q.sending.RUnlock()
	if q.closed {
		return fmt.Errorf("%w: it is closed", store.ErrUnavailable)
	}
	select {
	case q.queue <- waiting:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close takes no more jobs, and returns once those in the queue are done. It may be
// called again.
func (q *Queue[J]) Close() {
	q.sending.Lock()
	if !q.closed {
		close(q.queue)
	}
	q.closed = true
	q.sending.Unlock()
	q.stopped.Wait()
}

func (q *Queue[J]) loop() {
	batch, done := make([]J, 0, maxBatch), make([]chan struct{}, 0, maxBatch)
	for first := range q.queue {
		batch, done = append(batch[:0], first.job), append(done[:0], first.done)
		for len(batch) < maxBatch && len(q.queue) > 0 { // nobody else receives
			next := <-q.queue
			batch, done = append(batch, next.job), append(done, next.done)
		}
		q.run(batch)
		for _, d := range done {
			close(d)
		}
		clear(batch) // nobody needs what they hold any more
	}
}
