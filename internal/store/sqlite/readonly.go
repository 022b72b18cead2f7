package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"postbus.dev/postbus/internal/store"
)

// Reader reads a store beside the process that has it open. It takes no lock and
// writes nothing, so neither notices the other.
type Reader struct {
	db *sql.DB
}

// OpenReader opens the store in the file at path for reading. The error wraps
// store.ErrDamaged when it is none, and store.ErrOtherVersion when another version
// of this program has written it. Close must be called in the end.
func OpenReader(ctx context.Context, path string) (*Reader, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find the store %s: %w", path, err)
	}
	if _, err := os.Stat(path); err != nil { // SQLite's words for it say less
		return nil, fmt.Errorf("open the store: %w", err)
	}
	db, err := sql.Open("sqlite", dataSource(path, "query_only(1)")+"&mode=ro")
	if err != nil {
		return nil, fmt.Errorf("open the store %s: %w", path, err)
	}
	if err := checkReadable(ctx, db); err != nil {
		return nil, errors.Join(fmt.Errorf("open the store %s: %w", path, explain(err)), db.Close())
	}
	return &Reader{db: db}, nil
}

// checkReadable refuses a file that this version can't read as it is.
func checkReadable(ctx context.Context, db *sql.DB) error {
	facts, err := readFacts(ctx, db)
	switch {
	case err != nil:
		return err
	case facts.applicationID != applicationID:
		return fmt.Errorf("%w: it is no store of Postbus", store.ErrDamaged)
	case facts.version != int64(len(migrations)):
		return fmt.Errorf("%w: it has schema %d, this program knows %d", store.ErrOtherVersion, facts.version, len(migrations))
	}
	return nil
}

// LoadAttempts returns all attempts that are kept of a subscription, oldest first.
func (r *Reader) LoadAttempts(ctx context.Context, key store.SubscriptionKey) ([]store.Attempt, error) {
	return loadAttempts(ctx, r.db, key, store.MaxAttempts)
}

// Close frees the file.
func (r *Reader) Close() error { return r.db.Close() }
