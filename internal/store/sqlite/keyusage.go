package sqlite

import (
	"context"
	"fmt"
	"time"

	"postbus.dev/postbus/internal/store"
)

const (
	upsertKeyUse = `INSERT INTO key_usage (namespace, name, last_used) VALUES (?1, ?2, ?3)
		ON CONFLICT DO UPDATE SET last_used = max(last_used, ?3)`

	deleteKeyUse = `DELETE FROM key_usage WHERE namespace = ? AND name = ?`
)

// NoteKeyUse implements store.KeyUsage.
func (s *Store) NoteKeyUse(ctx context.Context, uses map[store.KeyName]time.Time) error {
	err := s.writer.do(ctx, func(tx *transaction) error {
		for key, at := range uses {
			if _, err := tx.exec(tx.upsertKeyUse, key.Namespace, key.Name, at.UnixNano()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("note the use of api keys: %w", err)
	}
	return nil
}

// KeyUses implements store.KeyUsage.
func (s *Store) KeyUses(ctx context.Context, since time.Time) (map[store.KeyName]time.Time, error) {
	after := int64(0) // the zero time has no UnixNano
	if !since.IsZero() {
		after = since.UnixNano()
	}
	rows, err := s.read.QueryContext(ctx, `SELECT namespace, name, last_used FROM key_usage WHERE last_used > ?`, after)
	if err != nil {
		return nil, fmt.Errorf("read the use of api keys: %w", err)
	}
	defer func() { _ = rows.Close() }() // rows.Err has what matters
	uses := map[store.KeyName]time.Time{}
	for rows.Next() {
		var (
			key   store.KeyName
			nanos int64
		)
		if err := rows.Scan(&key.Namespace, &key.Name, &nanos); err != nil {
			return nil, fmt.Errorf("read the use of api keys: %w", err)
		}
		uses[key] = time.Unix(0, nanos).UTC()
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the use of api keys: %w", err)
	}
	return uses, nil
}

// ForgetKey implements store.KeyUsage.
func (s *Store) ForgetKey(ctx context.Context, key store.KeyName) error {
	err := s.writer.do(ctx, func(tx *transaction) error {
		_, err := tx.exec(tx.deleteKeyUse, key.Namespace, key.Name)
		return err
	})
	if err != nil {
		return fmt.Errorf("forget the use of an api key: %w", err)
	}
	return nil
}
