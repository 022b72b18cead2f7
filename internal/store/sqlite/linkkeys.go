package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"postbus.dev/postbus/internal/link"
	"postbus.dev/postbus/internal/store"
)

const (
	// selectLinkKeys returns the valid keys, the one that signs first: the newest of those
	// that have started, or else the one that starts first.
	selectLinkKeys = `SELECT id, secret FROM link_keys WHERE expires IS NULL OR expires > ?1
		ORDER BY starts <= ?1 DESC, CASE WHEN starts <= ?1 THEN -starts ELSE starts END`

	deleteExpiredLinkKeys = `DELETE FROM link_keys WHERE expires <= ?`

	countLinkKeys = `SELECT count(*) FROM link_keys`

	expireLinkKeys = `UPDATE link_keys SET expires = min(coalesce(expires, ?1), ?1)`

	insertLinkKey = `INSERT INTO link_keys (id, secret, starts) VALUES (?, ?, ?)`
)

// LinkKeys implements store.Store.
func (s *Store) LinkKeys(ctx context.Context) (*link.Ring, error) {
	ring, err := s.linkKeys.Ring(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the link keys: %w", err)
	}
	return ring, nil
}

func (s *Store) loadLinkKeys(ctx context.Context) (keys []link.Key, err error) {
	rows, err := s.read.QueryContext(ctx, selectLinkKeys, time.Now().UnixNano())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var id string
		var key link.Key
		if err := rows.Scan(&id, &key.Secret); err != nil {
			return nil, err
		}
		if key.ID, err = link.ParseKeyID(id); err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, rows.Err()
}

// executor is a database or a transaction.
type executor interface {
	ExecContext(ctx context.Context, query string, arguments ...any) (sql.Result, error)
}

// addLinkKey makes a new key that signs from this time on.
func addLinkKey(ctx context.Context, db executor, starts time.Time) (id link.KeyID, err error) {
	id = link.NewKeyID()
	_, err = db.ExecContext(ctx, insertLinkKey, id.String(), rand.Text(), starts.UnixNano())
	return id, err
}

// RotateLinkKey makes a new link key in the store in the file at path, beside the process that
// has it open. Older keys verify until the overlap ends; without an overlap they are removed, and
// the new key signs at once. Otherwise it signs after store.LinkKeyDelay. It returns the new
// key's id. Errors are those of OpenReader, and store.ErrTooManyLinkKeys.
func RotateLinkKey(ctx context.Context, path string, overlap time.Duration) (id link.KeyID, err error) {
	reader, err := OpenReader(ctx, path) // which checks the file
	if err != nil {
		return id, err
	}
	if err := reader.Close(); err != nil {
		return id, fmt.Errorf("rotate the link key: %w", err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return id, fmt.Errorf("rotate the link key: %w", err)
	}
	db, err := sql.Open("sqlite", dataSource(path, "synchronous(FULL)", "secure_delete(1)")+"&mode=rw&_txlock=immediate")
	if err != nil {
		return id, fmt.Errorf("rotate the link key: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if id, err = rotate(ctx, db, overlap); err != nil {
		return id, fmt.Errorf("rotate the link key: %w", explain(err))
	}
	return id, nil
}

// rotate is one transaction, which the process that has the store open waits for.
func rotate(ctx context.Context, db *sql.DB, overlap time.Duration) (id link.KeyID, err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return id, err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	now := time.Now()
	ends, starts := now.Add(overlap), now.Add(store.LinkKeyDelay)
	if overlap <= 0 {
		ends, starts = now, now
	}
	if _, err := tx.ExecContext(ctx, expireLinkKeys, ends.UnixNano()); err != nil {
		return id, err
	}
	if _, err := tx.ExecContext(ctx, deleteExpiredLinkKeys, now.UnixNano()); err != nil {
		return id, err
	}
	var count int
	if err := tx.QueryRowContext(ctx, countLinkKeys).Scan(&count); err != nil {
		return id, err
	}
	if count >= store.MaxLinkKeys {
		return id, fmt.Errorf("%w: %d, at most %d; a shorter overlap ends older ones", store.ErrTooManyLinkKeys, count, store.MaxLinkKeys)
	}
	if id, err = addLinkKey(ctx, tx, starts); err != nil {
		return id, err
	}
	return id, tx.Commit()
}
