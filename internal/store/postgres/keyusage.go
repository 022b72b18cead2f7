package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"postbus.dev/postbus/internal/store"
)

const (
	// In the order of names, so that processes that note the same keys don't wait
	// for each other in a circle.
	upsertKeyUses = `INSERT INTO key_usage AS u (namespace, name, last_used)
		SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS k (namespace, name, last_used) ORDER BY namespace, name
		ON CONFLICT (namespace, name) DO UPDATE SET last_used = excluded.last_used WHERE u.last_used < excluded.last_used`

	deleteKeyUse = `DELETE FROM key_usage` + ofKey

	selectKeyUses = `SELECT namespace, name, last_used FROM key_usage WHERE last_used > $1`
)

// NoteKeyUse implements store.KeyUsage.
func (s *Store) NoteKeyUse(ctx context.Context, uses map[store.KeyName]time.Time) error {
	var (
		keys  keyArrays
		times []time.Time
	)
	for key, at := range uses {
		keys.add(store.SubscriptionKey(key))
		times = append(times, at)
	}
	err := s.write(ctx, func(batch *pgx.Batch) {
		batch.Queue(upsertKeyUses, keys.namespaces, keys.names, times)
	})
	if err != nil {
		return fmt.Errorf("note the use of api keys: %w", err)
	}
	return nil
}

// KeyUses implements store.KeyUsage.
func (s *Store) KeyUses(ctx context.Context, since time.Time) (map[store.KeyName]time.Time, error) {
	type use struct {
		key store.KeyName
		at  time.Time
	}
	found, err := readAll(ctx, s, func(row pgx.CollectableRow) (u use, err error) {
		err = row.Scan(&u.key.Namespace, &u.key.Name, &u.at)
		return u, err
	}, selectKeyUses, since)
	if err != nil {
		return nil, fmt.Errorf("read the use of api keys: %w", err)
	}
	uses := make(map[store.KeyName]time.Time, len(found))
	for _, use := range found {
		uses[use.key] = use.at.UTC()
	}
	return uses, nil
}

// ForgetKey implements store.KeyUsage.
func (s *Store) ForgetKey(ctx context.Context, key store.KeyName) error {
	err := s.write(ctx, func(batch *pgx.Batch) { batch.Queue(deleteKeyUse, key.Namespace, key.Name) })
	if err != nil {
		return fmt.Errorf("forget the use of an api key: %w", err)
	}
	return nil
}
