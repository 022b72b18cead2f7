package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"postbus.dev/postbus/internal/store"
)

const (
	// patience is how long a call waits for the server. It is longer than a session
	// that has stopped can hold a lock, see sessionSettings.
	patience = 8 * time.Second
	// longPatience is that of calls that may look at the whole log.
	longPatience = 30 * time.Second
	// connectTimeout bounds the connection to each of the servers that a connection
	// string names, unless that says another.
	connectTimeout = 3 * time.Second
	// connectionLifetime is how long a connection is used, so that what is new in
	// the file, or behind the server's name, is taken up.
	connectionLifetime = 5 * time.Minute
	// poolSize is how many connections a process has at most beside the one that it
	// listens on, unless the connection string has a poolParameter.
	poolSize      = 8
	poolParameter = "pool_max_conns"
	// defaultSchema has all tables, unless the connection string has a search_path.
	defaultSchema = "postbus"
)

// sessionSettings, but for the last ones, make the server end a session within
// seconds whose process was stopped, or cut off from the network, while it held a
// lock. A connection string may say others.
var sessionSettings = map[string]string{
	"application_name":                    "postbus",
	"idle_in_transaction_session_timeout": "5s",
	"statement_timeout":                   "30s",
	"lock_timeout":                        "20s",
	"tcp_keepalives_idle":                 "5",
	"tcp_keepalives_interval":             "2",
	"tcp_keepalives_count":                "3",
	"tcp_user_timeout":                    "10s",
	// A plan that was made while a table was small is bad once that has grown, and
	// arrays of one row and of a thousand need different ones.
	"plan_cache_mode": "force_custom_plan",
	// Pages of the log are read by the index on positions, in its order. To sort all
	// that is behind a position, and throw away what is not of the page, looks cheaper
	// while the server has no statistics of a day's partition.
	"enable_sort": "off",
	"jit":         "off",
}

// errConnectionString leaves out what is wrong with it: the parser's words may
// hold a part of the password.
var errConnectionString = errors.New("it is no connection string of PostgreSQL (postgres://… or name=value …), or a file that it names can't be read")

// readConfig returns how to connect in a store's lifetime, as the file says now.
func readConfig(lifetime context.Context, file string) (config *pgxpool.Config, schema string, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, "", fmt.Errorf("read the connection string: %w", err)
	}
	config, err = pgxpool.ParseConfig(strings.TrimSpace(string(text)))
	if err != nil || len(strings.TrimSpace(string(text))) == 0 {
		return nil, "", fmt.Errorf("read the connection string in %s: %w", file, errConnectionString)
	}
	if !strings.Contains(string(text), poolParameter) {
		config.MaxConns = poolSize
	}
	connection := config.ConnConfig
	schema, _, _ = strings.Cut(connection.RuntimeParams["search_path"], ",")
	if schema = strings.Trim(strings.TrimSpace(schema), `"`); schema == "" {
		schema = defaultSchema
	}
	for name, value := range sessionSettings {
		if _, said := connection.RuntimeParams[name]; !said {
			connection.RuntimeParams[name] = value
		}
	}
	connection.RuntimeParams["search_path"] = quote(schema)
	if connection.ConnectTimeout == 0 {
		connection.ConnectTimeout = connectTimeout
	}
	connection.DialFunc = dialWithin(lifetime)
	return config, schema, nil
}

// dialWithin dials for a store until that is closed. The driver asks the server over a
// connection of its own to cancel what it gives up then, and a commit that waits for a
// standby would be made without it, see finish.
func dialWithin(lifetime context.Context) pgconn.DialFunc {
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3}}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if err := lifetime.Err(); err != nil {
			return nil, err
		}
		return dialer.DialContext(ctx, network, address)
	}
}

// newPool returns a pool that reads the file again for each new connection, in the
// store's lifetime.
func newPool(lifetime context.Context, file string) (pool *pgxpool.Pool, schema string, err error) {
	config, schema, err := readConfig(lifetime, file)
	if err != nil {
		return nil, "", err
	}
	config.MaxConnLifetime = connectionLifetime
	config.MaxConnLifetimeJitter = connectionLifetime / 5
	config.BeforeConnect = func(_ context.Context, connection *pgx.ConnConfig) error {
		fresh, _, err := readConfig(lifetime, file)
		if err != nil {
			return err
		}
		*connection = *fresh.ConnConfig
		connection.RuntimeParams["search_path"] = quote(schema) // it stays what it was at the start
		return nil
	}
	if pool, err = pgxpool.NewWithConfig(lifetime, config); err != nil {
		return nil, "", fmt.Errorf("make a pool of connections: %w", err)
	}
	return pool, schema, nil
}

// unreachable is an error of getting a connection.
type unreachable struct{ error }

func (u unreachable) Unwrap() error { return u.error }

// refusal is an error of a change that has written nothing, and that concerns
// nobody else.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// The codes of errors that say that the server can't work now, from appendix A of
// PostgreSQL's manual; of those with two letters a whole class.
var awayCodes = []string{
	"08",    // connection exception
	"25006", // read-only transaction: it is a standby now
	"25P03", // idle in transaction for too long
	"40001", // serialization failure
	"40P01", // deadlock
	"53",    // insufficient resources
	"55P03", // lock not available
	"57",    // operator intervention: cancelled, shut down, crashed, starting
	"58",    // system error
}

