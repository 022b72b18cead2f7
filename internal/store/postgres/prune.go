package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// selectPartitions finds those as well that were detached and not dropped,
	// because whoever did it was stopped.
	selectPartitions = `SELECT c.relname, i.inhrelid IS NOT NULL, coalesce(i.inhdetachpending, false)
		FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND i.inhparent = 'events'::regclass
		WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND c.relname ~ '^events_[0-9]{8}$' ORDER BY c.relname`

	pruneDays = `DELETE FROM log_days WHERE day < $1`

	// logBegins is the first position of the days that are left.
	logBegins = `coalesce((SELECT min(first_position) FROM log_days), (SELECT value + 1 FROM counters WHERE name = 'log'))`

	pruneSetAside = `DELETE FROM set_aside WHERE position < ` + logBegins

	pruneForgetting = `DELETE FROM forgetting WHERE position < ` + logBegins
)

// partition is a table of events.
type partition struct {
	name              string
	attached, pending bool
}

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
	for _, setting := range []string{`SET statement_timeout = 0`, `SET lock_timeout = 0`} { // readers may take their time
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
	defer s.days.forget()
	for _, partition := range old {
		events, err := drop(ctx, conn, partition)
		if err != nil {
			return removed, err
		}
		removed += events
	}
	return removed, nil
}

// oldPartitions returns those of days before this one.
func oldPartitions(ctx context.Context, conn *pgx.Conn, before time.Time) (old []partition, err error) {
	rows, err := conn.Query(ctx, selectPartitions)
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p partition, err error) {
		err = row.Scan(&p.name, &p.attached, &p.pending)
		return p, err
	})
	for _, partition := range all {
		day, notOurs := time.Parse(dayLayout, strings.TrimPrefix(partition.name, partitionPrefix))
		if notOurs == nil && day.Before(before) {
			old = append(old, partition)
		}
	}
	return old, err
}

// drop removes a partition, and returns how many events it had.
func drop(ctx context.Context, conn *pgx.Conn, old partition) (events int64, err error) {
	table := quote(old.name)
	switch {
	case old.pending:
		_, err = conn.Exec(ctx, `ALTER TABLE events DETACH PARTITION `+table+` FINALIZE`, pgx.QueryExecModeSimpleProtocol)
	case old.attached:
		_, err = conn.Exec(ctx, `ALTER TABLE events DETACH PARTITION `+table+` CONCURRENTLY`, pgx.QueryExecModeSimpleProtocol)
	}
	if err != nil {
		return 0, err
	}
	if err := conn.QueryRow(ctx, `SELECT count(*) FROM `+table).Scan(&events); err != nil {
		return 0, err
	}
	_, err = conn.Exec(ctx, `DROP TABLE `+table)
	return events, err
}
