package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"postbus.dev/postbus/internal/store"
)

const (
	upsertAttempts = `INSERT INTO attempts (namespace, name, attempts) VALUES (?1, ?2, ?3)
		ON CONFLICT DO UPDATE SET attempts = ?3`

	// touchDelivery tells those who watch rows that this one's attempts changed.
	touchDelivery = `UPDATE deliveries SET revision = ? WHERE namespace = ? AND name = ? AND token = ?`

	dropAttempts = `DELETE FROM attempts WHERE namespace = ? AND name = ?`

	selectAttempts = `SELECT attempts FROM attempts WHERE namespace = ? AND name = ?`
)

// AddAttempts implements store.Attempts. What is kept is read and encoded here, so
// that the writer, whom everybody waits for, does neither.
func (s *Store) AddAttempts(ctx context.Context, added []store.AttemptLog) error {
	encoded := make([]string, len(added))
	for i, log := range added {
		kept, err := s.LoadAttempts(ctx, log.Key)
		if err != nil {
			return err
		}
		text, err := json.Marshal(store.LastAttempts(slices.Concat(kept, log.Attempts), store.MaxAttempts))
		if err != nil {
			return fmt.Errorf("encode attempts: %w", err)
		}
		encoded[i] = string(text)
	}
	err := s.writer.do(ctx, func(tx *transaction) error {
		for i, log := range added {
			if err := tx.saveAttempts(log, encoded[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("add attempts: %w", err)
	}
	return nil
}

func (tx *transaction) saveAttempts(log store.AttemptLog, encoded string) error {
	result, err := tx.exec(tx.touchDelivery, tx.nextRevision(), log.Key.Namespace, log.Key.Name, log.Token)
	if err != nil {
		return err
	}
	if found, err := result.RowsAffected(); err != nil || found == 0 {
		return err
	}
	_, err = tx.exec(tx.upsertAttempts, log.Key.Namespace, log.Key.Name, encoded)
	return err
}

// LoadAttempts implements store.Attempts.
func (s *Store) LoadAttempts(ctx context.Context, key store.SubscriptionKey) ([]store.Attempt, error) {
	return loadAttempts(ctx, s.read, key)
}

func loadAttempts(ctx context.Context, db *sql.DB, key store.SubscriptionKey) (attempts []store.Attempt, err error) {
	var encoded []byte
	err = db.QueryRowContext(ctx, selectAttempts, key.Namespace, key.Name).Scan(&encoded)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("load attempts: %w", err)
	}
	if err := json.Unmarshal(encoded, &attempts); err != nil {
		return nil, fmt.Errorf("decode the attempts of %s/%s: %w", key.Namespace, key.Name, err)
	}
	return attempts, nil
}
