package main

import (
	"context"
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
	p.stores++
	name += strconv.Itoa(p.stores)
	made := storePlace{engine: e, file: filepath.Join(p.folder, name)}
	if e == sqliteEngine {
		return made, nil
	}
	if err := p.startPostgreSQL(); err != nil {
		return made, err
	}
	conn, err := pgx.Connect(ctx, p.server.DSN("postgres"))
	if err != nil {
		return made, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }() // nothing is open on it
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return made, fmt.Errorf("make a database: %w", err)
	}
	if err := os.WriteFile(made.file, []byte(p.server.DSN(name)), 0o600); err != nil {
		return made, fmt.Errorf("write the connection string: %w", err)
	}
	return made, nil
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
