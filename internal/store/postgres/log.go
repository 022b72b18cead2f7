package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/encoding"
)

const (
	selectHead = `SELECT value FROM counters WHERE name = 'log'`

	eventColumns = `position, id, namespace, list, address, type, source, time, payload, size`

	selectEvents = `SELECT ` + eventColumns + ` FROM events`

	// selectUntilFull keeps the events of a page up to the one that reaches a size. It looks
	// at sizes alone: payloads that it leaves out are not even loaded.
	selectUntilFull = `SELECT ` + eventColumns + ` FROM
		(SELECT *, sum(size) OVER (ORDER BY position) - size AS size_before FROM (%s) AS page) AS page
		WHERE size_before < %s ORDER BY position`

	// Clocks of processes may differ from the server's, so the day before is looked
	// at as well.
	since = ` FROM events WHERE time >= $1 AND day >= ($1 AT TIME ZONE 'UTC')::date - 1`

	// selectFirstWithin looks at a part of the log, which the index on time finds; by
	// position + 0 it is kept from walking through the index on positions instead.
	selectFirstWithin = `SELECT min(position + 0)` + since + ` AND time < $1 + $2::interval`

	selectFirstSince = `SELECT min(position)` + since

	selectLastPosition = `SELECT coalesce(max(position), 0) FROM events
		WHERE namespace = $1 AND list = $2 AND address = $3 AND position <= $4`
)

// Head implements store.Log.
func (s *Store) Head(ctx context.Context) (head int64, err error) {
	if err := s.readRow(ctx, []any{&head}, selectHead); err != nil {
		return 0, fmt.Errorf("look for the end of the log: %w", err)
	}
	return head, nil
}

// OldestEvent implements store.Log.
func (s *Store) OldestEvent(ctx context.Context) (at time.Time, err error) {
	err = s.readRow(ctx, []any{&at}, `SELECT time FROM events ORDER BY position LIMIT 1`)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return time.Time{}, nil
	case err != nil:
		return time.Time{}, fmt.Errorf("look for the oldest event: %w", err)
	}
	return at.UTC(), nil
}

// Read implements store.Log.
func (s *Store) Read(ctx context.Context, query store.Query) ([]contact.Event, error) {
	text, arguments := s.pageOf(query)
	events, err := readAll(ctx, s, scanEvent, text, arguments...)
	if err != nil {
		return nil, fmt.Errorf("read the event log: %w", err)
	}
	return events, nil
}

// pageOf returns the statement that reads a page, with its arguments.
func (s *Store) pageOf(query store.Query) (text string, arguments []any) {
	where := s.conditions(query)
	text = selectEvents + where.String() + " ORDER BY position LIMIT " + where.argument(query.PageSize())
	if query.MaxBytes > 0 {
		text = fmt.Sprintf(selectUntilFull, text, where.argument(query.MaxBytes))
	}
	return text, where.arguments
}

func scanEvent(row pgx.CollectableRow) (event contact.Event, err error) {
	var (
		encoded []byte
		size    int
	)
	err = row.Scan(&event.Position, &event.ID, &event.List.Namespace, &event.List.Name, &event.Address,
		&event.Type, &event.Source, &event.Time, &encoded, &size)
	if err != nil {
		return event, err
	}
	event.Time = event.Time.UTC()
	err = encoding.DecodePayload(encoded, &event)
	event.Size = size // which ended the page, see store.Query.Full
	return event, err
}

// CountEvents implements store.Log.
func (s *Store) CountEvents(ctx context.Context, query store.Query) (count int64, err error) {
	where := s.conditions(query)
	err = s.session(ctx, longPatience, func(ctx context.Context, conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, "SELECT count(*) FROM events"+where.String(), where.arguments...).Scan(&count)
	})
	if err != nil {
		return 0, fmt.Errorf("count events: %w", err)
	}
	return count, nil
}

