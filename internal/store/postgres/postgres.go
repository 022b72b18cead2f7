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

	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/linkkeys"
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
	linkKeys *linkkeys.Keeper

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

// Open opens the store, whose tables Migrate has made. The error wraps
// store.ErrNotMigrated when they are missing or too old, store.ErrNewer when a newer
// version of this program has made them that this one can't work beside, and
// store.ErrUnavailable when the server can't be reached. It holds nothing of the
// connection string's password. Close must be called in the end.
func Open(ctx context.Context, options Options) (*Store, error) {
	return open(ctx, options, len(migrations), nil)
}

// open opens a store for a program that knows a version of the schema. It has the clock
// that says which day it is; nil is the server's.
func open(ctx context.Context, options Options, version int, clock func() time.Time) (*Store, error) {
	s := &Store{file: options.DSNFile, days: &days{clock: clock}}
	s.lifetime, s.end = context.WithCancel(context.WithoutCancel(ctx))
	s.linkKeys = linkkeys.New(s.loadLinkKeys)
	s.writer = newWriter(s)
	if err := s.open(ctx, version); err != nil {
		return nil, errors.Join(fmt.Errorf("open the store: %w", err), s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, version int) (err error) {
	if s.pool, s.schema, err = newPool(s.lifetime, s.file); err != nil {
		return err
	}
	err = s.session(ctx, patience, func(ctx context.Context, conn *pgxpool.Conn) error {
		return checkSchema(ctx, conn, s.schema, version)
	})
	if err != nil {
		return err
	}
	if err := s.readRow(ctx, []any{&s.identity}, `SELECT value FROM meta WHERE name = $1`, metaIdentity); err != nil {
		return fmt.Errorf("read its identity: %w", err)
	}
	if err := s.readDays(ctx); err != nil {
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
	s.background.Go(func() { s.linkKeys.Run(s.lifetime) })
	return nil
}

// Identity implements store.Store.
func (s *Store) Identity() string { return s.identity }

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
