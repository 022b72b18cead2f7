package postgres

import (
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"postbus.dev/postbus/internal/store"
)

// migration brings the schema one version further. Processes of this version and of
// the one before work side by side while an installation is upgraded, so what the
// former needs is added first and taken away a version later.
type migration struct {
	// sql is what is run.
	sql string
	// oldest is the oldest version of the schema whose program can work on what
	// this migration has made.
	oldest int
}

//go:embed migrations/*.sql
var files embed.FS

// migrations make the schema, one version after the other. They are forward only:
// one that has been released is never changed.
var migrations = []migration{
	{sql: file("0001_initial.sql"), oldest: 1},
}

// file returns what is embedded, which is there or the program is not built.
func file(name string) string {
	content, err := files.ReadFile("migrations/" + name)
	if err != nil {
		panic(err)
	}
	return string(content)
}

// metaIdentity is the name of the store's identity in the table meta.
const metaIdentity = "identity"

// Migrate makes the tables, or brings them up to date, makes the log's next partitions, and
// grants each role what its component needs. The connection string must be that of the tables'
// owner. It is one transaction; several callers take turns, and what is up to date stays as it is.
// It returns what it did, a line each. The error wraps store.ErrNewer as that of Open does, and
// store.ErrUnavailable.
func Migrate(ctx context.Context, options Options, roles Roles) (done []string, err error) {
	return migrateTo(ctx, options, roles, migrations)
}

func migrateTo(ctx context.Context, options Options, roles Roles, migrations []migration) (done []string, err error) {
	conn, schema, err := connectOnce(ctx, options.DSNFile)
	if err != nil {
		return nil, fmt.Errorf("migrate the store: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }() // which frees its lock as well
	m := &migrator{schema: schema, migrations: migrations, roles: roles}
	if err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return m.run(ctx, tx) }); err != nil {
		return nil, fmt.Errorf("migrate the store: %w", explain(ctx, err))
	}
	return m.done, nil
}

// migrator migrates in one transaction.
type migrator struct {
	schema     string
	migrations []migration
	roles      Roles
	done       []string
}

func (m *migrator) note(format string, arguments ...any) {
	m.done = append(m.done, fmt.Sprintf(format, arguments...))
}

func (m *migrator) run(ctx context.Context, tx pgx.Tx) error {
	// Other migrations and large tables take their time.
	_, err := tx.Exec(ctx, `SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0`)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, m.schema+"/migrate"); err != nil {
		return err
	}
	if err := m.makeSchema(ctx, tx); err != nil {
		return err
	}
	version, oldest, err := readVersion(ctx, tx)
	if err != nil {
		return err
	}
	switch newest := len(m.migrations); {
	case version > newest && oldest > newest:
		return newerError(version, oldest, newest)
	case version > newest:
		m.note("the schema has version %d, which is newer than this program's %d: nothing to do", version, newest)
		return nil
	}
	for i := version; i < len(m.migrations); i++ {
		if err := apply(ctx, tx, i+1, m.migrations[i]); err != nil {
			return fmt.Errorf("migrate to schema %d: %w", i+1, err)
		}
	}
	m.note("the schema %s has version %d (before: %d)", m.schema, len(m.migrations), version)
	return m.complete(ctx, tx)
}

// makeSchema makes the schema and the table of its versions, where they are missing. An
// existing schema requires no right to make one.
func (m *migrator) makeSchema(ctx context.Context, tx pgx.Tx) error {
	var there bool
	if err := tx.QueryRow(ctx, `SELECT to_regnamespace($1) IS NOT NULL`, quote(m.schema)).Scan(&there); err != nil {
		return err
	}
	if !there {
		if _, err := tx.Exec(ctx, "CREATE SCHEMA "+quote(m.schema)); err != nil {
			return err
		}
		m.note("made the schema %s", m.schema)
	}
	_, err := tx.Exec(ctx, `CREATE TABLE IF NOT EXISTS schema_version (
		version     int PRIMARY KEY,
		oldest      int NOT NULL, -- the oldest version whose program can work on it
		migrated_at timestamptz NOT NULL DEFAULT clock_timestamp())`)
	return err
}

// complete makes what tables don't hold: functions, the first rows, partitions and rights.
func (m *migrator) complete(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, functionsOf(m.schema)); err != nil {
		return fmt.Errorf("make the functions: %w", err)
	}
	for name, value := range map[string]string{metaIdentity: rand.Text(), metaShortestRetention: defaultShortestRetention} {
		if _, err := tx.Exec(ctx, `INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING`, name, value); err != nil {
			return err
		}
	}
	made, err := tx.Exec(ctx, `SELECT rotate_link_key('0') WHERE NOT EXISTS (SELECT FROM link_keys)`)
	if err != nil {
		return fmt.Errorf("make the first link key: %w", err)
	}
	if made.RowsAffected() > 0 {
		m.note("made the first link key")
	}
	partitions, err := makePartitions(ctx, tx, nil)
	if err != nil {
		return fmt.Errorf("make the log's partitions: %w", err)
	}
	if partitions > 0 {
		m.note("made %d partitions of the log, up to %d days ahead", partitions, daysAhead)
	}
	return m.grant(ctx, tx)
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// querier runs queries: a connection or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, arguments ...any) pgx.Row
}

// checkSchema returns an error where a program that knows a version can't work on the schema.
func checkSchema(ctx context.Context, db querier, schema string, known int) error {
	var there, readOnly bool
	err := db.QueryRow(ctx, `SELECT to_regclass('schema_version') IS NOT NULL, current_setting('transaction_read_only')::bool`).Scan(&there, &readOnly)
	switch {
	case err != nil:
		return err
	case readOnly:
		return unreachable{errReadOnly}
	case !there:
		return fmt.Errorf("%w: the schema %s has no tables, or this role has no right to it", store.ErrNotMigrated, schema)
	}
	version, oldest, err := readVersion(ctx, db)
	var answered *pgconn.PgError
	switch {
	case errors.As(err, &answered) && answered.Code == insufficientPrivilege:
		return fmt.Errorf("%w: this role has no right to the tables of the schema %s", store.ErrNotMigrated, schema)
	case err != nil:
		return err
	case version < known:
		return fmt.Errorf("%w: the schema %s has version %d, this program needs %d", store.ErrNotMigrated, schema, version, known)
	case version > known && oldest > known:
		return newerError(version, oldest, known)
	}
	return nil
}

// errReadOnly: the server is a standby now, or an administrator has made it read-only.
var errReadOnly = errors.New("the server is read-only")

// insufficientPrivilege is the code of the error that a role lacks a right.
const insufficientPrivilege = "42501"

func newerError(version, oldest, known int) error {
	return fmt.Errorf("%w: it has schema %d, which needs a program that knows %d at least; this one knows %d",
		store.ErrNewer, version, oldest, known)
}

// readVersion returns the schema's version, 0 where there is none yet.
func readVersion(ctx context.Context, db querier) (version, oldest int, err error) {
	err = db.QueryRow(ctx, `SELECT version, oldest FROM schema_version ORDER BY version DESC LIMIT 1`).Scan(&version, &oldest)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, 0, nil
	}
	return version, oldest, err
}

func apply(ctx context.Context, tx pgx.Tx, version int, step migration) error {
	if _, err := tx.Exec(ctx, step.sql); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `INSERT INTO schema_version (version, oldest) VALUES ($1, $2)`, version, step.oldest)
	return err
}
