package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"postbus.dev/postbus/internal/link"
	"postbus.dev/postbus/internal/store"
)

// selectLinkKeys returns the valid keys, the one that signs first: the newest of those that have
// started, or else the one that starts first. The times are by the server's clock.
const selectLinkKeys = `SELECT id, secret FROM link_keys, clock_timestamp() AS now WHERE expires_at > now
	ORDER BY starts_at <= now DESC, CASE WHEN starts_at <= now THEN now - starts_at ELSE starts_at - now END`

// LinkKeys implements store.Store.
func (s *Store) LinkKeys(ctx context.Context) (*link.Ring, error) {
	ring, err := s.linkKeys.Ring(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the link keys: %w", err)
	}
	return ring, nil
}

func (s *Store) loadLinkKeys(ctx context.Context) ([]link.Key, error) {
	return readAll(ctx, s, func(row pgx.CollectableRow) (key link.Key, err error) {
		var id string
		if err := row.Scan(&id, &key.Secret); err != nil {
			return key, err
		}
		key.ID, err = link.ParseKeyID(id)
		return key, err
	}, selectLinkKeys)
}

// RotateLinkKey makes a new link key in the store, beside the processes that use it. Older keys
// verify until the overlap ends; without an overlap they are removed, and the new key signs at
// once. Otherwise it signs after store.LinkKeyDelay. It returns the new key's id. The role of the
// connection string must be the owner or have been granted the rights of the controller. Errors
// are those of Open, and store.ErrTooManyLinkKeys.
func RotateLinkKey(ctx context.Context, options Options, overlap time.Duration) (id string, err error) {
	conn, schema, err := connectOnce(ctx, options.DSNFile)
	if err != nil {
		return "", fmt.Errorf("rotate the link key: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }() // nothing is open on it
	if err := checkSchema(ctx, conn, schema, len(migrations)); err != nil {
		return "", fmt.Errorf("rotate the link key: %w", explain(ctx, err))
	}
	err = conn.QueryRow(ctx, `SELECT rotate_link_key($1)`, max(overlap, 0)).Scan(&id)
	var answered *pgconn.PgError
	if errors.As(err, &answered) && answered.Code == tooManyLinkKeys {
		err = fmt.Errorf("%w: %d at most; a shorter overlap ends older ones", store.ErrTooManyLinkKeys, store.MaxLinkKeys)
	}
	if err != nil {
		return "", fmt.Errorf("rotate the link key: %w", explain(ctx, err))
	}
	return id, nil
}
