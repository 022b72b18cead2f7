package main

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/jackc/pgx/v5"

	"postbus.dev/postbus/internal/store/postgres"
)

// barePostgreSQL writes rows into a database with the tables of the store.
type barePostgreSQL struct {
	conn              *pgx.Conn
	contact, position int64
}

// openBarePostgreSQL has the store's own migration make its tables, and connects beside
// it.
func openBarePostgreSQL(ctx context.Context, file string) (bareStore, error) {
	if _, err := postgres.Migrate(ctx, postgres.Options{DSNFile: file}, postgres.Roles{}); err != nil {
		return nil, err
	}
	dsn, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the connection string: %w", err)
	}
	conn, err := pgx.Connect(ctx, string(dsn))
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	// As the store has them.
	if _, err := conn.Exec(ctx, "SET search_path = postbus; SET plan_cache_mode = force_custom_plan; SET jit = off"); err != nil {
		return nil, fmt.Errorf("set up the session: %w", err)
	}
	return &barePostgreSQL{conn: conn}, nil
}

// Close ends the connection.
func (s *barePostgreSQL) Close() error { return s.conn.Close(context.Background()) }

func (s *barePostgreSQL) commit(ctx context.Context, rows []*bareRow) error {
	known, err := s.begin(ctx, rows)
	if err != nil {
		return err
	}
	var ids, positions []int64
	var addresses, eventIDs, types, eventAddresses []string
	for _, row := range rows {
		if known[row.email] {
			continue
		}
		s.contact++
		ids, addresses = append(ids, s.contact), append(addresses, row.email)
		for _, kind := range bareEvents {
			s.position++
			positions, eventIDs = append(positions, s.position), append(eventIDs, bareEventID(s.position))
			types, eventAddresses = append(types, kind), append(eventAddresses, row.email)
		}
	}
	writing := &pgx.Batch{}
	writing.Queue(`INSERT INTO contacts (id, namespace, list, address, revision, state)
		SELECT id, 'bench', 'newsletter', address, 1, $3::json FROM unnest($1::bigint[], $2::text[]) AS k (id, address)`, ids, addresses, bareState)
	writing.Queue(`INSERT INTO events (day, position, id, namespace, list, address, type, source, time, payload, size)
		SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date, position, id, 'bench', 'newsletter', address, type, 'API', now(), $5::json, 1000
		FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[]) AS e (position, id, address, type)`,
		positions, eventIDs, eventAddresses, types, barePayload)
	writing.Queue(`INSERT INTO lists AS l VALUES ('bench', 'newsletter', $1, $1)
		ON CONFLICT (namespace, name) DO UPDATE SET contacts = l.contacts + excluded.contacts, subscribed = l.subscribed + excluded.subscribed`, len(ids))
	writing.Queue(`UPDATE counters SET value = $1 WHERE name = 'contacts'`, s.contact)
	writing.Queue(`UPDATE counters SET value = $1 WHERE name = 'log'`, s.position)
	writing.Queue("COMMIT")
	return s.conn.SendBatch(ctx, writing).Close()
}

// begin begins a transaction, and returns which contacts are known, in one round trip.
func (s *barePostgreSQL) begin(ctx context.Context, rows []*bareRow) (known map[string]bool, err error) {
	addresses := make([]string, len(rows))
	for i, row := range rows {
		addresses[i] = row.email
	}
	namespaces, lists := slices.Repeat([]string{"bench"}, len(rows)), slices.Repeat([]string{"newsletter"}, len(rows))
	known = map[string]bool{}
	reading := &pgx.Batch{}
	reading.Queue("BEGIN")
	reading.Queue(`SELECT value FROM counters WHERE name = 'log' FOR UPDATE`)
	reading.Queue(`SELECT address, id, state FROM contacts
		JOIN unnest($1::text[], $2::text[], $3::text[]) AS k (namespace, list, address) USING (namespace, list, address)`,
		namespaces, lists, addresses).
		Query(func(found pgx.Rows) error {
			for found.Next() {
				var address string
				if err := found.Scan(&address, nil, nil); err != nil {
					return err
				}
				known[address] = true
			}
			return found.Err()
		})
	return known, s.conn.SendBatch(ctx, reading).Close()
}
