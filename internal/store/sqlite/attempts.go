package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/encoding"
)

const (
	upsertAttempts = `INSERT INTO attempts (namespace, name, attempts) VALUES (?1, ?2, ?3)
		ON CONFLICT DO UPDATE SET attempts = ?3`

	// touchDelivery tells those who watch rows that this one's attempts changed.
	touchDelivery = `UPDATE deliveries SET revision = ? WHERE namespace = ? AND name = ? AND token = ?`

	dropAttempts = `DELETE FROM attempts WHERE namespace = ? AND name = ?`

	selectAttempts = `SELECT attempts FROM attempts WHERE namespace = ? AND name = ?`
)

// AddAttempts implements store.Attempts. The text that is kept is put together
// here, so that the writer, whom everybody waits for, only writes it.
func (s *Store) AddAttempts(ctx context.Context, added []store.AttemptLog) error {
	texts := make([]string, len(added))
	for i, log := range added {
		kept, err := readAttempts(ctx, s.read, log.Key)
		if err != nil {
			return err
		}
		if texts[i], err = encoding.AppendAttempts(kept, log.Attempts); err != nil {
			return err
		}
	}
	err := s.writer.do(ctx, func(tx *transaction) error {
		for i, log := range added {
			if err := tx.saveAttempts(log, texts[i]); err != nil {
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

func (tx *transaction) saveAttempts(log store.AttemptLog, text string) error {
	result, err := tx.exec(tx.touchDelivery, tx.nextRevision(), log.Key.Namespace, log.Key.Name, log.Token)
	if err != nil {
		return err
	}
	if found, err := result.RowsAffected(); err != nil || found == 0 {
		return err
	}
	_, err = tx.exec(tx.upsertAttempts, log.Key.Namespace, log.Key.Name, text)
	return err
}

// LoadAttempts implements store.Attempts.
func (s *Store) LoadAttempts(ctx context.Context, key store.SubscriptionKey, limit int) ([]store.Attempt, error) {
	return loadAttempts(ctx, s.read, key, limit)
}

func loadAttempts(ctx context.Context, db rowReader, key store.SubscriptionKey, limit int) ([]store.Attempt, error) {
	kept, err := readAttempts(ctx, db, key)
	if err != nil {
		return nil, err
	}
	attempts, err := encoding.DecodeAttempts(kept, limit)
	if err != nil {
		return nil, fmt.Errorf("load the attempts of %s/%s: %w", key.Namespace, key.Name, err)
	}
	return attempts, nil
}

// readAttempts returns the text that is kept, empty where there is none.
func readAttempts(ctx context.Context, db rowReader, key store.SubscriptionKey) (kept string, err error) {
	err = db.QueryRowContext(ctx, selectAttempts, key.Namespace, key.Name).Scan(&kept)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("load attempts: %w", err)
	}
	return kept, nil
}
