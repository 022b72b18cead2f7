package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"strings"
	"time"

	"postbus.dev/postbus/internal/store/batch"
	"postbus.dev/postbus/internal/store/sqlite"
)

// bareServerCommand runs the limit of accepting: net/http, and a commit of the rows
// that a contact with its two events has, in the tables and batches of the store. It
// checks nothing, decides nothing and encodes nothing.
const bareServerCommand = "bare-server"

// The texts of the rows are as long as Postbus' own of the same contact.
const (
	bareState   = `{"email":"contact-123456@example.com","permission":2,"standardFields":{"FIRSTNAME":"Ada","LASTNAME":"Lovelace"},"createdAt":"2026-11-22T10:00:00.123456789Z","updatedAt":"2026-11-22T10:00:00.123456789Z","revision":1}`
	barePayload = `{"contact":` + bareState + `,"accepted":"2026-11-22T10:00:00.123456789Z"}`
)

// bareRow is a contact that waits to be committed.
type bareRow struct {
	email string
	err   error
}

// bareStore writes rows into a store's file.
type bareStore struct {
	db                           *sql.DB
	find, contact, event, counts *sql.Stmt
	position                     int64
}

func bareServer(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet(bareServerCommand, flag.ContinueOnError)
	address := flags.String("address", "", "`address` to listen on")
	file := flags.String("store", "", "`file` to write into, which must not exist")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	store, err := openBare(ctx, *file)
	if err != nil {
		return err
	}
	defer store.db.Close()
	queue := batch.NewQueue(func(rows []*bareRow) { store.write(ctx, rows) })
	defer queue.Close()
	server := &http.Server{Addr: *address, ReadHeaderTimeout: time.Minute, Handler: bareHandler(queue)}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// bareHandler takes a contact as a form or as JSON.
func bareHandler(queue *batch.Queue[*bareRow]) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(http.ResponseWriter, *http.Request) {}) // it is ready
	mux.HandleFunc("POST "+contactPath, func(w http.ResponseWriter, request *http.Request) {
		row := &bareRow{}
		if strings.HasPrefix(request.Header.Get("Content-Type"), "application/json") {
			var body struct{ Email string }
			row.err = json.NewDecoder(request.Body).Decode(&body)
			row.email = body.Email
		} else {
			row.err = request.ParseForm()
			row.email = request.PostForm.Get("email")
		}
		if row.err == nil {
			row.err = errors.Join(queue.Do(request.Context(), row), row.err)
		}
		if row.err != nil {
			http.Error(w, row.err.Error(), http.StatusInternalServerError)
		}
	})
	return mux
}

// openBare has the store's own engine make its tables, and opens the file beside it.
func openBare(ctx context.Context, file string) (*bareStore, error) {
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
	s := &bareStore{db: db}
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

// write commits rows, and gives each its error.
func (s *bareStore) write(ctx context.Context, rows []*bareRow) {
	err := s.commit(ctx, rows)
	for _, row := range rows {
		row.err = err
	}
}

func (s *bareStore) commit(ctx context.Context, rows []*bareRow) error {
	tx, err := s.db.BeginTx(ctx, nil)
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
		for _, kind := range []string{"contact.created", "contact.subscribed"} {
			s.position++
			id := fmt.Sprintf("evt_%016x_0123456789ABCDEF", s.position)
			if _, err := event.ExecContext(ctx, s.position, id, row.email, kind, barePayload); err != nil {
				return err
			}
		}
		if _, err := counts.ExecContext(ctx, 1); err != nil {
			return err
		}
	}
	return tx.Commit()
}
