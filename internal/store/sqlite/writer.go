package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/batch"
	"postbus.dev/postbus/internal/store/rising"
)

// writer commits all changes, on one goroutine.
type writer struct {
	db *sql.DB
	tx *transaction
	// queue is nil until the writer has begun.
	queue *batch.Queue[*job]

	// head is the position of the newest committed event.
	head rising.Number
}

// job is one change. It shares a transaction with others. An error that is a
// refusal says that the job has written nothing, and concerns nobody else;
// after any other error the transaction is rolled back, and its jobs run again,
// each alone.
type job struct {
	ctx context.Context
	run func(tx *transaction) error
	err error
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
	w.head.Reach(w.tx.head)
	w.queue = batch.NewQueue(w.runBatch)
	return nil
}

// close finishes what is queued and frees the connection.
func (w *writer) close() error {
	if w.queue != nil {
		w.queue.Close()
	}
	var errs []error
	if w.tx != nil {
		errs = append(errs, w.tx.close())
	}
	return errors.Join(append(errs, w.db.Close())...)
}

// do runs a change and returns once it is durable, or the reason why nothing
// was changed.
func (w *writer) do(ctx context.Context, run func(tx *transaction) error) error {
	j := &job{ctx: ctx, run: run}
	if err := w.queue.Do(ctx, j); err != nil {
		return err
	}
	return j.err
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
	w.head.Reach(w.tx.head)
	return nil
}
