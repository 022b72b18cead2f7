package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

const (
	selectNamespace = `SELECT uid, begins FROM namespaces WHERE name = $1`

	// An empty $2 is a namespace that is not bound: it has no row.
	adoptNamespace = `INSERT INTO namespaces AS n (name, uid)
		SELECT $1, $3 WHERE $2 = '' OR EXISTS (SELECT FROM namespaces WHERE name = $1 AND uid = $2)
		ON CONFLICT (name) DO UPDATE SET uid = excluded.uid WHERE n.uid = $2`

	// It is one statement, so that data is removed only when the binding changes.
	renewNamespace = `WITH renewed AS (
			UPDATE namespaces SET uid = $3, begins = (SELECT value FROM counters WHERE name = 'log') WHERE name = $1 AND uid = $2 AND uid <> $3
				AND NOT EXISTS (SELECT FROM contacts WHERE namespace = $1)
				AND NOT EXISTS (SELECT FROM deliveries WHERE namespace = $1 AND ` + ofSubscription + `) RETURNING name),
		d AS (DELETE FROM deliveries USING renewed r WHERE namespace = r.name),
		a AS (DELETE FROM set_aside USING renewed r WHERE namespace = r.name),
		q AS (DELETE FROM requests USING renewed r WHERE namespace = r.name),
		t AS (DELETE FROM attempts USING renewed r WHERE namespace = r.name),
		x AS (DELETE FROM texts USING renewed r WHERE namespace = r.name),
		l AS (DELETE FROM lists USING renewed r WHERE namespace = r.name),
		k AS (DELETE FROM key_usage USING renewed r WHERE namespace = r.name),
		b AS (DELETE FROM bound_objects USING renewed r WHERE namespace = r.name)
		SELECT FROM renewed`

	bindObject = `INSERT INTO bound_objects (uid, namespace) SELECT $3, name FROM namespaces WHERE name = $1 AND uid = $2
		ON CONFLICT (uid) DO UPDATE SET namespace = excluded.namespace`

	releaseObject = `DELETE FROM bound_objects WHERE uid = $1`

	selectBound = `SELECT EXISTS (SELECT FROM bound_objects WHERE uid = $1)`

	removeEvents = `SELECT remove_events($1, $2, $3)`

	// These are parts of the function, which names the page "old". The order is that of the index on
	// addresses, so that a page is all that is read.
	eventsOfNamespace = `SELECT position, day FROM events WHERE namespace = $1 ORDER BY list, address, position LIMIT $2`

	eventsOfList = `SELECT position, day FROM events WHERE namespace = $1 AND list = $3 ORDER BY address, position LIMIT $2`
)

// LoadNamespace implements store.Namespaces.
func (s *Store) LoadNamespace(ctx context.Context, name string) (store.Namespace, error) {
	bound := store.Namespace{Name: name}
	err := s.readRow(ctx, []any{&bound.UID, &bound.Begins}, selectNamespace, name)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return store.Namespace{}, fmt.Errorf("load a namespace: %w", err)
	}
	return bound, nil
}

// AdoptNamespace implements store.Namespaces.
func (s *Store) AdoptNamespace(ctx context.Context, name, from, to string) error {
	return s.bind(ctx, name, to, func(batch *pgx.Batch) *pgx.QueuedQuery { return batch.Queue(adoptNamespace, name, from, to) })
}

// RenewNamespace implements store.Namespaces.
func (s *Store) RenewNamespace(ctx context.Context, name, from, to string) error {
	return s.bind(ctx, name, to, func(batch *pgx.Batch) *pgx.QueuedQuery {
		lockCounter(batch, "log")
		lockCounter(batch, "deliveries")
		return batch.Queue(renewNamespace, name, from, to)
	})
}

// bind queues a statement that binds a namespace to a UID. When it did nothing, the
// namespace must be bound to the UID already.
func (s *Store) bind(ctx context.Context, name, uid string, queue func(*pgx.Batch) *pgx.QueuedQuery) error {
	var changed int64
	err := s.write(ctx, func(batch *pgx.Batch) {
		queue(batch).Exec(func(made pgconn.CommandTag) error {
			changed = made.RowsAffected()
			return nil
		})
	})
	if err == nil && changed == 0 {
		var bound store.Namespace
		if bound, err = s.LoadNamespace(ctx, name); err == nil && bound.UID != uid {
			err = store.ErrBound
		}
	}
	if err != nil {
		return fmt.Errorf("bind a namespace: %w", err)
	}
	return nil
}

// BindObject implements store.Namespaces.
func (s *Store) BindObject(ctx context.Context, namespace, namespaceUID, object string) error {
	var changed int64
	err := s.write(ctx, func(batch *pgx.Batch) {
		batch.Queue(bindObject, namespace, namespaceUID, object).Exec(func(made pgconn.CommandTag) error {
			changed = made.RowsAffected()
			return nil
		})
	})
	if err == nil && changed == 0 {
		err = store.ErrBound
	}
	if err != nil {
		return fmt.Errorf("bind an object: %w", err)
	}
	return nil
}

// ReleaseObject implements store.Namespaces.
func (s *Store) ReleaseObject(ctx context.Context, object string) error {
	err := s.write(ctx, func(batch *pgx.Batch) { batch.Queue(releaseObject, object) })
	if err != nil {
		return fmt.Errorf("release an object: %w", err)
	}
	return nil
}

// IsBound implements store.Namespaces.
func (s *Store) IsBound(ctx context.Context, object string) (bound bool, err error) {
	if err := s.readRow(ctx, []any{&bound}, selectBound, object); err != nil {
		return false, fmt.Errorf("look for an object's binding: %w", err)
	}
	return bound, nil
}

// RemoveEvents implements store.Namespaces.
func (s *Store) RemoveEvents(ctx context.Context, list contact.ListKey, limit int) (removed int, err error) {
	err = s.write(ctx, func(batch *pgx.Batch) {
		lockCounter(batch, "deliveries") // for the dead letters
		batch.Queue(removeEvents, list.Namespace, limit, list.Name).QueryRow(func(row pgx.Row) error { return row.Scan(&removed) })
	})
	if err != nil {
		return 0, fmt.Errorf("remove the events of a list: %w", err)
	}
	return removed, nil
}
