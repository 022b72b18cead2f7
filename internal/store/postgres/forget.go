package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store/encoding"
)

const (
	// earlierEvents and the statements below are parts of functions, whose arguments they name.
	earlierEvents = `events e JOIN unnest(namespaces, lists, addresses, positions) AS k (namespace, list, address, position)
		ON e.namespace = k.namespace AND e.list = k.list AND e.address = k.address AND e.position < k.position`

	// What was set aside of forgotten people goes with their events.
	forgetEvents = `SELECT forget_events($1::text[], $2::text[], $3::text[], $4::bigint[])`

	insertForgetting = `INSERT INTO forgetting (position) SELECT * FROM unnest($1::bigint[])`

	countForgetting = `SELECT count(*) FROM forgetting`

	scrubForgotten = `SELECT scrub_forgotten()`

	// A subscription is past an event when its cursor is and the event is neither
	// open, owed nor set aside. One that does not match it passes by too. Mails are
	// of no account: that somebody is forgotten is nothing to them.
	scrubEvents = `UPDATE events SET address = '', payload = '` + encoding.Tombstone + `' WHERE (position, day) IN (
		SELECT e.position, e.day FROM forgetting f JOIN events e USING (position) WHERE NOT EXISTS (
			SELECT FROM deliveries d WHERE d.namespace = e.namespace AND d.` + ofSubscription + ` AND (
				d.cursor < f.position
				OR EXISTS (SELECT FROM json_array_elements(d.open) o WHERE coalesce(o ->> 0, o #>> '{}')::bigint = f.position)
				OR EXISTS (SELECT FROM json_array_elements(d.life #> '{owed,spans}') o
					WHERE coalesce((o ->> 'after')::bigint, 0) < f.position AND coalesce((o ->> 'upTo')::bigint, 0) >= f.position)
				OR EXISTS (SELECT FROM set_aside a
					WHERE a.namespace = d.namespace AND a.name = d.name AND a.position = f.position))))`

	// Those that are tombstones now, and those whose event is gone altogether.
	deleteForgetting = `DELETE FROM forgetting WHERE position NOT IN (
		SELECT position FROM events JOIN forgetting USING (position) WHERE address <> '')`
)

// queueForgotten removes what the log knows of addresses from before these events,
// and has the events themselves become tombstones later.
func queueForgotten(batch *pgx.Batch, forgotten []contact.Event) {
	if len(forgotten) == 0 {
		return
	}
	var (
		addresses names
		positions []int64
	)
	for i := range forgotten {
		addresses.add(named{forgotten[i].List, forgotten[i].Address})
		positions = append(positions, forgotten[i].Position)
	}
	batch.Queue(forgetEvents, addresses.namespaces, addresses.lists, addresses.names, positions)
	batch.Queue(insertForgetting, positions)
}

// ScrubForgotten implements store.Contacts.
func (s *Store) ScrubForgotten(ctx context.Context) (scrubbed int, err error) {
	var waiting int64
	if err := s.readRow(ctx, []any{&waiting}, countForgetting); err != nil {
		return 0, fmt.Errorf("look for whom to forget: %w", err)
	}
	if waiting == 0 {
		return 0, nil // those who write deliveries have better things to do
	}
	err = s.write(ctx, func(batch *pgx.Batch) {
		lockCounter(batch, "deliveries")
		batch.Queue(scrubForgotten).QueryRow(func(row pgx.Row) error { return row.Scan(&scrubbed) })
	})
	if err != nil {
		return 0, fmt.Errorf("forget people: %w", err)
	}
	return scrubbed, nil
}
