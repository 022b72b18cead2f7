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
	insertDelivery = `INSERT INTO deliveries (namespace, name, token, cursor, open, behind, health, revision)
		VALUES (?1, ?2, ?3, ?4, '[]', 0, '{}', ?3) ON CONFLICT DO NOTHING`

	updateDelivery = `UPDATE deliveries SET cursor = ?, open = ?, behind = ?, health = ?, life = ?, operations = ?, revision = ?
		WHERE namespace = ? AND name = ? AND token = ?`

	deleteDelivery = `DELETE FROM deliveries WHERE namespace = ? AND name = ?`

	deliveryColumns = `namespace, name, token, cursor, open, behind, health, life, operations, revision,
		(SELECT count(*) FROM set_aside s WHERE s.namespace = deliveries.namespace AND s.name = deliveries.name)`

	selectDeliveries = `SELECT ` + deliveryColumns + ` FROM deliveries`

	// ofSubscription tells rows of subscriptions from those of mails, see
	// store.MailKey. No object's name has a slash.
	ofSubscription = `name NOT LIKE '%/%'`

	selectOperations = `SELECT operations FROM deliveries WHERE namespace = ? AND name = ?`

	// What was forgotten since it was set aside, or is too old, is in the log no more.
	insertSetAside = `INSERT INTO set_aside (namespace, name, position)
		SELECT ?1, ?2, position FROM events WHERE position = ?3 ON CONFLICT DO NOTHING`

	deleteSetAside = `DELETE FROM set_aside WHERE namespace = ? AND name = ? AND position = ?`

	dropSetAside = `DELETE FROM set_aside WHERE namespace = ? AND name = ?`
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
		for _, drop := range []*sql.Stmt{tx.deleteDelivery, tx.dropSetAside, tx.dropRequests, tx.dropAttempts} {
			if _, err := tx.exec(drop, key.Namespace, key.Name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("drop the delivery state: %w", err)
	}
	return nil
}

// nextRevision numbers a write of a row of deliveries or requests. A number may be left out
// when a transaction is rolled back, but none is given twice.
func (tx *transaction) nextRevision() int64 {
	tx.revision++
	return tx.revision
}

// Checkpoint implements store.Deliveries.
func (s *Store) Checkpoint(ctx context.Context, progress []store.Progress) ([]store.SubscriptionKey, error) {
	var gone []store.SubscriptionKey
	err := s.writer.do(ctx, func(tx *transaction) error {
		gone = nil
		for i := range progress {
			found, err := tx.writeProgress(&progress[i])
			if err != nil {
				return err
			}
			if !found {
				gone = append(gone, progress[i].Key)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("checkpoint deliveries: %w", err)
	}
	return gone, nil
}

// writeProgress writes a row, if it is there under its token, with what belongs to it.
func (tx *transaction) writeProgress(progress *store.Progress) (found bool, err error) {
	raised, err := tx.notRaised(progress)
	if err != nil {
		return false, err
	}
	if found, err = tx.writeDelivery(&progress.Delivery); err != nil || !found {
		return found, err
	}
	if err := tx.writeSetAside(progress); err != nil {
		return true, err
	}
	for i := range raised {
		if err := tx.appendOperation(raised[i]); err != nil {
			return true, err
		}
	}
	return true, nil
}

// notRaised returns the events that the row has not raised yet.
func (tx *transaction) notRaised(progress *store.Progress) ([]contact.Event, error) {
	if len(progress.Raised) == 0 {
		return nil, nil
	}
	var operations int64
	err := tx.row(tx.selectOperations, progress.Key.Namespace, progress.Key.Name).Scan(&operations)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil // there is no row, and nothing is written
	}
	return progress.NotRaised(operations), err
}

func (tx *transaction) writeDelivery(delivery *store.Delivery) (found bool, err error) {
	encoded, err := encoding.EncodeDelivery(delivery)
	if err != nil {
		return false, err
	}
	result, err := tx.exec(tx.updateDelivery, delivery.Cursor, string(encoded.Open), delivery.Behind, string(encoded.Health), string(encoded.Life),
		delivery.Operations, tx.nextRevision(), delivery.Key.Namespace, delivery.Key.Name, delivery.Token)
	if err != nil {
		return false, err
	}
	rows, err := result.RowsAffected()
	return rows > 0, err
}

// writeSetAside writes which events are set aside now, and which no more.
func (tx *transaction) writeSetAside(progress *store.Progress) error {
	for _, change := range []struct {
		statement *sql.Stmt
		positions []int64
	}{{tx.deleteSetAside, progress.Taken}, {tx.insertSetAside, progress.Aside}} {
		for _, position := range change.positions {
			if _, err := tx.exec(change.statement, progress.Key.Namespace, progress.Key.Name, position); err != nil {
				return err
			}
		}
	}
	return nil
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
	var deliveries []store.Delivery
	err := queryAll(ctx, s.read, func(rows *sql.Rows) error {
		delivery, err := scanDelivery(rows)
		deliveries = append(deliveries, delivery)
		return err
	}, selectDeliveries+" WHERE revision > ? AND "+ofSubscription+" ORDER BY revision", revision)
	if err != nil {
		return nil, fmt.Errorf("read delivery states: %w", err)
	}
	return deliveries, nil
}

// scanDelivery reads deliveryColumns.
func scanDelivery(row interface{ Scan(...any) error }) (store.Delivery, error) {
	var (
		delivery store.Delivery
		encoded  encoding.Delivery
	)
	err := row.Scan(&delivery.Key.Namespace, &delivery.Key.Name, &delivery.Token, &delivery.Cursor, &encoded.Open,
		&delivery.Behind, &encoded.Health, &encoded.Life, &delivery.Operations, &delivery.Revision, &delivery.SetAside)
	if err != nil {
		return delivery, err
	}
	err = encoded.Decode(&delivery)
	return delivery, err
}

// SetAsideEvents implements store.Deliveries.
func (s *Store) SetAsideEvents(ctx context.Context, key store.SubscriptionKey, after int64, limit int) (positions []int64, err error) {
	err = queryAll(ctx, s.read, func(rows *sql.Rows) error {
		var position int64
		err := rows.Scan(&position)
		positions = append(positions, position)
		return err
	}, `SELECT position FROM set_aside WHERE namespace = ? AND name = ? AND position > ? ORDER BY position LIMIT ?`,
		key.Namespace, key.Name, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read what was set aside: %w", err)
	}
	return positions, nil
}
