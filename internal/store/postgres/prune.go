package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// selectPartitions finds those as well that were detached by hand.
	selectPartitions = `SELECT relname FROM pg_class
		WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND relname ~ '^events_[0-9]{8}$' ORDER BY relname`

	countDay = `SELECT count(*) FROM events WHERE day = $1`

	dropPartition = `SELECT drop_partition($1)`

	pruneDays = `DELETE FROM log_days WHERE day < $1`

	// logBegins is the first position of the days that are left.
	logBegins = `coalesce((SELECT min(first_position) FROM log_days), (SELECT value + 1 FROM counters WHERE name = 'log'))`

	pruneSetAside = `DELETE FROM set_aside WHERE position < ` + logBegins

	pruneForgetting = `DELETE FROM forgetting WHERE position < ` + logBegins
)

// The wait between attempts to drop a partition. Each attempt blocks those who begin to use the
// log for 100 ms at most.
const (
	firstDropWait = 250 * time.Millisecond
	maxDropWait   = 30 * time.Second
)

// Prune implements store.Log. It removes whole days: the events of a day that has
// ended before. It waits for whoever reads the log, and holds up nobody.
func (s *Store) Prune(ctx context.Context, before time.Time) (removed int64, err error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return 0, fmt.Errorf("prune the event log: %w", explain(ctx, err))
	}
	defer func() { _ = conn.Close(ctx) }() // which frees its lock as well
	if removed, err = s.prune(ctx, conn, before.UTC().Truncate(24*time.Hour)); err != nil {
		return removed, fmt.Errorf("prune the event log: %w", explain(ctx, err))
	}
	return removed, nil
}

// pruneLock names the lock of whoever removes partitions. Whoever makes some does not
// wait for it: a reader that is forgotten in a transaction holds it up for days.
func (s *Store) pruneLock() string { return s.schema + "/prune" }

// prune removes the days before this one.
func (s *Store) prune(ctx context.Context, conn *pgx.Conn, before time.Time) (removed int64, err error) {
	for _, setting := range []string{`SET statement_timeout = 0`, `SET lock_timeout = 0`} { // another controller may prune
		if _, err := conn.Exec(ctx, setting); err != nil {
			return 0, err
		}
	}
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock(hashtextextended($1, 0))`, s.pruneLock()); err != nil {
		return 0, err
	}
	old, err := oldPartitions(ctx, conn, before)
	if err != nil || len(old) == 0 {
		return 0, err
	}
	// What belongs to the events goes first, so that a process that is stopped in
	// between leaves partitions, which the next one finds.
	batch := &pgx.Batch{}
	batch.Queue(begin)
	lockCounter(batch, "log")
	lockCounter(batch, "deliveries")
	batch.Queue(pruneDays, before)
	batch.Queue(pruneSetAside)
	batch.Queue(pruneForgetting)
	batch.Queue("COMMIT")
	if err := conn.SendBatch(ctx, batch).Close(); err != nil {
		return 0, err
	}
	for _, day := range old {
		events, err := drop(ctx, conn, day)
		if err != nil {
			return removed, err
		}
		removed += events
	}
	return removed, nil
}

// oldPartitions returns the days before this one that have a partition.
func oldPartitions(ctx context.Context, conn *pgx.Conn, before time.Time) (old []time.Time, err error) {
	rows, err := conn.Query(ctx, selectPartitions)
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, name := range all {
		day, notOurs := time.Parse(dayLayout, strings.TrimPrefix(name, partitionPrefix))
		if notOurs == nil && day.Before(before) {
			old = append(old, day)
		}
	}
	return old, err
}

// drop removes the partition of a day, and returns how many events it had. It waits for those who
// read the log without blocking others: it gives up at once, and tries again.
func drop(ctx context.Context, conn *pgx.Conn, day time.Time) (events int64, err error) {
	if err := conn.QueryRow(ctx, countDay, day).Scan(&events); err != nil {
		return 0, err
	}
	for wait := firstDropWait; ; wait = min(2*wait, maxDropWait) {
		_, err := conn.Exec(ctx, dropPartition, day)
		var answered *pgconn.PgError
		if !errors.As(err, &answered) || answered.Code != lockNotAvailable {
			return events, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// lockNotAvailable is the code of the error that a lock was waited for too long.
const lockNotAvailable = "55P03"
