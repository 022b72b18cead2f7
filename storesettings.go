package main

import (
	"context"
	"errors"
	"flag"
	"time"

	"github.com/go-logr/logr"

	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/postgres"
	"postbus.dev/postbus/internal/store/sqlite"
)

// storeSettings are what the flags of the store say: which engine, and where.
type storeSettings struct {
	file string
	// dsnFile has the connection string of PostgreSQL; empty for SQLite.
	dsnFile string
}

func (s *storeSettings) register(flags *flag.FlagSet) {
	flags.StringVar(&s.file, "store", "postbus.db", "`file` of the SQLite store, made when there is none; one process at a time")
	flags.StringVar(&s.dsnFile, "store-dsn-file", "",
		"`file` with the connection string of a store in PostgreSQL 15 or newer, for any number of processes; read again for new connections")
}

// check finds what one flag alone can't tell.
func (s *storeSettings) check(flags *flag.FlagSet) (err error) {
	if s.dsnFile == "" {
		return nil
	}
	flags.Visit(func(set *flag.Flag) {
		if set.Name == "store" {
			err = errors.New("--store and --store-dsn-file are two stores, name one")
		}
	})
	return err
}

// shared tells whether other processes may have the store open, too.
func (s *storeSettings) shared() bool { return s.dsnFile != "" }

// open opens the store of a command. A store in SQLite is migrated, and so is one in PostgreSQL by
// standalone, which is all of an installation. The others never do that: they wait for postbus
// migrate, which has the connection string of the tables' owner.
func (s *storeSettings) open(ctx context.Context, command string) (opened store.Store, err error) {
	if !s.shared() {
		return sqlite.Open(ctx, s.file)
	}
	options := postgres.Options{DSNFile: s.dsnFile}
	err = waitForStore(ctx, func() (err error) {
		opened, err = postgres.Open(ctx, options)
		if command != "standalone" || !errors.Is(err, store.ErrNotMigrated) {
			return err
		}
		done, err := postgres.Migrate(ctx, options, postgres.Roles{})
		if err != nil {
			return err
		}
		logr.FromContextOrDiscard(ctx).Info("Migrated the store", "done", done)
		opened, err = postgres.Open(ctx, options)
		return err
	})
	if err != nil {
		return nil, err
	}
	return opened, nil
}

// storePatience is how long a start waits for a database that is not there yet, or not migrated.
const storePatience = 30 * time.Second

// waitForStore tries until the store is there and migrated, or the patience ends.
func waitForStore(ctx context.Context, try func() error) error {
	logger := logr.FromContextOrDiscard(ctx)
	for deadline := time.Now().Add(storePatience); ; {
		err := try()
		if !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrNotMigrated) || time.Now().After(deadline) {
			return err
		}
		logger.Info("Waiting for the store", "reason", err.Error())
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
