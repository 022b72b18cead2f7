package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"sync"
)

// maxPrepared is how many texts of queries are kept prepared; more than this program
// has, but for those that name a number of things.
const maxPrepared = 64

// rowReader is what reads a row: a preparedDB, or a database as it is.
type rowReader interface {
	QueryRowContext(ctx context.Context, query string, arguments ...any) *sql.Row
}

// preparedDB is a database whose queries are parsed once and not each time, which
// takes longer than most of them run.
type preparedDB struct {
	*sql.DB
	mu       sync.Mutex
	prepared map[string]*sql.Stmt
}

func prepareOnce(db *sql.DB) *preparedDB {
	return &preparedDB{DB: db, prepared: map[string]*sql.Stmt{}}
}

// statement returns a query prepared, or nil where it can't be or is one too many.
func (p *preparedDB) statement(ctx context.Context, query string) *sql.Stmt {
	p.mu.Lock()
	known, full := p.prepared[query], len(p.prepared) == maxPrepared
	p.mu.Unlock()
	if known != nil || full {
		return known
	}
	statement, err := p.PrepareContext(ctx, query) // it may wait for a connection
	if err != nil {
		return nil // whoever asks with it as it is gets the error
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if known = p.prepared[query]; known != nil { // somebody was quicker
		_ = statement.Close() //nolint:sqlclosecheck // now, for nothing was done with it
		return known
	}
	p.prepared[query] = statement
	return statement
}

// QueryContext is sql.DB's.
func (p *preparedDB) QueryContext(ctx context.Context, query string, arguments ...any) (*sql.Rows, error) {
	if statement := p.statement(ctx, query); statement != nil { //nolint:sqlclosecheck // it stays prepared
		return statement.QueryContext(ctx, arguments...)
	}
	return p.DB.QueryContext(ctx, query, arguments...)
}

// QueryRowContext is sql.DB's.
func (p *preparedDB) QueryRowContext(ctx context.Context, query string, arguments ...any) *sql.Row {
	if statement := p.statement(ctx, query); statement != nil { //nolint:sqlclosecheck // it stays prepared
		return statement.QueryRowContext(ctx, arguments...)
	}
	return p.DB.QueryRowContext(ctx, query, arguments...)
}

// Close is sql.DB's.
func (p *preparedDB) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, statement := range p.prepared {
		errs = append(errs, statement.Close())
	}
	return errors.Join(append(errs, p.DB.Close())...)
}
