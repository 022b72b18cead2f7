package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/encoding"
)

const (
	// nextRevision is that of the one row that a transaction writes which has locked
	// the counter.
	nextRevision = `(SELECT value + 1 FROM counters WHERE name = 'deliveries')`

	raiseRevision = `UPDATE counters SET value = value + $1 WHERE name = 'deliveries'`

	// What is committed after it lies behind the head that it sees.
	insertDelivery = `INSERT INTO deliveries (namespace, name, cursor, revision)
		SELECT $1, $2, value, ` + nextRevision + ` FROM counters WHERE name = 'log' ON CONFLICT DO NOTHING`

	// deliveryColumns are those of a row d.
	deliveryColumns = `d.namespace, d.name, d.token, d.cursor, d.open, d.behind, d.health, d.life, d.operations, d.revision,
		(SELECT count(*) FROM set_aside s WHERE s.namespace = d.namespace AND s.name = d.name)`

	selectDeliveries = `SELECT ` + deliveryColumns + ` FROM deliveries d`

	// ofSubscription tells rows of subscriptions from those of mails, see
	// store.MailKey. No object's name has a slash.
	ofSubscription = `name NOT LIKE '%/%'`

	ofKey = ` WHERE namespace = $1 AND name = $2`

	selectSetAside = `SELECT position FROM set_aside` + ofKey + ` AND position > $3 ORDER BY position LIMIT $4`
)

// OpenDelivery implements store.Deliveries.
func (s *Store) OpenDelivery(ctx context.Context, key store.SubscriptionKey) error {
	err := s.write(ctx, func(batch *pgx.Batch) {
		lockCounter(batch, "deliveries")
		batch.Queue(insertDelivery, key.Namespace, key.Name)
		batch.Queue(raiseRevision, 1)
	})
	if err != nil {
		return fmt.Errorf("open the delivery state: %w", err)
	}
	return nil
}

// DropDelivery implements store.Deliveries.
func (s *Store) DropDelivery(ctx context.Context, key store.SubscriptionKey) error {
	err := s.write(ctx, func(batch *pgx.Batch) {
		lockCounter(batch, "deliveries")
		for _, table := range []string{"deliveries", "set_aside", "requests", "attempts"} {
			batch.Queue(`DELETE FROM `+table+ofKey, key.Namespace, key.Name)
		}
	})
	if err != nil {
		return fmt.Errorf("drop the delivery state: %w", err)
	}
	return nil
}

// LoadDelivery implements store.Deliveries.
func (s *Store) LoadDelivery(ctx context.Context, key store.SubscriptionKey) (store.Delivery, error) {
	found, err := readAll(ctx, s, scanDelivery, selectDeliveries+ofKey, key.Namespace, key.Name)
	if err == nil && len(found) == 0 {
		err = store.ErrNotFound
	}
	if err != nil {
		return store.Delivery{}, fmt.Errorf("load the delivery state: %w", err)
	}
	return found[0], nil
}

// DeliveriesSince implements store.Deliveries.
func (s *Store) DeliveriesSince(ctx context.Context, revision int64) ([]store.Delivery, error) {
	found, err := readAll(ctx, s, scanDelivery,
		selectDeliveries+" WHERE revision > $1 AND "+ofSubscription+" ORDER BY revision", revision)
	if err != nil {
		return nil, fmt.Errorf("read delivery states: %w", err)
	}
	return found, nil
}

// scanDelivery reads deliveryColumns.
func scanDelivery(row pgx.CollectableRow) (delivery store.Delivery, err error) {
	var encoded encoding.Delivery
	err = row.Scan(&delivery.Key.Namespace, &delivery.Key.Name, &delivery.Token, &delivery.Cursor, &encoded.Open,
		&delivery.Behind, &encoded.Health, &encoded.Life, &delivery.Operations, &delivery.Revision, &delivery.SetAside)
	if err != nil {
		return delivery, err
	}
	err = encoded.Decode(&delivery)
	return delivery, err
}

// SetAsideEvents implements store.Deliveries.
func (s *Store) SetAsideEvents(ctx context.Context, key store.SubscriptionKey, after int64, limit int) ([]int64, error) {
	positions, err := readAll(ctx, s, pgx.RowTo[int64], selectSetAside, key.Namespace, key.Name, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read what was set aside: %w", err)
	}
	return positions, nil
}

// keyArrays are columns of keys.
type keyArrays struct{ namespaces, names []string }

func (a *keyArrays) add(key store.SubscriptionKey) {
	a.namespaces = append(a.namespaces, key.Namespace)
	a.names = append(a.names, key.Name)
}
