package sqlite

import (
	"context"
	"fmt"
	"time"
)

const (
	// prunePage is how many events are removed in one commit, so that other writers
	// don't wait long.
	prunePage = 1000

	pruneEvents = `DELETE FROM events WHERE position IN (SELECT position FROM events WHERE position <= ? ORDER BY position LIMIT ?)`

	pruneSetAside = `DELETE FROM set_aside WHERE position < coalesce((SELECT min(position) FROM events), ?1 + 1)`

	pruneForgetting = `DELETE FROM forgetting WHERE position NOT IN (SELECT position FROM events)`
)

// Prune implements store.Log. The log is in the order of commits, and an event's time
// is that of its commit but for the moment it took. So nothing behind the first that
// is young enough is looked at, and that is found once, beside the writer.
func (s *Store) Prune(ctx context.Context, before time.Time) (removed int64, err error) {
	upTo, err := s.PositionBefore(ctx, before)
	if err != nil {
		return 0, fmt.Errorf("prune the event log: %w", err)
	}
	for {
		page, err := s.prunePage(ctx, upTo)
		if err != nil {
			return removed, fmt.Errorf("prune the event log: %w", err)
		}
		if removed += page; page < prunePage {
			return removed, nil
		}
	}
}

// prunePage removes the oldest events up to a position, as many as a commit may.
func (s *Store) prunePage(ctx context.Context, upTo int64) (removed int64, err error) {
	err = s.writer.do(ctx, func(tx *transaction) error {
		result, err := tx.exec(tx.pruneEvents, upTo, prunePage)
		if err != nil {
			return err
		}
		if removed, err = result.RowsAffected(); err != nil || removed == 0 {
			return err
		}
		if _, err := tx.exec(tx.pruneSetAside, tx.head); err != nil {
			return err
		}
		_, err = tx.exec(tx.pruneForgetting)
		return err
	})
	return removed, err
}
