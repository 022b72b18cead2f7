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
	*sql.DB
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
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=secure_delete(1)")
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", file, err)
	}
	db.SetMaxOpenConns(1)
	s := &bareSQLite{DB: db}
	for text, statement := range map[string]**sql.Stmt{
		`SELECT id FROM contacts WHERE namespace = 'bench' AND list = 'newsletter' AND address = ?`:                &s.find,
		`INSERT INTO contacts (namespace, list, address, revision, state) VALUES ('bench', 'newsletter', ?, 1, ?)`: &s.contact,
		`INSERT INTO events (position, id, namespace, list, address, type, source, time, payload)
			VALUES (?, ?, 'bench', 'newsletter', ?, ?, 'API', 1795000000000000000, ?)`: &s.event,
		`INSERT INTO lists VALUES ('bench', 'newsletter', ?1, ?1)
			ON CONFLICT DO UPDATE SET contacts = contacts + ?1, subscribed = subscribed + ?1`: &s.counts,
	} {
		if *statement, err = db.PrepareContext(ctx, text); err != nil {
			return nil, errors.Join(fmt.Errorf("prepare: %w", err), db.Close())
		}
	}
	return s, nil
}

func (s *bareSQLite) commit(ctx context.Context, rows []*bareRow) error {
	tx, err := s.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // it does nothing after the commit
	find, contact := tx.StmtContext(ctx, s.find), tx.StmtContext(ctx, s.contact)
	event, counts := tx.StmtContext(ctx, s.event), tx.StmtContext(ctx, s.counts)
	for _, row := range rows {
		var known int64
		if err := find.QueryRowContext(ctx, row.email).Scan(&known); err == nil {
			continue
		} else if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if _, err := contact.ExecContext(ctx, row.email, bareState); err != nil {
			return err
		}
		for _, kind := range bareEvents {
			s.position++
			if _, err := event.ExecContext(ctx, s.position, bareEventID(s.position), row.email, kind, barePayload); err != nil {
				return err
			}
		}
		if _, err := counts.ExecContext(ctx, 1); err != nil {
			return err
		}
	}
	return tx.Commit()
}
