package sqlite

import (
	"context"
	"database/sql"
	"fmt"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store/encoding"
)

const (
	purgeEvents = `DELETE FROM events WHERE namespace = ? AND list = ? AND address = ? AND position < ?`

	insertForgetting = `INSERT INTO forgetting (position) VALUES (?)`

	// What was set aside is sent no more when its event is gone.
	purgeSetAside = `DELETE FROM set_aside WHERE position IN (
		SELECT position FROM events WHERE namespace = ? AND list = ? AND address = ? AND position < ?)`

	// A subscription is past an event when its cursor is and the event is neither
	// open, owed nor set aside. One that does not match it passes by too. Mails are
	// of no account: that somebody is forgotten is nothing to them.
	scrubEvents = `UPDATE events SET address = '', payload = '` + encoding.Tombstone + `' WHERE position IN (
		SELECT f.position FROM forgetting f JOIN events e USING (position) WHERE NOT EXISTS (
			SELECT 1 FROM deliveries d WHERE d.namespace = e.namespace AND d.` + ofSubscription + ` AND (
				d.cursor < f.position
				OR EXISTS (SELECT 1 FROM json_each(d.open) WHERE coalesce(value ->> 0, value) = f.position)
				OR EXISTS (SELECT 1 FROM json_each(d.life, '$.owed.spans')
					WHERE value ->> '$.after' < f.position AND value ->> '$.upTo' >= f.position)
				OR EXISTS (SELECT 1 FROM set_aside a
					WHERE a.namespace = d.namespace AND a.name = d.name AND a.position = f.position))))`

	// Those that are tombstones now, and those whose event is gone altogether.
	deleteForgetting = `DELETE FROM forgetting WHERE position NOT IN (
		SELECT position FROM events JOIN forgetting USING (position) WHERE address <> '')`
)

// forget removes what the log knows of an address from before this event, and
// has the event itself become a tombstone later.
func (tx *transaction) forget(event *contact.Event) error {
	for _, purge := range []*sql.Stmt{tx.purgeSetAside, tx.purgeEvents} {
		if _, err := tx.exec(purge, event.List.Namespace, event.List.Name, event.Address, event.Position); err != nil {
			return err
		}
	}
	_, err := tx.exec(tx.insertForgetting, event.Position)
	return err
}

// ScrubForgotten implements store.Contacts.
func (s *Store) ScrubForgotten(ctx context.Context) (scrubbed int, err error) {
	var waiting int
	if err := s.read.QueryRowContext(ctx, `SELECT count(*) FROM forgetting`).Scan(&waiting); err != nil {
		return 0, fmt.Errorf("look for whom to forget: %w", err)
	}
	if waiting == 0 {
		return 0, nil // the writer has better things to do
	}
	err = s.writer.do(ctx, func(tx *transaction) error {
		result, err := tx.exec(tx.scrubEvents)
		if err != nil {
			return err
		}
		rows, err := result.RowsAffected()
		if err != nil {
			return err
		}
		scrubbed = int(rows)
		_, err = tx.exec(tx.deleteForgetting)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("forget people: %w", err)
	}
	return scrubbed, nil
}
