package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"strings"
	"time"

	"postbus.dev/postbus/internal/store/batch"
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

// bareStore is what a bare server commits to.
type bareStore interface {
	// commit makes rows durable, all or none of them. A contact that is known is left
	// as it is.
	commit(ctx context.Context, rows []*bareRow) error
	Close() error
}

func bareServer(ctx context.Context, arguments []string) (err error) {
	flags := flag.NewFlagSet(bareServerCommand, flag.ContinueOnError)
	address := flags.String("address", "", "`address` to listen on")
	file := flags.String("store", "", "`file` of SQLite to write into, which must not exist")
	dsnFile := flags.String("dsn-file", "", "`file` with the connection string of a database of PostgreSQL to write into, which must be empty")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	open := func() (bareStore, error) { return openBareSQLite(ctx, *file) }
	if *dsnFile != "" {
		open = func() (bareStore, error) { return openBarePostgreSQL(ctx, *dsnFile) }
	}
	store, err := open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	queue := batch.NewQueue(func(rows []*bareRow) { commit(ctx, store, rows) })
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
		if row.err == nil {
			return
		}
		http.Error(w, row.err.Error(), http.StatusInternalServerError)
	})
	return mux
}

// commit commits rows, and gives each its error.
func commit(ctx context.Context, store bareStore, rows []*bareRow) {
	err := store.commit(ctx, rows)
	for _, row := range rows {
		row.err = err
	}
}

// bareEvents are the types of the events that a new contact has.
var bareEvents = []string{"Create", "Subscribe"}

// bareEventID is as long as an event's id.
func bareEventID(position int64) string { return fmt.Sprintf("evt_%016x_0123456789ABCDEF", position) }
