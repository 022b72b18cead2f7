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

func (s *storeSettings) open(ctx context.Context) (store.Store, error) {
	if !s.shared() {
		return sqlite.Open(ctx, s.file)
	}
	logger := logr.FromContextOrDiscard(ctx)
	for deadline := time.Now().Add(storePatience); ; {
		opened, err := postgres.Open(ctx, postgres.Options{DSNFile: s.dsnFile})
		if !errors.Is(err, store.ErrUnavailable) || time.Now().After(deadline) {
			return opened, err
		}
		logger.Info("waiting for the store", "reason", err.Error())
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// storePatience is how long a start waits for a database that is not there yet.
const storePatience = 30 * time.Second
