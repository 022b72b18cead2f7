package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/encoding"
)

const (
	// It inserts nothing where there is no subscription, and changes nothing where
	// the value is the same.
	upsertRequest = `INSERT INTO requests AS r (namespace, name, type, value, details, revision)
		SELECT $1, $2, $3, $4, $5::text::json, ` + nextRevision + ` FROM deliveries WHERE namespace = $1 AND name = $2
		ON CONFLICT (namespace, name, type) DO UPDATE SET value = excluded.value, details = excluded.details, revision = excluded.revision
		WHERE r.value <> excluded.value`

	selectRequests = `SELECT namespace, name, type, value, details, revision FROM requests`
)

// PutRequest implements store.Requests.
func (s *Store) PutRequest(ctx context.Context, request store.Request) error {
	details, err := encoding.Request(&request)
	if err != nil {
		return err
	}
	if _, err := s.LoadDelivery(ctx, request.Key); err != nil {
		return fmt.Errorf("put the request: %w", err)
	}
	err = s.write(ctx, func(batch *pgx.Batch) {
		lockCounter(batch, "deliveries")
		batch.Queue(upsertRequest, request.Key.Namespace, request.Key.Name, string(request.Type), request.Value, details)
		batch.Queue(raiseRevision, 1)
	})
	if err != nil {
		return fmt.Errorf("put the request: %w", err)
	}
	return nil
}

// LoadRequests implements store.Requests.
func (s *Store) LoadRequests(ctx context.Context, key store.SubscriptionKey) ([]store.Request, error) {
	return s.requests(ctx, selectRequests+ofKey+" ORDER BY revision", key.Namespace, key.Name)
}

// RequestsSince implements store.Requests.
func (s *Store) RequestsSince(ctx context.Context, revision int64) ([]store.Request, error) {
	return s.requests(ctx, selectRequests+" WHERE revision > $1 ORDER BY revision", revision)
}

func (s *Store) requests(ctx context.Context, query string, arguments ...any) ([]store.Request, error) {
	requests, err := readAll(ctx, s, scanRequest, query, arguments...)
	if err != nil {
		return nil, fmt.Errorf("read requests: %w", err)
	}
	return requests, nil
}

func scanRequest(row pgx.CollectableRow) (request store.Request, err error) {
	var details []byte
	err = row.Scan(&request.Key.Namespace, &request.Key.Name, &request.Type, &request.Value, &details, &request.Revision)
	if err != nil {
		return request, err
	}
	err = encoding.DecodeRequest(details, &request)
	return request, err
}
