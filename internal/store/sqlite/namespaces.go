package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

const (
	selectNamespace = `SELECT uid, begins FROM namespaces WHERE name = ?`

	namespaceIsBound = `SELECT EXISTS (SELECT 1 FROM namespaces WHERE name = ? AND uid = ?)`

	// An empty ?2 is a namespace that is not bound: it has no row.
	adoptNamespace = `INSERT INTO namespaces (name, uid, begins)
		SELECT ?1, ?3, 0 WHERE ?2 = '' OR EXISTS (SELECT 1 FROM namespaces WHERE name = ?1 AND uid = ?2)
		ON CONFLICT DO UPDATE SET uid = excluded.uid WHERE uid = ?2`

	renewNamespace = `UPDATE namespaces SET uid = ?3, begins = ?4 WHERE name = ?1 AND uid = ?2
		AND NOT EXISTS (SELECT 1 FROM contacts WHERE namespace = ?1)
		AND NOT EXISTS (SELECT 1 FROM deliveries WHERE namespace = ?1 AND ` + ofSubscription + `)`

	bindObject = `INSERT OR REPLACE INTO bound_objects (uid, namespace) SELECT ?3, name FROM namespaces WHERE name = ?1 AND uid = ?2`

	releaseObject = `DELETE FROM bound_objects WHERE uid = ?`

	selectBound = `SELECT EXISTS (SELECT 1 FROM bound_objects WHERE uid = ?)`

	// eventsOfList are events of a list, or of a namespace where ?2 is empty: no name of a
	// list is above '~'. The order is that of the index on addresses.
	eventsOfList = `(SELECT position FROM events WHERE namespace = ?1 AND list BETWEEN ?2 AND iif(?2 = '', '~', ?2)
		ORDER BY list, address, position LIMIT ?3)`

	removeSetAside = `DELETE FROM set_aside WHERE position IN ` + eventsOfList

	removeEvents = `DELETE FROM events WHERE position IN ` + eventsOfList
)

// LoadNamespace implements store.Namespaces.
func (s *Store) LoadNamespace(ctx context.Context, name string) (store.Namespace, error) {
	bound := store.Namespace{Name: name}
	err := s.read.QueryRowContext(ctx, selectNamespace, name).Scan(&bound.UID, &bound.Begins)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return store.Namespace{}, fmt.Errorf("load a namespace: %w", err)
	}
	return bound, nil
}

// AdoptNamespace implements store.Namespaces.
func (s *Store) AdoptNamespace(ctx context.Context, name, from, to string) error {
	err := s.writer.do(ctx, func(tx *transaction) error {
		_, err := tx.bind(name, to, tx.adoptNamespace, name, from, to)
		return err
	})
	if err != nil {
		return fmt.Errorf("adopt a namespace: %w", err)
	}
	return nil
}

// RenewNamespace implements store.Namespaces.
func (s *Store) RenewNamespace(ctx context.Context, name, from, to string) error {
	err := s.writer.do(ctx, func(tx *transaction) error {
		renewed, err := tx.bind(name, to, tx.renewNamespace, name, from, to, tx.head)
		if err != nil || !renewed {
			return err
		}
		for _, table := range []string{"deliveries", "set_aside", "requests", "attempts", "texts", "lists", "key_usage", "bound_objects"} {
			if _, err := tx.conn.ExecContext(tx.ctx, `DELETE FROM `+table+` WHERE namespace = ?`, name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("renew a namespace: %w", err)
	}
	return nil
}

// bind runs a statement that binds a namespace to a UID, unless the namespace is bound to
// it, and reports whether the statement did.
func (tx *transaction) bind(name, uid string, statement *sql.Stmt, arguments ...any) (done bool, err error) {
	var bound bool
	if err := tx.row(tx.namespaceIsBound, name, uid).Scan(&bound); bound || err != nil {
		return false, err
	}
	result, err := tx.exec(statement, arguments...)
	if err != nil {
		return false, err
	}
	rows, err := result.RowsAffected()
	if err == nil && rows == 0 {
		err = refusal{store.ErrBound}
	}
	return rows > 0, err
}

// BindObject implements store.Namespaces.
func (s *Store) BindObject(ctx context.Context, namespace, namespaceUID, object string) error {
	err := s.writer.do(ctx, func(tx *transaction) error {
		result, err := tx.exec(tx.bindObject, namespace, namespaceUID, object)
		if err != nil {
			return err
		}
		rows, err := result.RowsAffected()
		if err == nil && rows == 0 {
			err = refusal{store.ErrBound}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("bind an object: %w", err)
	}
	return nil
}

// ReleaseObject implements store.Namespaces.
func (s *Store) ReleaseObject(ctx context.Context, object string) error {
	err := s.writer.do(ctx, func(tx *transaction) error {
		_, err := tx.exec(tx.releaseObject, object)
		return err
	})
	if err != nil {
		return fmt.Errorf("release an object: %w", err)
	}
	return nil
}

// IsBound implements store.Namespaces.
func (s *Store) IsBound(ctx context.Context, object string) (bound bool, err error) {
	if err := s.read.QueryRowContext(ctx, selectBound, object).Scan(&bound); err != nil {
		return false, fmt.Errorf("look for an object's binding: %w", err)
	}
	return bound, nil
}

// RemoveEvents implements store.Namespaces.
func (s *Store) RemoveEvents(ctx context.Context, list contact.ListKey, limit int) (removed int, err error) {
	err = s.writer.do(ctx, func(tx *transaction) error {
		if _, err := tx.exec(tx.removeSetAside, list.Namespace, list.Name, limit); err != nil {
			return err
		}
		result, err := tx.exec(tx.removeEvents, list.Namespace, list.Name, limit)
		if err != nil {
			return err
		}
		rows, err := result.RowsAffected()
		removed = int(rows)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("remove the events of a list: %w", err)
	}
	return removed, nil
}