// isAway tells whether an error says that the server can't be reached or can't
// work now, and nothing of what it was asked.
func isAway(err error) bool {
	var (
		connecting unreachable
		network    net.Error
		answered   *pgconn.PgError
	)
	if errors.As(err, &connecting) {
		return true // for whatever reason
	}
	if errors.As(err, &answered) {
		for _, code := range awayCodes {
			if strings.HasPrefix(answered.Code, code) {
				return true
			}
		}
		return false
	}
	return errors.As(err, &network) || pgconn.SafeToRetry(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.DeadlineExceeded)
}

// explain says what an error means to the caller whose context this is.
func explain(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case isAway(err):
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	default:
		return err
	}
}

// session runs work on a connection. Where that turns out to be broken, because
// the server was restarted meanwhile, work is run once more on a new one: it must
// do no harm twice.
func (s *Store) session(ctx context.Context, patience time.Duration, work func(context.Context, *pgxpool.Conn) error) error {
	timed, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := s.attempt(timed, work)
	if isAway(err) && timed.Err() == nil {
		s.pool.Reset()
		err = s.attempt(timed, work)
	}
	return explain(ctx, err)
}

func (s *Store) attempt(ctx context.Context, work func(context.Context, *pgxpool.Conn) error) error {
	conn, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	defer release(ctx, conn)
	return work(ctx, conn)
}

func (s *Store) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, unreachable{err}
	}
	return conn, nil
}

// release gives a connection back, without the transaction that may be open on it.
func release(ctx context.Context, conn *pgxpool.Conn) {
	if inner := conn.Conn(); !inner.IsClosed() && inner.PgConn().TxStatus() != 'I' {
		_, _ = inner.Exec(ctx, "ROLLBACK") // a connection that can't do that is thrown away
	}
	conn.Release()
}

// write runs statements in one transaction and one round trip. It may run them
// twice, see session.
func (s *Store) write(ctx context.Context, queue func(*pgx.Batch)) error {
	return s.session(ctx, patience, func(ctx context.Context, conn *pgxpool.Conn) error {
		batch := &pgx.Batch{}
		batch.Queue(begin)
		queue(batch)
		batch.Queue("COMMIT")
		return conn.SendBatch(ctx, batch).Close()
	})
}

// begin does not leave the isolation to the server's settings: each statement must
// see what was committed before it, once a lock was waited for.
const begin = "BEGIN ISOLATION LEVEL READ COMMITTED"

// start opens a transaction in one round trip with what it begins with. The caller
// finishes it, or releases the connection.
func (s *Store) start(ctx context.Context, queue func(*pgx.Batch)) (conn *pgxpool.Conn, err error) {
	for range 2 { // the connection may be broken
		if conn, err = s.acquire(ctx); err != nil {
			return nil, err
		}
		batch := &pgx.Batch{}
		batch.Queue(begin)
		queue(batch)
		if err = conn.SendBatch(ctx, batch).Close(); err == nil {
			return conn, nil
		}
		release(ctx, conn)
		if !isAway(err) || ctx.Err() != nil {
			break
		}
		s.pool.Reset()
	}
	return nil, err
}

// errUndecided: the server has not said whether it committed.
var errUndecided = errors.New("the server did not answer to a commit in time")

// finish sends the last statements of a transaction and commits it. A commit that
// waits for a standby is not cancelled when the context ends: the server would take
// that as leave to commit without the standby. It goes on by itself, and is
// undecided to the caller. Where the store is closed, its connection is cut.
func (s *Store) finish(ctx context.Context, conn *pgxpool.Conn, batch *pgx.Batch) error {
	batch.Queue("COMMIT")
	done := make(chan error, 1)
	go func() { // Close waits for it, because the pool waits for the connection
		done <- conn.SendBatch(s.lifetime, batch).Close()
		if s.lifetime.Err() != nil {
			_ = conn.Conn().PgConn().Conn().Close() // the driver would wait for an answer
		}
		release(s.lifetime, conn)
	}()
	select {
	case err := <-done:
		var answered *pgconn.PgError
		if errors.As(err, &answered) && answered.Code == noPartition {
			return unreachable{errNoPartition}
		}
		return err
	case <-ctx.Done():
		return unreachable{errUndecided}
	}
}

// noPartition is the code of the error that no partition takes a row.
const noPartition = "23514"

// errNoPartition: the controller has been away for as long as it makes partitions ahead.
var errNoPartition = fmt.Errorf("the log has no partition for today: a controller has to run, which makes them %d days ahead, or postbus migrate", daysAhead)

// readRow reads one row into targets. The error is pgx.ErrNoRows when there is none.
func (s *Store) readRow(ctx context.Context, into []any, query string, arguments ...any) error {
	return s.session(ctx, patience, func(ctx context.Context, conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, query, arguments...).Scan(into...)
	})
}

// readAll reads rows, each by scan. It may begin again, so it returns them at the
// end only.
func readAll[T any](ctx context.Context, s *Store, scan func(pgx.CollectableRow) (T, error), query string, arguments ...any) (all []T, err error) {
	err = s.session(ctx, patience, func(ctx context.Context, conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, query, arguments...)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, scan)
		return err
	})
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return all, nil
}
