package sqlite

import (
	"database/sql"
	"errors"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/encoding"
)

const (
	selectOnce = `SELECT fingerprint, decision FROM idempotency WHERE key = ? AND until > ?`

	insertOnce = `INSERT INTO idempotency (key, fingerprint, decision, until) VALUES (?, ?, ?, ?)`

	deleteOnce = `DELETE FROM idempotency WHERE until <= ?`
)

// recall returns the decision of the first call of this name, nil when there
// was none.
func (tx *transaction) recall(once *store.Once) (*contact.Decision, error) {
	var (
		fingerprint string
		encoded     []byte
	)
	err := tx.row(tx.selectOnce, once.Key, once.Now.UnixNano()).Scan(&fingerprint, &encoded)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, err
	case fingerprint != once.Fingerprint:
		return nil, refusal{store.ErrOnceReused}
	}
	first, err := encoding.DecodeDecision(encoded)
	if err != nil {
		return nil, err
	}
	return &first, nil
}

// remember notes the decision of the first call of this name, and forgets what
// has been remembered for long enough.
func (tx *transaction) remember(once *store.Once, decision *contact.Decision) error {
	encoded, err := encoding.Decision(decision)
	if err != nil {
		return err
	}
	if _, err := tx.exec(tx.deleteOnce, once.Now.UnixNano()); err != nil {
		return err
	}
	_, err = tx.exec(tx.insertOnce, once.Key, once.Fingerprint, encoded, once.Until.UnixNano())
	return err
}
