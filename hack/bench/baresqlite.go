package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"postbus.dev/postbus/internal/store/sqlite"
)

// bareSQLite writes rows into a file with the tables of the store.
type bareSQLite struct {
	db   *sql.DB
	conn *sql.Conn

	find, contact, event, counts *sql.Stmt
	position                     int64
}

// openBareSQLite has the store's own engine make its tables, and opens the file beside it.
func openBareSQLite(ctx context.Context, file string) (bareStore, error) {
	made, err := sqlite.Open(ctx, file)
	if err != nil {
		return nil, err
	}
	if err := made.Close(); err != nil {
		return nil, err
	}
	s := &bareSQLite{}
	s.db, err = sql.Open("sqlite", "file:"+file+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=secure_delete(1)")
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", file, err)
	}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *bareSQLite) prepare(ctx context.Context) (err error) {
	if s.conn, err = s.db.Conn(ctx); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	for text, statement := range map[string]**sql.Stmt{
		`SELECT id FROM contacts WHERE namespace = 'bench' AND list = 'newsletter' AND address = ?`:                &s.find,
		`INSERT INTO contacts (namespace, list, address, revision, state) VALUES ('bench', 'newsletter', ?, 1, ?)`: &s.contact,
		`INSERT INTO events (position, id, namespace, list, address, type, source, time, payload)
			VALUES (?, ?, 'bench', 'newsletter', ?, ?, 'API', 1795000000000000000, ?)`: &s.event,
		`INSERT INTO lists VALUES ('bench', 'newsletter', ?1, ?1)
			ON CONFLICT DO UPDATE SET contacts = contacts + ?1, subscribed = subscribed + ?1`: &s.counts,
	} {
		if *statement, err = s.conn.PrepareContext(ctx, text); err != nil { //nolint:sqlclosecheck // they end with the connection
			return fmt.Errorf("prepare: %w", err)
		}
	}
	return nil
}

// Close ends the connection.
func (s *bareSQLite) Close() error { return s.db.Close() }

func (s *bareSQLite) commit(ctx context.Context, rows []*bareRow) error {
	if _, err := s.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	err := s.write(ctx, rows)
	if err == nil {
		_, err = s.conn.ExecContext(ctx, "COMMIT")
	}
	if err != nil {
		_, rollback := s.conn.ExecContext(ctx, "ROLLBACK")
		return errors.Join(err, rollback)
	}
	return nil
}

func (s *bareSQLite) write(ctx context.Context, rows []*bareRow) error {
	added := 0
	for _, row := range rows {
		var known int64
		if err := s.find.QueryRowContext(ctx, row.email).Scan(&known); err == nil {
			continue
		} else if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if _, err := s.contact.ExecContext(ctx, row.email, bareState); err != nil {
			return err
		}
		for _, kind := range bareEvents {
			s.position++
			if _, err := s.event.ExecContext(ctx, s.position, bareEventID(s.position), row.email, kind, barePayload); err != nil {
				return err
			}
		}
		added++
	}
	_, err := s.counts.ExecContext(ctx, added)
	return err
}
