package sqlite

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

const (
	selectOnce = `SELECT fingerprint, decision FROM idempotency WHERE key = ? AND until > ?`

	insertOnce = `INSERT INTO idempotency (key, fingerprint, decision, until) VALUES (?, ?, ?, ?)`

	deleteOnce = `DELETE FROM idempotency WHERE until <= ?`
)

// remembered is what is kept of a decision: what its caller was told, and
// nothing personal.
type remembered struct {
	ContactID    int64 `json:"contactID,omitempty"`
	Created      bool  `json:"created,omitempty"`
	Removed      bool  `json:"removed,omitempty"`
	OptInStarted bool  `json:"optInStarted,omitempty"`
}

// recall returns the decision of the first call of this name, nil when there
// was none.
func (tx *transaction) recall(once *store.Once) (*contact.Decision, error) {
	var (
		fingerprint string
		encoded     []byte
		first       remembered
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
	if err := json.Unmarshal(encoded, &first); err != nil {
		return nil, fmt.Errorf("decode a remembered decision: %w", err)
	}
	return &contact.Decision{
		Contact: contact.Contact{ID: first.ContactID}, Created: first.Created, Removed: first.Removed,
		OptInStarted: first.OptInStarted, Repeated: true,
	}, nil
}

// remember notes the decision of the first call of this name, and forgets what
// has been remembered for long enough.
func (tx *transaction) remember(once *store.Once, decision *contact.Decision) error {
	encoded, err := json.Marshal(remembered{
		ContactID: decision.Contact.ID, Created: decision.Created, Removed: decision.Removed,
		OptInStarted: decision.OptInStarted,
	})
	if err != nil {
		return err
	}
	if _, err := tx.exec(tx.deleteOnce, once.Now.UnixNano()); err != nil {
		return err
	}
	_, err = tx.exec(tx.insertOnce, once.Key, once.Fingerprint, string(encoded), once.Until.UnixNano())
	return err
}
