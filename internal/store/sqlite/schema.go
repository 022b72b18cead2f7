package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/go-logr/logr"

	"postbus.dev/postbus/internal/store"
)

// applicationID marks a SQLite file as ours: "post" in ASCII.
const applicationID = 0x706f7374

// migrations make the schema, one version after the other. They are forward
// only: a version that has been released is never changed.
var migrations = []string{
	`CREATE TABLE meta (
		name  TEXT PRIMARY KEY,
		value TEXT NOT NULL
	) STRICT, WITHOUT ROWID;

	CREATE TABLE namespaces ( -- whose data the store holds under a namespace's name
		name   TEXT PRIMARY KEY,
		uid    TEXT NOT NULL,    -- of the Namespace object
		begins INTEGER NOT NULL  -- its events are behind this position
	) STRICT, WITHOUT ROWID;

	CREATE TABLE bound_objects ( -- lists and subscriptions that may use their namespace's data
		uid       TEXT PRIMARY KEY,
		namespace TEXT NOT NULL
	) STRICT, WITHOUT ROWID;

	CREATE TABLE link_keys ( -- what links in mails are signed with
		id      TEXT PRIMARY KEY, -- link.KeyID
		secret  TEXT NOT NULL,
		starts  INTEGER NOT NULL, -- Unix time in nanoseconds; it signs from then on
		expires INTEGER           -- it verifies until then; NULL for the newest
	) STRICT, WITHOUT ROWID;

	CREATE TABLE lists ( -- counters, kept with each change so that counting is free
		namespace  TEXT NOT NULL,
		name       TEXT NOT NULL,
		contacts   INTEGER NOT NULL,
		subscribed INTEGER NOT NULL,
		PRIMARY KEY (namespace, name)
	) STRICT, WITHOUT ROWID;

	CREATE TABLE contacts (
		id          INTEGER PRIMARY KEY AUTOINCREMENT, -- AUTOINCREMENT: never reused
		namespace   TEXT NOT NULL,
		list        TEXT NOT NULL,
		address     TEXT NOT NULL, -- as addresses are compared
		external_id TEXT,          -- NULL when there is none
		revision    INTEGER NOT NULL,
		state       TEXT NOT NULL  -- contact.Contact as JSON
	) STRICT;
	CREATE UNIQUE INDEX contacts_address ON contacts (namespace, list, address);
	CREATE UNIQUE INDEX contacts_external_id ON contacts (namespace, list, external_id)
		WHERE external_id IS NOT NULL;

	CREATE TABLE events ( -- the log, append only
		position  INTEGER PRIMARY KEY AUTOINCREMENT, -- AUTOINCREMENT: rises for ever
		id        TEXT NOT NULL,
		namespace TEXT NOT NULL,
		list      TEXT NOT NULL,
		address   TEXT NOT NULL, -- as addresses are compared; empty in a tombstone
		type      TEXT NOT NULL,
		source    TEXT NOT NULL,
		time      INTEGER NOT NULL, -- Unix time in nanoseconds
		payload   TEXT NOT NULL     -- the rest, see encoding.Payload, as JSON
	) STRICT;

	CREATE INDEX events_address ON events (namespace, list, address);

	CREATE TABLE forgetting ( -- events that become tombstones once all have them
		position INTEGER PRIMARY KEY
	) STRICT;

	CREATE TABLE deliveries (
		namespace TEXT NOT NULL,
		name      TEXT NOT NULL,
		token     INTEGER NOT NULL,
		cursor    INTEGER NOT NULL,
		open      TEXT NOT NULL, -- []store.OpenEvent as JSON
		behind    INTEGER NOT NULL,
		health    TEXT NOT NULL, -- store.Health as JSON
		revision  INTEGER NOT NULL,
		PRIMARY KEY (namespace, name)
	) STRICT, WITHOUT ROWID;
	CREATE INDEX deliveries_revision ON deliveries (revision);`,

	`CREATE TABLE idempotency ( -- changes of which a repeat is recognised
		key         TEXT PRIMARY KEY,
		fingerprint TEXT NOT NULL,
		decision    TEXT NOT NULL,    -- see encoding.Decision, as JSON
		until       INTEGER NOT NULL  -- Unix time in nanoseconds
	) STRICT, WITHOUT ROWID;
	CREATE INDEX idempotency_until ON idempotency (until);

	CREATE TABLE key_usage ( -- when each API key was last used
		namespace TEXT NOT NULL,
		name      TEXT NOT NULL,
		last_used INTEGER NOT NULL, -- Unix time in nanoseconds
		PRIMARY KEY (namespace, name)
	) STRICT, WITHOUT ROWID;
	CREATE INDEX key_usage_last_used ON key_usage (last_used);

	CREATE TABLE log_usage ( -- bytes that namespaces have appended to the log in a day, where they are limited
		namespace TEXT NOT NULL,
		day       TEXT NOT NULL, -- 2006-01-02, in UTC
		bytes     INTEGER NOT NULL,
		PRIMARY KEY (namespace, day)
	) STRICT, WITHOUT ROWID;`,

	`CREATE TABLE texts ( -- checked templates of lists
		namespace TEXT NOT NULL,
		list      TEXT NOT NULL,
		texts     TEXT NOT NULL, -- store.ListTexts as JSON
		PRIMARY KEY (namespace, list)
	) STRICT, WITHOUT ROWID;`,

	`ALTER TABLE deliveries ADD COLUMN life TEXT NOT NULL DEFAULT '{}'; -- store.Life as JSON

	CREATE TABLE set_aside ( -- events that a subscription could not be sent
		namespace TEXT NOT NULL,
		name      TEXT NOT NULL,
		position  INTEGER NOT NULL,
		PRIMARY KEY (namespace, name, position)
	) STRICT, WITHOUT ROWID;
	CREATE INDEX set_aside_position ON set_aside (position);

	CREATE TABLE requests ( -- the last of each type that somebody asked of a subscription
		namespace TEXT NOT NULL,
		name      TEXT NOT NULL,
		type      TEXT NOT NULL,
		value     TEXT NOT NULL,
		details   TEXT NOT NULL, -- the rest of store.Request as JSON
		revision  INTEGER NOT NULL,
		PRIMARY KEY (namespace, name, type)
	) STRICT, WITHOUT ROWID;
	CREATE INDEX requests_revision ON requests (revision);`,

	`CREATE TABLE attempts ( -- the last ones of each subscription
		namespace TEXT NOT NULL,
		name      TEXT NOT NULL,
		attempts  TEXT NOT NULL, -- store.Attempt as JSON, a line each
		PRIMARY KEY (namespace, name)
	) STRICT;`,

	`ALTER TABLE deliveries ADD COLUMN operations INTEGER NOT NULL DEFAULT 0; -- operational events raised so far`,
}

