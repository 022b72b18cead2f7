package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"postbus.dev/postbus/internal/store/sqlite"
)

// toStandardOutput is the target of a backup that is written to out, for a pod has
// no program that could fetch a file.
const toStandardOutput = "-"

// backUp copies a SQLite store beside the process that works with it.
func backUp(ctx context.Context, arguments []string, out io.Writer) error {
	flags := flag.NewFlagSet("postbus backup", flag.ContinueOnError)
	flags.SetOutput(os.Stderr) // what goes to out may be the backup
	file := flags.String("store", "postbus.db", "`file` of the SQLite store to copy")
	target := flags.String("to", "", "`file` to make; - for standard output, with a file beside the store until it is through")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case *target == "":
		return errors.New("--to is missing: the file to make, or -")
	case *target != toStandardOutput:
		return sqlite.Backup(ctx, *file, *target)
	}
	return streamBackup(ctx, *file, out)
}

// streamBackup writes the copy to out.
func streamBackup(ctx context.Context, file string, out io.Writer) (err error) {
	folder, err := os.MkdirTemp(filepath.Dir(file), ".backup-")
	if err != nil {
		return fmt.Errorf("back up the store: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	copied := filepath.Join(folder, "backup.db")
	if err := sqlite.Backup(ctx, file, copied); err != nil {
		return err
	}
	backup, err := os.Open(copied)
	if err != nil {
		return fmt.Errorf("read the backup: %w", err)
	}
	defer func() { err = errors.Join(err, backup.Close()) }()
	if _, err := io.Copy(out, backup); err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	return nil
}
