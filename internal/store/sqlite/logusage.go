package sqlite

import (
	"context"
	"fmt"
	"time"
)

const (
	upsertLogUsage = `INSERT INTO log_usage (namespace, day, bytes) VALUES (?1, ?2, ?3)
		ON CONFLICT DO UPDATE SET bytes = bytes + ?3`

	deleteLogUsage = `DELETE FROM log_usage WHERE day < ?`

	selectLogUsage = `SELECT namespace, bytes FROM log_usage WHERE day = ?`
)

// AddLogBytes implements store.LogUsage.
func (s *Store) AddLogBytes(ctx context.Context, at time.Time, appended map[string]int64) (map[string]int64, error) {
	day := at.UTC().Format(time.DateOnly)
	var total map[string]int64
	err := s.writer.do(ctx, func(tx *transaction) (err error) {
		for namespace, bytes := range appended {
			if _, err := tx.conn.ExecContext(tx.ctx, upsertLogUsage, namespace, day, bytes); err != nil {
				return err
			}
		}
		if _, err := tx.conn.ExecContext(tx.ctx, deleteLogUsage, day); err != nil {
			return err
		}
		total, err = tx.logUsage(day)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("count the bytes of the log: %w", err)
	}
	return total, nil
}

func (tx *transaction) logUsage(day string) (map[string]int64, error) {
	rows, err := tx.conn.QueryContext(tx.ctx, selectLogUsage, day)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // rows.Err has what matters
	total := map[string]int64{}
	for rows.Next() {
		var (
			namespace string
			bytes     int64
		)
		if err := rows.Scan(&namespace, &bytes); err != nil {
			return nil, err
		}
		total[namespace] = bytes
	}
	return total, rows.Err()
}
