package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/encoding"
)

const (
	upsertTexts = `INSERT INTO texts (namespace, list, texts) VALUES (?1, ?2, ?3)
		ON CONFLICT DO UPDATE SET texts = ?3`

	selectTexts = `SELECT texts FROM texts WHERE namespace = ? AND list = ?`
)

// SaveTexts implements store.Texts.
func (s *Store) SaveTexts(ctx context.Context, list contact.ListKey, texts store.ListTexts) error {
	encoded, err := encoding.Texts(list, &texts)
	if err != nil {
		return err
	}
	err = s.writer.do(ctx, func(tx *transaction) error {
		_, err := tx.exec(tx.upsertTexts, list.Namespace, list.Name, encoded)
		return err
	})
	if err != nil {
		return fmt.Errorf("save the texts of a list: %w", err)
	}
	return nil
}

// LoadTexts implements store.Texts.
func (s *Store) LoadTexts(ctx context.Context, list contact.ListKey) (texts store.ListTexts, err error) {
	var encoded []byte
	err = s.read.QueryRowContext(ctx, selectTexts, list.Namespace, list.Name).Scan(&encoded)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return texts, nil
	case err != nil:
		return texts, fmt.Errorf("load the texts of a list: %w", err)
	}
	return encoding.DecodeTexts(list, encoded)
}