// PositionBefore implements store.Log.
func (s *Store) PositionBefore(ctx context.Context, at time.Time) (position int64, err error) {
	// Events that are appended meanwhile are behind this.
	head, err := s.Head(ctx)
	if err != nil {
		return 0, err
	}
	var first *int64
	err = s.session(ctx, longPatience, func(ctx context.Context, conn *pgxpool.Conn) error {
		for _, part := range []time.Duration{time.Hour, 24 * time.Hour} {
			err := conn.QueryRow(ctx, selectFirstWithin, at, part).Scan(&first)
			if first != nil || err != nil {
				return err
			}
		}
		return conn.QueryRow(ctx, selectFirstSince, at).Scan(&first)
	})
	switch {
	case err != nil:
		return 0, fmt.Errorf("look for the events of a time: %w", err)
	case first == nil:
		return head, nil
	}
	return *first - 1, nil
}

// LastPosition implements store.Log.
func (s *Store) LastPosition(ctx context.Context, list contact.ListKey, address string, upTo int64) (position int64, err error) {
	err = s.readRow(ctx, []any{&position}, selectLastPosition, list.Namespace, list.Name, address, upTo)
	if err != nil {
		return 0, fmt.Errorf("look for the last event of a contact: %w", err)
	}
	return position, nil
}

// conditions are terms that must all hold, with their arguments.
type conditions struct {
	terms     []string
	arguments []any
}

// String returns the WHERE clause.
func (c *conditions) String() string { return " WHERE " + strings.Join(c.terms, " AND ") }

// argument adds an argument and returns its place.
func (c *conditions) argument(value any) string {
	c.arguments = append(c.arguments, value)
	return "$" + strconv.Itoa(len(c.arguments))
}

// add adds a term whose only argument is its %.
func (c *conditions) add(term string, value any) {
	c.terms = append(c.terms, strings.Replace(term, "%", c.argument(value), 1))
}

// conditions turns a query into a WHERE clause.
func (s *Store) conditions(query store.Query) *conditions {
	c := &conditions{}
	c.add("position > %", query.After)
	if query.UpTo > 0 {
		c.add("position <= %", query.UpTo)
	}
	if query.Positions != nil {
		c.add("position = ANY (%::bigint[])", query.Positions)
	}
	// Nothing is left out by these; they keep old partitions from being looked at.
	since, before := s.days.within(bounds(query))
	if !since.IsZero() {
		c.add("day >= %::date", since)
	}
	if !before.IsZero() {
		c.add("day < %::date", before)
	}
	if query.Filter.Namespace != "" {
		// By || the index on addresses is not used: it would find all events of the
		// namespace, to sort them, for each page.
		c.add("namespace || '' = %", query.Filter.Namespace)
	}
	c.match(query)
	return c
}

// bounds returns between which positions a query looks.
func bounds(query store.Query) (after, upTo int64) {
	after, upTo = query.After, query.UpTo
	for i, position := range query.Positions {
		if i == 0 {
			after, upTo = position-1, position
		}
		after, upTo = min(after, position-1), max(upTo, position)
	}
	return after, upTo
}

// match adds what a query says of events, beside their namespace.
func (c *conditions) match(query store.Query) {
	filter := &query.Filter
	of := &conditions{arguments: c.arguments}
	if len(filter.Lists) > 0 {
		of.add("list = ANY (%::text[])", filter.Lists)
	}
	switch {
	case len(filter.Types) > 0:
		of.add("type = ANY (%::text[])", texts(filter.Types))
	case query.Positions == nil:
		of.add("type = ANY (%::text[])", texts(contact.EventTypes))
	}
	if len(filter.Sources) > 0 {
		of.add("source = ANY (%::text[])", texts(filter.Sources))
	}
	if len(filter.Operations) > 0 && len(of.terms) > 0 {
		either := "(" + strings.Join(of.terms, " AND ") + ") OR (type = ANY (" + of.argument(texts(filter.Operations)) +
			"::text[]) AND address <> " + of.argument(filter.Except) + ")"
		of.terms = []string{"(" + either + ")"}
	}
	c.terms, c.arguments = append(c.terms, of.terms...), of.arguments
}

// texts returns values as the driver takes them.
func texts[T ~string](values []T) []string {
	converted := make([]string, len(values))
	for i, value := range values {
		converted[i] = string(value)
	}
	return converted
}
