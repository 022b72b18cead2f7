package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

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

// AddAttempts implements store.Attempts. What is kept is text, a line of JSON for
// each attempt, so that nothing of it is decoded to add to it; and it is put
// together here, so that the writer, whom everybody waits for, only writes it.
func (s *Store) AddAttempts(ctx context.Context, added []store.AttemptLog) error {
	texts := make([]string, len(added))
	for i, log := range added {
		kept, err := readAttempts(ctx, s.read, log.Key)
		if err != nil {
			return err
		}
		if texts[i], err = appendAttempts(kept, log.Attempts); err != nil {
			return fmt.Errorf("encode attempts: %w", err)
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

// appendAttempts returns the text of the last attempts of these.
func appendAttempts(kept string, added []store.Attempt) (string, error) {
	text := bytes.NewBufferString(kept)
	encoder := json.NewEncoder(text) // which ends lines
	for i := range added {
		if err := encoder.Encode(&added[i]); err != nil {
			return "", err
		}
	}
	return lastLines(text.String(), store.MaxAttempts), nil
}

// lastLines returns the last n lines of a text, or all where there are fewer.
func lastLines(text string, n int) string {
	for lines := strings.Count(text, "\n"); lines > n; lines-- {
		_, text, _ = strings.Cut(text, "\n")
	}
	return text
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

func loadAttempts(ctx context.Context, db *sql.DB, key store.SubscriptionKey, limit int) (attempts []store.Attempt, err error) {
	kept, err := readAttempts(ctx, db, key)
	if err != nil {
		return nil, err
	}
	for lines := json.NewDecoder(strings.NewReader(lastLines(kept, limit))); lines.More(); {
		var attempt store.Attempt
		if err := lines.Decode(&attempt); err != nil {
			return nil, fmt.Errorf("decode the attempts of %s/%s: %w", key.Namespace, key.Name, err)
		}
		attempts = append(attempts, attempt)
	}
	return attempts, nil
}

// readAttempts returns the text that is kept, empty where there is none.
func readAttempts(ctx context.Context, db *sql.DB, key store.SubscriptionKey) (kept string, err error) {
	err = db.QueryRowContext(ctx, selectAttempts, key.Namespace, key.Name).Scan(&kept)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("load attempts: %w", err)
	}
	return kept, nil
}
