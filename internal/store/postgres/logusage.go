package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// In the order of names, so that processes that count the same namespaces don't
	// wait for each other in a circle.
	upsertLogUsage = `INSERT INTO log_usage AS u (namespace, day, bytes)
		SELECT namespace, $1::date, bytes FROM unnest($2::text[], $3::bigint[]) AS k (namespace, bytes) ORDER BY namespace
		ON CONFLICT (namespace, day) DO UPDATE SET bytes = u.bytes + excluded.bytes`

	deleteLogUsage = `DELETE FROM log_usage WHERE day < $1::date`

	selectLogUsage = `SELECT namespace, bytes FROM log_usage WHERE day = $1::date`
)

// AddLogBytes implements store.LogUsage.
func (s *Store) AddLogBytes(ctx context.Context, at time.Time, appended map[string]int64) (map[string]int64, error) {
	day := at.UTC().Truncate(24 * time.Hour)
	var (
		namespaces []string
		bytes      []int64
	)
	for namespace, count := range appended {
		namespaces, bytes = append(namespaces, namespace), append(bytes, count)
	}
	total := map[string]int64{}
	err := s.write(ctx, func(batch *pgx.Batch) {
		clear(total)
		if len(namespaces) > 0 {
			batch.Queue(upsertLogUsage, day, namespaces, bytes)
		}
		batch.Queue(deleteLogUsage, day)
		batch.Queue(selectLogUsage, day).Query(func(rows pgx.Rows) error {
			for rows.Next() {
				var (
					namespace string
					count     int64
				)
				if err := rows.Scan(&namespace, &count); err != nil {
					return err
				}
				total[namespace] = count
			}
			return rows.Err()
		})
	})
	if err != nil {
		return nil, fmt.Errorf("count the bytes of the log: %w", err)
	}
	return total, nil
}
