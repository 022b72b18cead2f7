package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	. "github.com/onsi/gomega"
	sqlitedriver "modernc.org/sqlite"

	"postbus.dev/postbus/internal/store/storetest"
)

// A statement is a call of a function here, so each change has its own; they share
// BEGIN and COMMIT, and the wait for the disk. Lower a number where you save one,
// and in docs/benchmarks.md.
func TestStatementsOfWrites(t *testing.T) {
	g := NewWithT(t)
	path := filepath.Join(t.TempDir(), "postbus.db")
	opened, err := Open(t.Context(), path)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(opened.Close()).To(Succeed()) }()
	ran := countStatements(t, opened, path)
	storetest.RunCosts(t, opened, ran.take, map[string]storetest.Cost{
		// Look for the contact, insert it, count it, append its event.
		"new contacts": {Statements: 2, Each: 4},
		// Look for who has the external id.
		"new contacts with external ids": {Statements: 2, Each: 5},
		// Look for the name, remember it, drop what is remembered no more.
		"new contacts under names of calls": {Statements: 2, Each: 7},
		// Nobody is counted.
		"known contacts": {Statements: 2, Each: 3},
		// Look for the contact, delete it, count it; append the event, purge what it
		// forgets and what of that is set aside, and note the event.
		"people who are forgotten": {Statements: 2, Each: 7},
		"a checkpoint":             {Statements: 2, Each: 1},
		// Ask what the row has raised, set aside, append.
		"a checkpoint that sets aside and raises": {Statements: 2, Each: 4},
		// The texts are read beside the writer.
		"attempts": {Statements: 2, Each: 2},
	})
}

// statements are those that a store's writer has run.
type statements struct {
	mu  sync.Mutex
	ran []string
}

func (s *statements) note(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ran = append(s.ran, text)
}

func (s *statements) take() storetest.Traffic {
	s.mu.Lock()
	defer s.mu.Unlock()
	ran := slices.Clone(s.ran)
	s.ran = nil
	return storetest.Traffic{Statements: ran}
}

// countStatements gives a store a writer whose connection counts.
func countStatements(t *testing.T, s *Store, path string) *statements {
	t.Helper()
	g := NewWithT(t)
	g.Expect(s.writer.close()).To(Succeed())
	base, err := sqlitedriver.NewConnector(dataSource(path))
	g.Expect(err).NotTo(HaveOccurred())
	counted := &statements{}
	s.writer = &writer{db: sql.OpenDB(countedConnector{base, counted})}
	g.Expect(s.writer.start(context.WithoutCancel(t.Context()))).To(Succeed())
	return counted
}

type countedConnector struct {
	driver.Connector
	statements *statements
}

// Connect implements driver.Connector.
func (c countedConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return countedConn{conn.(connection), c.statements}, nil
}

// connection is what the driver's connections can do.
type connection interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
}

type countedConn struct {
	connection
	statements *statements
}

// PrepareContext implements driver.ConnPrepareContext.
func (c countedConn) PrepareContext(ctx context.Context, text string) (driver.Stmt, error) {
	prepared, err := c.connection.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	return countedStatement{prepared.(statement), text, c.statements}, nil
}

// ExecContext implements driver.ExecerContext.
func (c countedConn) ExecContext(ctx context.Context, text string, arguments []driver.NamedValue) (driver.Result, error) {
	c.statements.note(text)
	return c.connection.ExecContext(ctx, text, arguments)
}

// QueryContext implements driver.QueryerContext.
func (c countedConn) QueryContext(ctx context.Context, text string, arguments []driver.NamedValue) (driver.Rows, error) {
	c.statements.note(text)
	return c.connection.QueryContext(ctx, text, arguments)
}

// statement is what the driver's prepared statements can do.
type statement interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

type countedStatement struct {
	statement
	text       string
	statements *statements
}

// ExecContext implements driver.StmtExecContext.
func (c countedStatement) ExecContext(ctx context.Context, arguments []driver.NamedValue) (driver.Result, error) {
	c.statements.note(c.text)
	return c.statement.ExecContext(ctx, arguments)
}

// QueryContext implements driver.StmtQueryContext.
func (c countedStatement) QueryContext(ctx context.Context, arguments []driver.NamedValue) (driver.Rows, error) {
	c.statements.note(c.text)
	return c.statement.QueryContext(ctx, arguments)
}
