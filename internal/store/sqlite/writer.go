package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"postbus.dev/postbus/internal/store"
)

const (
	// queueSize is how many jobs may wait for the writer; more callers wait to
	// get into the queue.
	queueSize = 4096
	// maxBatch is how many jobs share one commit at most. It bounds how long a
	// job waits for those before it.
	maxBatch = 1024
)

// writer commits all changes, on one goroutine. There is no timer: a batch is
// what queued up while the last one was being committed.
//
//	callers ──do──▶ queue ──▶ loop ──▶ commit (one transaction a batch) ──▶ callers go on
type writer struct {
	db      *sql.DB
	tx      *transaction
	stopped sync.WaitGroup

	// sending guards closed: whoever sends to the queue holds it for reading.
	sending sync.RWMutex
	closed  bool
	queue   chan *job

	// head is the position of the newest committed event.
	head atomic.Int64
	// growing guards grown, which is closed and replaced when head rises.
	growing sync.Mutex
	grown   chan struct{}
}

// job is one change. It shares a transaction with others. An error that is a
// refusal says that the job has written nothing, and concerns nobody else;
// after any other error the transaction is rolled back, and its jobs run again,
// each alone.
type job struct {
	ctx  context.Context
	run  func(tx *transaction) error
	err  error
	done chan struct{}
}

// refusal is an error of a job that has written nothing.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

func (w *writer) start(ctx context.Context) error {
	conn, err := w.db.Conn(ctx)
	if err != nil {
		return err
	}
	if w.tx, err = newTransaction(ctx, conn); err != nil {
		return err
	}
	w.head.Store(w.tx.head)
	w.queue = make(chan *job, queueSize)
	w.grown = make(chan struct{})
	w.stopped.Go(w.loop)
	return nil
}

// close finishes what is queued and frees the connection.
func (w *writer) close() error {
	w.sending.Lock()
	if w.queue != nil && !w.closed {
		close(w.queue)
	}
	w.closed = true
	w.sending.Unlock()
	w.stopped.Wait()
	var errs []error
	if w.tx != nil {
		errs = append(errs, w.tx.close())
	}
	return errors.Join(append(errs, w.db.Close())...)
}

// do runs a change and returns once it is durable, or the reason why nothing
// was changed.
func (w *writer) do(ctx context.Context, run func(tx *transaction) error) error {
	j := &job{ctx: ctx, run: run, done: make(chan struct{})}
	if err := w.send(j); err != nil {
		return err
	}
	<-j.done
	return j.err
}

func (w *writer) send(j *job) error {
	w.sending.RLock()
	defer w.sending.RUnlock()
	if w.closed {
		return fmt.Errorf("%w: it is closed", store.ErrUnavailable)
	}
	select {
	case w.queue <- j:
		return nil
	case <-j.ctx.Done():
		return j.ctx.Err()
	}
}

func (w *writer) loop() {
	batch := make([]*job, 0, maxBatch)
	for first := range w.queue {
		batch = append(batch[:0], first)
		for len(batch) < maxBatch && len(w.queue) > 0 { // nobody else receives
			batch = append(batch, <-w.queue)
		}
		w.runBatch(batch)
		for _, j := range batch {
			close(j.done)
		}
	}
}

// runBatch sets the error of each job.
func (w *writer) runBatch(batch []*job) {
	err := w.commit(batch)
	if err != nil && len(batch) > 1 {
		for _, j := range batch {
			w.runBatch([]*job{j})
		}
		return
	}
	if err != nil {
		batch[0].err = fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
}

// commit runs jobs in one transaction. It returns nil when that is durable;
// each job's error then tells whether the job was refused.
func (w *writer) commit(batch []*job) error {
	if err := w.tx.begin(); err != nil {
		return err
	}
	for _, j := range batch {
		if j.err = j.ctx.Err(); j.err != nil {
			continue // nobody waits for it any more
		}
		j.err = j.run(w.tx)
		var refused refusal
		if j.err != nil && !errors.As(j.err, &refused) {
			return errors.Join(j.err, w.tx.rollback())
		}
	}
	if err := w.tx.commit(); err != nil {
		return errors.Join(err, w.tx.rollback())
	}
	w.publish(w.tx.head)
	return nil
}

// publish lets readers know of the newest committed event.
func (w *writer) publish(head int64) {
	if head == w.head.Load() {
		return
	}
	w.growing.Lock()
	defer w.growing.Unlock()
	w.head.Store(head)
	close(w.grown)
	w.grown = make(chan struct{})
}

// waitForEvents returns nil once head is above this position.
func (w *writer) waitForEvents(ctx context.Context, after int64) error {
	for {
		w.growing.Lock()
		head, grown := w.head.Load(), w.grown
		w.growing.Unlock()
		if head > after {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
