// Package sqlite is the store in one file, for one process.
//
// It is the embedded default: no server, no cgo. One goroutine writes
// (writer.go), so the order of the log is the order of commits, and every
// commit is flushed to the disk before anybody hears of it. Readers have
// connections of their own and never wait for the writer.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	"github.com/gofrs/flock"
	sqlitedriver "modernc.org/sqlite"
	sqlitecodes "modernc.org/sqlite/lib"

	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/linkkeys"
)

// readers is how many queries may read at the same time.
const readers = 4

// Store is a store.Store in one SQLite file.
type Store struct {
	writer   *writer
	read     *preparedDB
	lock     *flock.Flock
	owners   *owners
	identity string
	linkKeys *linkkeys.Keeper

	// lifetime ends with Close, and what runs in the background with it.
	lifetime   context.Context
	end        context.CancelFunc
	background sync.WaitGroup
}

var _ store.Store = (*Store)(nil)

// Open opens the store in the file at path and makes it when there is none.
// The folder must exist. The error wraps store.ErrInUse when another process
// has it open, store.ErrDamaged when its contents can't be read and
// store.ErrNewer when a newer version of this program has written it; nothing
// is changed then. Close must be called in the end.
func Open(ctx context.Context, path string) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find the store %s: %w", path, err)
	}
	s := &Store{lock: flock.New(path + ".lock"), owners: newOwners()}
	s.lifetime, s.end = context.WithCancel(context.WithoutCancel(ctx))
	s.linkKeys = linkkeys.New(s.loadLinkKeys)
	if err := s.open(context.WithoutCancel(ctx), path); err != nil {
		return nil, errors.Join(fmt.Errorf("open the store %s: %w", path, explain(err)), s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, path string) error {
	locked, err := s.lock.TryLock()
	if err != nil {
		return fmt.Errorf("lock it: %w", err)
	}
	if !locked {
		return store.ErrInUse
	}
	if err := createPrivate(path); err != nil {
		return err
	}
	write, err := sql.Open("sqlite", dataSource(path, "journal_mode(WAL)", "synchronous(FULL)",
		"secure_delete(1)")) // what is forgotten must not stay in free pages
	if err != nil {
		return err
	}
	// The writer owns write from here on, and closes it.
	s.writer = &writer{db: write}
	if err := check(ctx, write, readThroughSize); err != nil {
		return err
	}
	if err := migrate(ctx, write, migrations); err != nil {
		return err
	}
	read, err := sql.Open("sqlite", dataSource(path, "query_only(1)"))
	if err != nil {
		return err
	}
	read.SetMaxOpenConns(readers)
	read.SetMaxIdleConns(readers)
	s.read = prepareOnce(read)
	if err := s.readIdentity(ctx); err != nil {
		return err
	}
	if err := s.writer.start(ctx); err != nil {
		return err
	}
	s.background.Go(func() { s.linkKeys.Run(s.lifetime) })
	return nil
}

// createPrivate makes the file so that only its owner can read it: it holds
// personal data. SQLite gives its side files the same mode.
func createPrivate(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return file.Close()
}

func dataSource(path string, pragmas ...string) string {
	options := url.Values{"_pragma": append([]string{"busy_timeout(10000)"}, pragmas...)}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: options.Encode()}).String()
}

// explain turns SQLite's words for a damaged file into store.ErrDamaged.
func explain(err error) error {
	var driverError *sqlitedriver.Error
	if !errors.As(err, &driverError) {
		return err
	}
	switch driverError.Code() & 0xff { // the primary result code
	case sqlitecodes.SQLITE_NOTADB, sqlitecodes.SQLITE_CORRUPT:
		return fmt.Errorf("%w (%w): restore it from a backup", store.ErrDamaged, err)
	default:
		return err
	}
}

// Identity implements store.Store.
func (s *Store) Identity() string { return s.identity }

// Close implements store.Store. Writes that were already queued are finished.
func (s *Store) Close() error {
	s.end()
	s.background.Wait()
	var errs []error
	if s.read != nil {
		errs = append(errs, s.read.Close())
	}
	if s.writer != nil { // last, because the last connection tidies the file up, and readers may not write
		errs = append(errs, s.writer.close())
	}
	return errors.Join(append(errs, s.lock.Unlock())...)
}