// readThroughSize is how large a file may be to be read through at the start:
// some seconds' worth. A larger one would hold up every restart.
const readThroughSize = 2 << 30

// check refuses a file that is damaged, that is not ours or that a newer
// version has written, before anything is changed in it. The pages of a file
// beyond maxSize, in bytes, are not looked at; damage there shows when they are
// read.
func check(ctx context.Context, db *sql.DB, maxSize int64) error {
	facts, err := readFacts(ctx, db)
	if err != nil {
		return err
	}
	switch {
	case facts.applicationID != applicationID && facts.tables > 0:
		return fmt.Errorf("%w: it is a database of another program", store.ErrDamaged)
	case facts.version > int64(len(migrations)):
		return fmt.Errorf("%w: it has schema %d, this program knows %d at most", store.ErrNewer, facts.version, len(migrations))
	case facts.size > maxSize:
		logr.FromContextOrDiscard(ctx).Info("store is too large to be read through at the start", "bytes", facts.size)
		return nil
	}
	var found string
	if err := db.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&found); err != nil {
		return err
	}
	if found != "ok" {
		return fmt.Errorf("%w (%s): restore it from a backup", store.ErrDamaged, strings.Join(strings.Fields(found), " "))
	}
	return nil
}

// facts are what a file says of itself.
type facts struct {
	applicationID, version, tables, size int64
}

func readFacts(ctx context.Context, db *sql.DB) (f facts, err error) {
	err = db.QueryRowContext(ctx, `SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema), page_count * page_size
		FROM pragma_application_id, pragma_user_version, pragma_page_count, pragma_page_size`).
		Scan(&f.applicationID, &f.version, &f.tables, &f.size)
	return f, err
}

// migrate brings the schema to the last of these versions, in one transaction.
func migrate(ctx context.Context, db *sql.DB, migrations []string) error {
	facts, err := readFacts(ctx, db)
	if err != nil || facts.version == int64(len(migrations)) {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	for i := int(facts.version); i < len(migrations); i++ {
		if _, err := tx.ExecContext(ctx, migrations[i]); err != nil {
			return fmt.Errorf("migrate to schema %d: %w", i+1, err)
		}
	}
	if err := makeSecrets(ctx, tx); err != nil {
		return err
	}
	stamp := fmt.Sprintf("PRAGMA user_version = %d; PRAGMA application_id = %d", len(migrations), applicationID)
	if _, err := tx.ExecContext(ctx, stamp); err != nil {
		return err
	}
	return tx.Commit()
}

// makeSecrets gives the store its identity and its first link key, if it has none.
func makeSecrets(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO meta VALUES (?, ?) ON CONFLICT DO NOTHING`, metaIdentity, rand.Text())
	if err != nil {
		return err
	}
	var keys int
	if err := tx.QueryRowContext(ctx, countLinkKeys).Scan(&keys); err != nil || keys > 0 {
		return err
	}
	_, err = addLinkKey(ctx, tx, time.Now())
	return err
}

// metaIdentity is the name of the identity in the table meta.
const metaIdentity = "identity"

// readIdentity reads what makeSecrets has made.
func (s *Store) readIdentity(ctx context.Context) error {
	if err := s.read.QueryRowContext(ctx, `SELECT value FROM meta WHERE name = ?`, metaIdentity).Scan(&s.identity); err != nil {
		return fmt.Errorf("read its identity: %w", err)
	}
	return nil
}
