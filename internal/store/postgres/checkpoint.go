package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/encoding"
)

const (
	// lockRows locks the rows that are still of this token, so that nobody claims
	// them until the commit. Their order does not matter: whoever locks more than one
	// has locked the counter before.
	lockRows = `SELECT d.namespace, d.name, d.operations FROM deliveries d
		JOIN unnest($1::text[], $2::text[], $3::bigint[]) AS k (namespace, name, token) USING (namespace, name, token)
		FOR UPDATE OF d`

	updateDeliveries = `UPDATE deliveries d SET cursor = k.cursor, behind = k.behind, operations = k.operations, revision = k.revision,
			open = k.open::json, health = k.health::json, life = k.life::json
		FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], $8::text[], $9::text[])
			AS k (namespace, name, cursor, behind, operations, revision, open, health, life)
		WHERE d.namespace = k.namespace AND d.name = k.name`

	deleteSetAside = `DELETE FROM set_aside s USING unnest($1::text[], $2::text[], $3::bigint[]) AS k (namespace, name, position)
		WHERE s.namespace = k.namespace AND s.name = k.name AND s.position = k.position`

	// What was forgotten since it was set aside, or is too old, is in the log no more. It
	// is a subquery that has the server look each position up: an EXISTS becomes a join,
	// for which it may read all of the log, whose partitions have no common statistics.
	insertSetAside = `INSERT INTO set_aside (namespace, name, position)
		SELECT k.namespace, k.name, k.position FROM unnest($1::text[], $2::text[], $3::bigint[]) AS k (namespace, name, position)
		WHERE (SELECT e.position FROM events e WHERE e.position = k.position LIMIT 1) IS NOT NULL ON CONFLICT DO NOTHING`
)

// checkpoint is a transaction that writes rows of deliveries, and appends to the
// log what they raise.
type checkpoint struct {
	store    *Store
	conn     *pgxpool.Conn
	stored   stored
	revision int64
	// found are the rows that are there under their token, with the operations that
	// they count.
	found map[store.SubscriptionKey]int64
}

// Checkpoint implements store.Deliveries.
func (s *Store) Checkpoint(ctx context.Context, progress []store.Progress) (gone []store.SubscriptionKey, err error) {
	if len(progress) == 0 {
		return nil, nil
	}
	timed, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c := &checkpoint{store: s}
	if err = c.lock(timed, progress); err == nil {
		gone, err = c.write(timed, progress)
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoint deliveries: %w", explain(ctx, err))
	}
	return gone, nil
}

// lock opens the transaction and finds out which rows there are.
func (c *checkpoint) lock(ctx context.Context, progress []store.Progress) (err error) {
	var (
		keys    keyArrays
		tokens  []int64
		raising bool
	)
	for i := range progress {
		keys.add(progress[i].Key)
		tokens = append(tokens, progress[i].Token)
		raising = raising || len(progress[i].Raised) > 0
	}
	c.conn, err = c.store.start(ctx, func(batch *pgx.Batch) {
		c.found = map[store.SubscriptionKey]int64{}
		if raising {
			c.stored = stored{}
			c.stored.queue(batch, nil, c.store.days.now())
		}
		lockCounter(batch, "deliveries").QueryRow(func(row pgx.Row) error { return row.Scan(&c.revision) })
		batch.Queue(lockRows, keys.namespaces, keys.names, tokens).Query(c.takeFound)
	})
	return err
}

func (c *checkpoint) takeFound(rows pgx.Rows) error {
	for rows.Next() {
		var (
			key        store.SubscriptionKey
			operations int64
		)
		if err := rows.Scan(&key.Namespace, &key.Name, &operations); err != nil {
			return err
		}
		c.found[key] = operations
	}
	return rows.Err()
}

// write writes the rows that are there, with what belongs to them, and commits.
func (c *checkpoint) write(ctx context.Context, progress []store.Progress) (gone []store.SubscriptionKey, err error) {
	var (
		rows  deliveryArrays
		taken = positionArrays{}
		aside = positionArrays{}
		made  = newPlan(&c.stored)
	)
	for i := range progress {
		p := &progress[i]
		operations, found := c.found[p.Key]
		if !found {
			gone = append(gone, p.Key)
			continue
		}
		c.revision++
		if err := rows.add(&p.Delivery, c.revision); err != nil {
			release(ctx, c.conn)
			return nil, err
		}
		taken.add(p.Key, p.Taken)
		aside.add(p.Key, p.Aside)
		for _, event := range p.NotRaised(operations) {
			made.raise(event)
		}
	}
	batch, err := made.statements(c.store)
	if err != nil {
		release(ctx, c.conn)
		return nil, err
	}
	rows.queue(batch)
	taken.queue(batch, deleteSetAside)
	aside.queue(batch, insertSetAside)
	batch.Queue(setCounter, "deliveries", c.revision)
	if err := c.store.finish(ctx, c.conn, batch); err != nil {
		return nil, err
	}
	c.store.appended(made)
	return gone, nil
}

// deliveryArrays are columns of rows of deliveries.
type deliveryArrays struct {
	keys                                   keyArrays
	cursors, behind, operations, revisions []int64
	open, health, life                     []string
}

func (a *deliveryArrays) add(row *store.Delivery, revision int64) error {
	encoded, err := encoding.EncodeDelivery(row)
	if err != nil {
		return err
	}
	a.keys.add(row.Key)
	a.cursors, a.behind = append(a.cursors, row.Cursor), append(a.behind, row.Behind)
	a.operations, a.revisions = append(a.operations, row.Operations), append(a.revisions, revision)
	a.open, a.health, a.life = append(a.open, string(encoded.Open)), append(a.health, string(encoded.Health)), append(a.life, string(encoded.Life))
	return nil
}

func (a *deliveryArrays) queue(batch *pgx.Batch) {
	if len(a.cursors) > 0 {
		batch.Queue(updateDeliveries, a.keys.namespaces, a.keys.names, a.cursors, a.behind, a.operations, a.revisions,
			a.open, a.health, a.life)
	}
}

// positionArrays are columns of positions that belong to rows.
type positionArrays struct {
	keys      keyArrays
	positions []int64
}

func (a *positionArrays) add(key store.SubscriptionKey, positions []int64) {
	for _, position := range positions {
		a.keys.add(key)
		a.positions = append(a.positions, position)
	}
}

func (a *positionArrays) queue(batch *pgx.Batch, statement string) {
	if len(a.positions) > 0 {
		batch.Queue(statement, a.keys.namespaces, a.keys.names, a.positions)
	}
}
