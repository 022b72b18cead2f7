package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Backup copies the store in the file at path to a new file at target, as it is at
// one moment, beside the process that has it open, which goes on meanwhile. Nothing
// is at target before all of it is there and flushed. The copy is as secret as the
// store. The error wraps os.ErrExist when there is a file at target, and those of
// OpenReader.
func Backup(ctx context.Context, path, target string) (err error) {
	if _, err := os.Lstat(target); err == nil {
		return fmt.Errorf("back up the store to %s: %w", target, os.ErrExist)
	}
	reader, err := OpenReader(ctx, path)
	if err != nil {
		return err
	}
	if err := reader.Close(); err != nil {
		return err
	}
	folder, err := os.MkdirTemp(filepath.Dir(target), ".backup-") // for its owner alone
	if err != nil {
		return fmt.Errorf("back up the store: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	partial := filepath.Join(folder, "store")
	if err := createPrivate(partial); err != nil {
		return fmt.Errorf("back up the store: %w", err)
	}
	if err := vacuumInto(ctx, path, partial); err != nil {
		return fmt.Errorf("back up the store: %w", explain(err))
	}
	if err := leaveGap(ctx, partial); err != nil {
		return fmt.Errorf("back up the store: %w", err)
	}
	if err := flush(partial); err != nil {
		return fmt.Errorf("back up the store: %w", err)
	}
	if err := os.Rename(partial, target); err != nil {
		return fmt.Errorf("back up the store: %w", err)
	}
	return nil
}

// vacuumInto writes a copy without free pages into an empty file. A connection that
// may only read can't do that.
func vacuumInto(ctx context.Context, path, target string) (err error) {
	db, err := sql.Open("sqlite", dataSource(path)+"&mode=rw")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	_, err = db.ExecContext(ctx, `VACUUM INTO ?`, target)
	return err
}

// restoreGap is how many numbers of contacts whoever goes on with a copy leaves out.
const restoreGap = 1_000_000

// leaveGap has a copy give no contact a number that the store may give after it was
// copied: links in mails name contacts by their numbers, and those to people who are
// not in the copy would open others.
func leaveGap(ctx context.Context, path string) (err error) {
	db, err := sql.Open("sqlite", dataSource(path)+"&mode=rw")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	_, err = db.ExecContext(ctx, `UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'contacts'`, restoreGap)
	return err
}

// flush returns once a file is on the disk.
func flush(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
