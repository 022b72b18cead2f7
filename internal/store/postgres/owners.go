package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"postbus.dev/postbus/internal/store"
)

const (
	// join tells the others when a dispatcher is new, or was dead.
	join = `WITH known AS (SELECT FROM dispatchers WHERE name = $1 AND expires_at > clock_timestamp()),
		joined AS (INSERT INTO dispatchers (name, expires_at) VALUES ($1, clock_timestamp() + $2::interval)
			ON CONFLICT (name) DO UPDATE SET expires_at = excluded.expires_at)
		SELECT pg_notify($3, '') WHERE NOT EXISTS (SELECT FROM known)`

	selectLiving = `SELECT name FROM dispatchers WHERE expires_at > clock_timestamp() ORDER BY name`

	// Whoever has been dead for so long does not come back under its name.
	buryDead = `DELETE FROM dispatchers WHERE expires_at < clock_timestamp() - interval '1 hour'`

	leave = `DELETE FROM dispatchers WHERE name = $1`

	// lockOwner waits for others who claim the row; what they did is seen by the
	// next statement.
	lockOwner = `SELECT FROM deliveries` + ofKey + ` FOR UPDATE`

	// claimDelivery gives the row a token that it never had.
	claimDelivery = `UPDATE deliveries d SET token = nextval('tokens'), owner = me.id
		FROM dispatchers me WHERE d.namespace = $1 AND d.name = $2 AND me.name = $3 AND (
			d.owner IS NULL OR d.owner = me.id
			OR NOT EXISTS (SELECT FROM dispatchers o WHERE o.id = d.owner AND o.expires_at > clock_timestamp()))
		RETURNING ` + deliveryColumns

	selectOwner = `SELECT coalesce((SELECT name FROM dispatchers o WHERE o.id = d.owner), '') FROM deliveries d` + ofKey

	releaseDelivery = `WITH released AS (UPDATE deliveries SET owner = NULL
			WHERE namespace = $1 AND name = $2 AND owner = (SELECT id FROM dispatchers WHERE name = $3) RETURNING true)
		SELECT pg_notify($4, '') FROM released`
)

// Join implements store.Owners.
func (s *Store) Join(ctx context.Context, dispatcher string, lasting time.Duration) (living []string, err error) {
	err = s.write(ctx, func(batch *pgx.Batch) {
		batch.Queue(join, dispatcher, lasting, s.ownersChannel())
		batch.Queue(buryDead)
		batch.Queue(selectLiving).Query(func(rows pgx.Rows) (err error) {
			living, err = pgx.CollectRows(rows, pgx.RowTo[string])
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("join the dispatchers: %w", err)
	}
	return living, nil
}

// Leave implements store.Owners.
func (s *Store) Leave(ctx context.Context, dispatcher string) error {
	err := s.write(ctx, func(batch *pgx.Batch) {
		batch.Queue(leave, dispatcher)
		batch.Queue(notify, s.ownersChannel(), "")
	})
	if err != nil {
		return fmt.Errorf("leave the dispatchers: %w", err)
	}
	return nil
}

// errNotJoined: who is not one of the living can own nothing.
var errNotJoined = errors.New("the dispatcher has not joined")

// ClaimDelivery implements store.Owners.
func (s *Store) ClaimDelivery(ctx context.Context, key store.SubscriptionKey, dispatcher string) (store.Delivery, error) {
	var (
		claimed []store.Delivery
		owners  []string
	)
	err := s.write(ctx, func(batch *pgx.Batch) {
		batch.Queue(lockOwner, key.Namespace, key.Name)
		batch.Queue(claimDelivery, key.Namespace, key.Name, dispatcher).Query(func(rows pgx.Rows) (err error) {
			claimed, err = pgx.CollectRows(rows, scanDelivery)
			return err
		})
		batch.Queue(selectOwner, key.Namespace, key.Name).Query(func(rows pgx.Rows) (err error) {
			owners, err = pgx.CollectRows(rows, pgx.RowTo[string])
			return err
		})
	})
	switch {
	case err != nil:
	case len(owners) == 0:
		err = store.ErrNotFound
	case len(claimed) > 0:
		return claimed[0], nil
	case owners[0] == "" || owners[0] == dispatcher:
		err = errNotJoined
	default:
		err = fmt.Errorf("%w: %s", store.ErrOwned, owners[0])
	}
	return store.Delivery{}, fmt.Errorf("claim the delivery state: %w", err)
}

// ReleaseDelivery implements store.Owners.
func (s *Store) ReleaseDelivery(ctx context.Context, key store.SubscriptionKey, dispatcher string) error {
	err := s.write(ctx, func(batch *pgx.Batch) {
		batch.Queue(releaseDelivery, key.Namespace, key.Name, dispatcher, s.ownersChannel())
	})
	if err != nil {
		return fmt.Errorf("release the delivery state: %w", err)
	}
	return nil
}
