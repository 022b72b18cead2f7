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

	// The log is in the order of commits, and an event's time is that of its commit
	// but for the moment it took. So nothing behind the first that is young enough
	// is looked at.
	pruneEvents = `DELETE FROM events WHERE position IN (
		SELECT position FROM events WHERE position < coalesce((SELECT min(position) FROM events WHERE time >= ?1), ?2 + 1)
		ORDER BY position LIMIT ?3)`

	pruneSetAside = `DELETE FROM set_aside WHERE position < coalesce((SELECT min(position) FROM events), ?1 + 1)`

	pruneForgetting = `DELETE FROM forgetting WHERE position NOT IN (SELECT position FROM events)`
)

// Prune implements store.Log.
func (s *Store) Prune(ctx context.Context, before time.Time) (removed int64, err error) {
	for {
		page, err := s.prunePage(ctx, before)
		if err != nil {
			return removed, fmt.Errorf("prune the event log: %w", err)
		}
		if removed += page; page < prunePage {
			return removed, nil
		}
	}
}

// prunePage removes the oldest events, as many as a commit may.
func (s *Store) prunePage(ctx context.Context, before time.Time) (removed int64, err error) {
	err = s.writer.do(ctx, func(tx *transaction) error {
		result, err := tx.exec(tx.pruneEvents, before.UnixNano(), tx.head, prunePage)
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
