package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"postbus.dev/postbus/internal/store"
)

const (
	insertDelivery = `INSERT INTO deliveries (namespace, name, token, cursor, open, behind, health, revision)
		VALUES (?1, ?2, ?3, ?4, '[]', 0, '{}', ?3) ON CONFLICT DO NOTHING`

	updateDelivery = `UPDATE deliveries SET cursor = ?, open = ?, behind = ?, health = ?, revision = ?
		WHERE namespace = ? AND name = ? AND token = ?`

	deleteDelivery = `DELETE FROM deliveries WHERE namespace = ? AND name = ?`

	selectDeliveries = `SELECT namespace, name, token, cursor, open, behind, health, revision FROM deliveries`
)

// OpenDelivery implements store.Deliveries.
func (s *Store) OpenDelivery(ctx context.Context, key store.SubscriptionKey) error {
	// The writer is alone, so head is the end of the log that this commit sees.
	err := s.writer.do(ctx, func(tx *transaction) error { return tx.openDelivery(key, tx.head) })
	if err != nil {
		return fmt.Errorf("open the delivery state: %w", err)
	}
	return nil
}

// openDelivery makes a row that begins behind a position, unless there is one. A
// revision is never given twice, so it serves as the row's token.
func (tx *transaction) openDelivery(key store.SubscriptionKey, after int64) error {
	_, err := tx.exec(tx.insertDelivery, key.Namespace, key.Name, tx.nextRevision(), after)
	return err
}

// DropDelivery implements store.Deliveries.
func (s *Store) DropDelivery(ctx context.Context, key store.SubscriptionKey) error {
	err := s.writer.do(ctx, func(tx *transaction) error {
		_, err := tx.exec(tx.deleteDelivery, key.Namespace, key.Name)
		return err
	})
	if err != nil {
		return fmt.Errorf("drop the delivery state: %w", err)
	}
	return nil
}

// nextRevision numbers a write of a deliveries row. A number may be left out
// when a transaction is rolled back, but none is given twice.
func (tx *transaction) nextRevision() int64 {
	tx.revision++
	return tx.revision
}

// Checkpoint implements store.Deliveries.
func (s *Store) Checkpoint(ctx context.Context, deliveries []store.Delivery) ([]store.SubscriptionKey, error) {
	var gone []store.SubscriptionKey
	err := s.writer.do(ctx, func(tx *transaction) error {
		gone = nil
		for i := range deliveries {
			found, err := tx.writeDelivery(&deliveries[i])
			if err != nil {
				return err
			}
			if !found {
				gone = append(gone, deliveries[i].Key)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("checkpoint deliveries: %w", err)
	}
	return gone, nil
}

func (tx *transaction) writeDelivery(delivery *store.Delivery) (found bool, err error) {
	open, err := json.Marshal(delivery.Open)
	if err != nil {
		return false, err
	}
	health, err := json.Marshal(delivery.Health)
	if err != nil {
		return false, err
	}
	result, err := tx.exec(tx.updateDelivery, delivery.Cursor, string(open), delivery.Behind, string(health), tx.nextRevision(),
		delivery.Key.Namespace, delivery.Key.Name, delivery.Token)
	if err != nil {
		return false, err
	}
	rows, err := result.RowsAffected()
	return rows > 0, err
}

// LoadDelivery implements store.Deliveries.
func (s *Store) LoadDelivery(ctx context.Context, key store.SubscriptionKey) (store.Delivery, error) {
	row := s.read.QueryRowContext(ctx, selectDeliveries+" WHERE namespace = ? AND name = ?", key.Namespace, key.Name)
	delivery, err := scanDelivery(row)
	if errors.Is(err, sql.ErrNoRows) {
		err = store.ErrNotFound
	}
	if err != nil {
		return store.Delivery{}, fmt.Errorf("load the delivery state: %w", err)
	}
	return delivery, nil
}

// DeliveriesSince implements store.Deliveries.
func (s *Store) DeliveriesSince(ctx context.Context, revision int64) ([]store.Delivery, error) {
	rows, err := s.read.QueryContext(ctx, selectDeliveries+" WHERE revision > ? AND name NOT LIKE 'mail/%' ORDER BY revision", revision)
	if err != nil {
		return nil, fmt.Errorf("read delivery states: %w", err)
	}
	defer func() { _ = rows.Close() }() // rows.Err has what matters
	var deliveries []store.Delivery
	for rows.Next() {
		delivery, err := scanDelivery(rows)
		if err != nil {
			return nil, fmt.Errorf("read delivery states: %w", err)
		}
		deliveries = append(deliveries, delivery)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read delivery states: %w", err)
	}
	return deliveries, nil
}

func scanDelivery(row interface{ Scan(...any) error }) (store.Delivery, error) {
	var (
		delivery     store.Delivery
		open, health []byte
	)
	err := row.Scan(&delivery.Key.Namespace, &delivery.Key.Name, &delivery.Token, &delivery.Cursor, &open,
		&delivery.Behind, &health, &delivery.Revision)
	if err != nil {
		return delivery, err
	}
	if err := json.Unmarshal(open, &delivery.Open); err != nil {
		return delivery, fmt.Errorf("decode the open events of %s/%s: %w", delivery.Key.Namespace, delivery.Key.Name, err)
	}
	if err := json.Unmarshal(health, &delivery.Health); err != nil {
		return delivery, fmt.Errorf("decode the health of %s/%s: %w", delivery.Key.Namespace, delivery.Key.Name, err)
	}
	return delivery, nil
}
