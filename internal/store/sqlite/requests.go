package sqlite

import (
	"context"
	"database/sql"
	"fmt"

	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/encoding"
)

const (
	// It inserts nothing where there is no subscription, and changes nothing where
	// the value is the same.
	upsertRequest = `INSERT INTO requests (namespace, name, type, value, details, revision)
		SELECT ?1, ?2, ?3, ?4, ?5, ?6 FROM deliveries WHERE namespace = ?1 AND name = ?2
		ON CONFLICT DO UPDATE SET value = excluded.value, details = excluded.details, revision = excluded.revision
		WHERE value <> excluded.value`

	dropRequests = `DELETE FROM requests WHERE namespace = ? AND name = ?`

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
	err = s.writer.do(ctx, func(tx *transaction) error {
		_, err := tx.exec(tx.upsertRequest, request.Key.Namespace, request.Key.Name, request.Type, request.Value,
			details, tx.nextRevision())
		return err
	})
	if err != nil {
		return fmt.Errorf("put the request: %w", err)
	}
	return nil
}

// LoadRequests implements store.Requests.
func (s *Store) LoadRequests(ctx context.Context, key store.SubscriptionKey) ([]store.Request, error) {
	return s.requests(ctx, selectRequests+" WHERE namespace = ? AND name = ? ORDER BY revision", key.Namespace, key.Name)
}

// RequestsSince implements store.Requests.
func (s *Store) RequestsSince(ctx context.Context, revision int64) ([]store.Request, error) {
	return s.requests(ctx, selectRequests+" WHERE revision > ? ORDER BY revision", revision)
}

func (s *Store) requests(ctx context.Context, query string, arguments ...any) (requests []store.Request, err error) {
	err = queryAll(ctx, s.read, func(rows *sql.Rows) error {
		var (
			request store.Request
			details []byte
		)
		if err := rows.Scan(&request.Key.Namespace, &request.Key.Name, &request.Type, &request.Value, &details, &request.Revision); err != nil {
			return err
		}
		if err := encoding.DecodeRequest(details, &request); err != nil {
			return err
		}
		requests = append(requests, request)
		return nil
	}, query, arguments...)
	if err != nil {
		return nil, fmt.Errorf("read requests: %w", err)
	}
	return requests, nil
}

// queryAll runs a query and has each row scanned.
func queryAll(ctx context.Context, db *preparedDB, scan func(*sql.Rows) error, query string, arguments ...any) error {
	rows, err := db.QueryContext(ctx, query, arguments...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // rows.Err has what matters
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
