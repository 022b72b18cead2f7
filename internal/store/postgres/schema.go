package postgres

import (
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

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

// migrate brings the schema to the last of these versions, in one transaction. One
// process does it, others wait. A schema that is newer is left as it is; the error
// is store.ErrNewer where this program can't work on it.
func migrate(ctx context.Context, conn *pgx.Conn, schema string, migrations []migration) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		// Time that others take to migrate, and that a large table takes, is no fault.
		_, err := tx.Exec(ctx, `SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0`)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, schema+"/migrate"); err != nil {
			return err
		}
		if err := makeSchema(ctx, tx, schema); err != nil {
			return err
		}
		version, oldest, err := readVersion(ctx, tx)
		if err != nil {
			return err
		}
		if version > len(migrations) && oldest > len(migrations) {
			return fmt.Errorf("%w: it has schema %d, which needs a program that knows %d at least; this one knows %d",
				store.ErrNewer, version, oldest, len(migrations))
		}
		for i := version; i < len(migrations); i++ {
			if err := apply(ctx, tx, i+1, migrations[i]); err != nil {
				return fmt.Errorf("migrate to schema %d: %w", i+1, err)
			}
		}
		return makeSecrets(ctx, tx)
	})
}

// makeSchema makes the schema and the table that tells its version, where there
// are none. A schema that is there needs no right to make one.
func makeSchema(ctx context.Context, tx pgx.Tx, schema string) error {
	var there bool
	if err := tx.QueryRow(ctx, `SELECT to_regnamespace($1) IS NOT NULL`, quote(schema)).Scan(&there); err != nil {
		return err
	}
	if !there {
		if _, err := tx.Exec(ctx, "CREATE SCHEMA "+quote(schema)); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, `CREATE TABLE IF NOT EXISTS schema_version (
		version     int PRIMARY KEY,
		oldest      int NOT NULL, -- the oldest version whose program can work on it
		migrated_at timestamptz NOT NULL DEFAULT clock_timestamp())`)
	return err
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// readVersion returns the schema's version, 0 where there is none yet.
func readVersion(ctx context.Context, tx pgx.Tx) (version, oldest int, err error) {
	err = tx.QueryRow(ctx, `SELECT version, oldest FROM schema_version ORDER BY version DESC LIMIT 1`).Scan(&version, &oldest)
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

// The names in the table meta.
const (
	metaIdentity = "identity"
	metaLinkKey  = "link_key"
)

// makeSecrets gives the store the random values that it has none of yet and
// keeps for ever.
func makeSecrets(ctx context.Context, tx pgx.Tx) error {
	for _, name := range []string{metaIdentity, metaLinkKey} {
		_, err := tx.Exec(ctx, `INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING`, name, rand.Text())
		if err != nil {
			return err
		}
	}
	return nil
}

// readSecrets reads what makeSecrets has made.
func (s *Store) readSecrets(ctx context.Context) error {
	for name, value := range map[string]*string{metaIdentity: &s.identity, metaLinkKey: (*string)(&s.linkKey)} {
		err := s.readRow(ctx, []any{value}, `SELECT value FROM meta WHERE name = $1`, name)
		if err != nil {
			return fmt.Errorf("read its %s: %w", name, err)
		}
	}
	return nil
}
