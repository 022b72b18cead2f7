// Package postgres is the store in a PostgreSQL database, 15 or newer, for any
// number of processes.
//
// One transaction at a time appends to the log, in the whole cluster: it locks the
// row "log" of the table counters, and writes the new end of the log into it. So
// the order of the log is the order of commits. What a process was asked for in the
// meantime goes into one transaction (writer.go), in two round trips however much
// that is: one that locks and reads, one that writes and commits.
//
//	callers ──▶ queue ──▶ lock, read ──▶ decide in memory ──▶ write, NOTIFY, COMMIT ──▶ callers go on
//
// Rows of deliveries have a lock of their own, the row "deliveries", for their
// revisions. Whoever takes both takes "log" first.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"postbus.dev/postbus/internal/link"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/rising"
)

// Options are what a store needs to know.
type Options struct {
	// DSNFile is a file with a connection string of PostgreSQL, as libpq has it. It
	// is read again for each new connection, so a changed password is used within
	// minutes. All tables are in the schema that its search_path names first, by
	// default postbus.
	DSNFile string
}

// Store is a store.Store in a PostgreSQL database.
type Store struct {
	file     string
	schema   string
	pool     *pgxpool.Pool
	writer   *writer
	days     *days
	identity string
	linkKey  link.Key

	// log is the last position of the log that is known here, owners how often
	// owners have changed.
	log, owners rising.Number

	// listening tells whether notifications come in.
	listening atomic.Bool
	// lifetime ends with Close, and what runs in the background with it.
	lifetime   context.Context
	end        context.CancelFunc
	background sync.WaitGroup
}

var _ store.Store = (*Store)(nil)

// Open opens the store, and makes or migrates its tables. The error wraps
// store.ErrNewer when a newer version of this program has made them that this one
// can't work beside, and store.ErrUnavailable when the server can't be reached. It
// holds nothing of the connection string's password. Close must be called in the
// end.
func Open(ctx context.Context, options Options) (*Store, error) {
	return open(ctx, options, migrations, nil)
}

// open has the clock that says which day it is; nil is the server's.
func open(ctx context.Context, options Options, migrations []migration, clock func() time.Time) (*Store, error) {
	s := &Store{file: options.DSNFile, days: newDays(clock)}
	s.lifetime, s.end = context.WithCancel(context.WithoutCancel(ctx))
	s.writer = newWriter(s)
	if err := s.open(ctx, migrations); err != nil {
		return nil, errors.Join(fmt.Errorf("open the store: %w", err), s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, migrations []migration) (err error) {
	if s.pool, s.schema, err = newPool(s.lifetime, s.file); err != nil {
		return err
	}
	// Others may be migrating, which has no limit but the caller's.
	conn, err := s.acquire(ctx)
	if err != nil {
		return explain(ctx, err)
	}
	err = migrate(ctx, conn.Conn(), s.schema, migrations)
	release(ctx, conn)
	if err != nil {
		return explain(ctx, err)
	}
	if err := s.readSecrets(ctx); err != nil {
		return err
	}
	if err := s.prepareDays(ctx); err != nil {
		return err
	}
	head, err := s.Head(ctx)
	if err != nil {
		return err
	}
	s.log.Reach(head)
	s.background.Go(s.listen)
	s.background.Go(s.poll)
	s.background.Go(s.keepDays)
	return nil
}

// Identity implements store.Store.
func (s *Store) Identity() string { return s.identity }

// LinkKey implements store.Store.
func (s *Store) LinkKey() link.Key { return s.linkKey }

// Close implements store.Store. Writes that were already queued are finished.
func (s *Store) Close() error {
	s.writer.close()
	s.end()
	s.background.Wait()
	if s.pool != nil {
		s.pool.Close()
	}
	return nil
}
