package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/encoding"
)

const (
	// saveAttempts changes the rows too, so that those who watch them are told.
	saveAttempts = `WITH touched AS (
			UPDATE deliveries d SET revision = c.value + k.n
			FROM counters c, unnest($1::text[], $2::text[], $3::bigint[], $4::text[]) WITH ORDINALITY AS k (namespace, name, token, attempts, n)
			WHERE c.name = 'deliveries' AND d.namespace = k.namespace AND d.name = k.name AND d.token = k.token
			RETURNING d.namespace, d.name, k.attempts)
		INSERT INTO attempts (namespace, name, attempts) SELECT * FROM touched
		ON CONFLICT (namespace, name) DO UPDATE SET attempts = excluded.attempts`

	selectAttempts = `SELECT namespace, name, attempts FROM attempts
		JOIN unnest($1::text[], $2::text[]) AS k (namespace, name) USING (namespace, name)`
)

// AddAttempts implements store.Attempts. Each subscription has one writer, so what
// is kept can be read before anything is locked.
func (s *Store) AddAttempts(ctx context.Context, added []store.AttemptLog) error {
	if err := s.addAttempts(ctx, added); err != nil {
		return fmt.Errorf("add attempts: %w", err)
	}
	return nil
}

func (s *Store) addAttempts(ctx context.Context, added []store.AttemptLog) error {
	var keys keyArrays
	tokens, texts := make([]int64, len(added)), make([]string, len(added))
	for i := range added {
		keys.add(added[i].Key)
		tokens[i] = added[i].Token
	}
	kept, err := s.readAttempts(ctx, keys)
	if err != nil {
		return err
	}
	for i := range added {
		if texts[i], err = encoding.AppendAttempts(kept[added[i].Key], added[i].Attempts); err != nil {
			return err
		}
	}
	return s.write(ctx, func(batch *pgx.Batch) {
		lockCounter(batch, "deliveries")
		batch.Queue(saveAttempts, keys.namespaces, keys.names, tokens, texts)
		batch.Queue(raiseRevision, len(added))
	})
}

// readAttempts returns the texts that are kept.
func (s *Store) readAttempts(ctx context.Context, keys keyArrays) (map[store.SubscriptionKey]string, error) {
	type row struct {
		key  store.SubscriptionKey
		text string
	}
	rows, err := readAll(ctx, s, func(found pgx.CollectableRow) (r row, err error) {
		err = found.Scan(&r.key.Namespace, &r.key.Name, &r.text)
		return r, err
	}, selectAttempts, keys.namespaces, keys.names)
	if err != nil {
		return nil, err
	}
	kept := make(map[store.SubscriptionKey]string, len(rows))
	for _, row := range rows {
		kept[row.key] = row.text
	}
	return kept, nil
}

// LoadAttempts implements store.Attempts.
func (s *Store) LoadAttempts(ctx context.Context, key store.SubscriptionKey, limit int) ([]store.Attempt, error) {
	kept, err := s.readAttempts(ctx, keyArrays{namespaces: []string{key.Namespace}, names: []string{key.Name}})
	if err != nil {
		return nil, fmt.Errorf("load attempts: %w", err)
	}
	attempts, err := encoding.DecodeAttempts(kept[key], limit)
	if err != nil {
		return nil, fmt.Errorf("load the attempts of %s/%s: %w", key.Namespace, key.Name, err)
	}
	return attempts, nil
}
