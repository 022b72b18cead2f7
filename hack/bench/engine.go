package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"postbus.dev/postbus/internal/testkit"
)

// engine is what a store is kept in.
type engine string

const (
	sqliteEngine   engine = "SQLite"
	postgresEngine engine = "PostgreSQL"
)

// storePlace is where a store that is empty can be made: a file of SQLite, or a file
// with the connection string of a database.
type storePlace struct {
	engine engine
	file   string
}

// newStore makes room for a store.
func (p *plane) newStore(ctx context.Context, e engine, name string) (storePlace, error) {
	return p.newStoreIn(ctx, p.folder, e, name)
}

// newStoreInMemory is newStore where no commit waits for the disk.
func (p *plane) newStoreInMemory(ctx context.Context, e engine, name string) (made storePlace, err error) {
	if e == sqliteEngine {
		return p.newStoreIn(ctx, p.memory, e, name)
	}
	if made, err = p.newStore(ctx, e, name); err != nil {
		return made, err
	}
	_, err = p.query(ctx, "ALTER DATABASE "+made.name()+" SET synchronous_commit = off")
	return made, err
}

func (p *plane) newStoreIn(ctx context.Context, folder string, e engine, name string) (storePlace, error) {
	p.stores++
	name += strconv.Itoa(p.stores)
	made := storePlace{engine: e, file: filepath.Join(folder, name)}
	if e == sqliteEngine {
		return made, nil
	}
	if err := p.startPostgreSQL(); err != nil {
		return made, err
	}
	if _, err := p.query(ctx, "CREATE DATABASE "+name); err != nil {
		return made, err
	}
	if err := os.WriteFile(made.file, []byte(p.server.DSN(name)), 0o600); err != nil {
		return made, fmt.Errorf("write the connection string: %w", err)
	}
	return made, nil
}

// query runs a statement on PostgreSQL as its superuser, and returns the text that comes
// of it, if any.
func (p *plane) query(ctx context.Context, statement string) (text string, err error) {
	conn, err := pgx.Connect(ctx, p.server.DSN("postgres"))
	if err != nil {
		return "", fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }() // nothing is open on it
	if err := conn.QueryRow(ctx, statement).Scan(&text); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("run %q: %w", statement, err)
	}
	return text, nil
}

// startPostgreSQL starts the server when it is needed first. It flushes what it
// commits, unlike those of tests.
func (p *plane) startPostgreSQL() (err error) {
	if p.server != nil {
		return nil
	}
	if p.server, err = testkit.StartPostgreSQL(); err != nil {
		return err
	}
	if err := p.server.Stop(); err != nil {
		return err
	}
	p.server.Durable = true
	return p.server.Start()
}

// name is the database's.
func (s storePlace) name() string { return filepath.Base(s.file) }

// flag names the store to postbus.
func (s storePlace) flag() string {
	if s.engine == sqliteEngine {
		return "--store=" + s.file
	}
	return "--store-dsn-file=" + s.file
}

// bareFlag names the store to the bare server.
func (s storePlace) bareFlag() string {
	return strings.Replace(s.flag(), "--store-dsn-file", "--dsn-file", 1)
}

// remove removes the store, so that the next ones have the disk and the memory.
func (s storePlace) remove(ctx context.Context, p *plane) error {
	if s.engine == postgresEngine {
		_, err := p.query(ctx, "DROP DATABASE IF EXISTS "+s.name()+" WITH (FORCE)")
		return err
	}
	var errs []error
	for _, file := range s.files() {
		errs = append(errs, os.Remove(file))
	}
	return errors.Join(errs...)
}

// files are those that a store in SQLite has: its own, and what the engine has beside it.
func (s storePlace) files() (there []string) {
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		if _, err := os.Stat(s.file + suffix); err == nil {
			there = append(there, s.file+suffix)
		}
	}
	return there
}

// size is how many bytes the store has, when no process has it open.
func (s storePlace) size(ctx context.Context, p *plane) (bytes float64, err error) {
	if s.engine == postgresEngine {
		size, err := p.query(ctx, "SELECT pg_database_size('"+s.name()+"')::text")
		if err != nil {
			return 0, err
		}
		return strconv.ParseFloat(size, 64)
	}
	for _, file := range s.files() {
		info, err := os.Stat(file)
		if err != nil {
			return 0, fmt.Errorf("measure the store: %w", err)
		}
		bytes += float64(info.Size())
	}
	return bytes, nil
}
