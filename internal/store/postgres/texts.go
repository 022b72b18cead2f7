package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/encoding"
)

const (
	upsertTexts = `INSERT INTO texts (namespace, list, texts) VALUES ($1, $2, $3::text::json)
		ON CONFLICT (namespace, list) DO UPDATE SET texts = excluded.texts`

	selectTexts = `SELECT texts::text FROM texts WHERE namespace = $1 AND list = $2`
)

// SaveTexts implements store.Texts.
func (s *Store) SaveTexts(ctx context.Context, list contact.ListKey, texts store.ListTexts) error {
	encoded, err := encoding.Texts(list, &texts)
	if err != nil {
		return err
	}
	err = s.write(ctx, func(batch *pgx.Batch) {
		batch.Queue(upsertTexts, list.Namespace, list.Name, encoded)
	})
	if err != nil {
		return fmt.Errorf("save the texts of a list: %w", err)
	}
	return nil
}

// LoadTexts implements store.Texts.
func (s *Store) LoadTexts(ctx context.Context, list contact.ListKey) (texts store.ListTexts, err error) {
	found, err := readAll(ctx, s, pgx.RowTo[string], selectTexts, list.Namespace, list.Name)
	if err != nil {
		return texts, fmt.Errorf("load the texts of a list: %w", err)
	}
	if len(found) == 0 {
		return texts, nil
	}
	return encoding.DecodeTexts(list, []byte(found[0]))
}
