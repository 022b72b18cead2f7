package main

import (
	"context"
	"errors"
	"flag"

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
	if s.shared() {
		return postgres.Open(ctx, postgres.Options{DSNFile: s.dsnFile})
	}
	return sqlite.Open(ctx, s.file)
}
