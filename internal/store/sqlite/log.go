package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/encoding"
)

const (
	insertEvent = `INSERT INTO events (position, id, namespace, list, address, type, source, time, payload) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`

	selectEvents = `SELECT position, id, namespace, list, address, type, source, time, payload FROM events`
)

// appendEvent writes an event at the end of the log and gives it its position
// and id. It returns the size of the encoded payload.
func (tx *transaction) appendEvent(event *contact.Event) (size int, err error) {
	event.Position = tx.head + 1
	event.ID = store.EventID(event.Position)
	event.Size = event.Measure()
	encoded, err := encoding.Payload(event)
	if err != nil {
		return 0, err
	}
	_, err = tx.exec(tx.insertEvent, event.Position, event.ID, event.List.Namespace, event.List.Name, event.Address,
		event.Type, event.Source, event.Time.UnixNano(), encoded)
	if err != nil {
		return 0, err
	}
	tx.head = event.Position
	return len(encoded), nil
}

// appendOperation writes an operational event, or a notice, at the end of the log.
// The caller keeps its own, and may write that again.
func (tx *transaction) appendOperation(event contact.Event) error {
	event.Address = event.Operation.Object()
	if event.Type == contact.EventNotice {
		if err := tx.openDelivery(store.NoticeKey(event.List.Namespace), tx.head); err != nil {
			return err
		}
	}
	_, err := tx.appendEvent(&event)
	return err
}

// RaiseOnce implements store.Operations.
func (s *Store) RaiseOnce(ctx context.Context, once store.Once, event contact.Event) error {
	err := s.writer.do(ctx, func(tx *transaction) error {
		first, err := tx.recall(&once)
		if err != nil || first != nil {
			return err
		}
		if err := tx.remember(&once, &contact.Decision{}); err != nil {
			return err
		}
		return tx.appendOperation(event)
	})
	if err != nil {
		return fmt.Errorf("raise an operational event: %w", err)
	}
	return nil
}

// Head implements store.Log.
func (s *Store) Head(context.Context) (int64, error) { return s.writer.head.Load(), nil }

// OldestEvent implements store.Log.
func (s *Store) OldestEvent(ctx context.Context) (time.Time, error) {
	var nanoseconds int64
	err := s.read.QueryRowContext(ctx, `SELECT time FROM events ORDER BY position LIMIT 1`).Scan(&nanoseconds)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return time.Time{}, nil
	case err != nil:
		return time.Time{}, fmt.Errorf("look for the oldest event: %w", err)
	}
	return time.Unix(0, nanoseconds).UTC(), nil
}

// PrepareLog implements store.Log. A table takes whatever comes.
func (s *Store) PrepareLog(context.Context) error { return nil }

// WaitForEvents implements store.Log.
func (s *Store) WaitForEvents(ctx context.Context, after int64) error {
	_, err := s.writer.head.Wait(ctx, after)
	return err
}

// Read implements store.Log.
func (s *Store) Read(ctx context.Context, query store.Query) ([]contact.Event, error) {
	text, arguments := pageOf(query)
	events, size := make([]contact.Event, 0, query.MostEvents()), 0
	err := queryAll(ctx, s.read, func(rows *sql.Rows) error {
		if query.MaxBytes > 0 && size >= query.MaxBytes {
			return errPageFull
		}
		events = append(events, contact.Event{})
		err := scanEvent(rows, &events[len(events)-1])
		size += events[len(events)-1].Size
		return err
	}, text, arguments...)
	if err != nil && !errors.Is(err, errPageFull) {
		return nil, fmt.Errorf("read the event log: %w", err)
	}
	return events, nil
}

// errPageFull ends the reading of a page that has reached Query.MaxBytes.
var errPageFull = errors.New("the page is full")

// pageOf returns the statement that reads a page, with its arguments.
func pageOf(query store.Query) (text string, arguments []any) {
	where, arguments := conditions(query)
	return selectEvents + where + " ORDER BY position LIMIT ?", append(arguments, query.PageSize())
}

func scanEvent(rows *sql.Rows, event *contact.Event) error {
	var (
		nanos   int64
		encoded sql.RawBytes
	)
	err := rows.Scan(&event.Position, &event.ID, &event.List.Namespace, &event.List.Name, &event.Address,
		&event.Type, &event.Source, &nanos, &encoded)
	if err != nil {
		return err
	}
	event.Time = time.Unix(0, nanos).UTC()
	return encoding.DecodePayload(encoded, event)
}

// CountEvents implements store.Log.
func (s *Store) CountEvents(ctx context.Context, query store.Query) (count int64, err error) {
	where, arguments := conditions(query)
	err = s.read.QueryRowContext(ctx, "SELECT count(*) FROM events"+where, arguments...).Scan(&count)
	if err != nil {
		return 0, fmt.Errorf("count events: %w", err)
	}
	return count, nil
}

// PositionBefore implements store.Log. Times are by the clocks of callers, so that
// they rise with positions is likely and nothing that a search may rely on: the log is
// read from its beginning, up to the first event that is late enough.
func (s *Store) PositionBefore(ctx context.Context, at time.Time) (position int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT coalesce(min(position) - 1, ?) FROM events WHERE time >= ?`,
		s.writer.head.Load(), at.UnixNano()).Scan(&position)
	if err != nil {
		return 0, fmt.Errorf("look for the events of a time: %w", err)
	}
	return position, nil
}

// LastPosition implements store.Log.
func (s *Store) LastPosition(ctx context.Context, list contact.ListKey, address string, upTo int64) (position int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT coalesce(max(position), 0) FROM events
		WHERE namespace = ? AND list = ? AND address = ? AND position <= ?`, list.Namespace, list.Name, address, upTo).Scan(&position)
	if err != nil {
		return 0, fmt.Errorf("look for the last event of a contact: %w", err)
	}
	return position, nil
}

// conditions turns a query into a WHERE clause.
func conditions(query store.Query) (where string, arguments []any) {
	terms := []string{"position > ?"}
	arguments = []any{query.After}
	add := func(term string, value any) {
		terms = append(terms, term)
		arguments = append(arguments, value)
	}
	if query.UpTo > 0 {
		add("position <= ?", query.UpTo)
	}
	if query.Positions != nil {
		add("position IN (SELECT value FROM json_each(?))", jsonArray(query.Positions))
	}
	if query.Filter.Namespace != "" {
		// By + the index on addresses is not used: it would find all events of the
		// namespace, to sort them, for each page.
		add("+namespace = ?", query.Filter.Namespace)
	}
	matches, more := matching(query)
	terms = append(terms, matches...)
	return " WHERE " + strings.Join(terms, " AND "), append(arguments, more...)
}

// matching turns what a query says of events, beside their namespace, into terms
// that must all hold.
func matching(query store.Query) (terms []string, arguments []any) {
	filter := &query.Filter
	in := func(column, set string) {
		terms = append(terms, column+" IN (SELECT value FROM json_each(?))")
		arguments = append(arguments, set)
	}
	if len(filter.Lists) > 0 {
		in("list", jsonArray(filter.Lists))
	}
	switch {
	case len(filter.Types) > 0:
		in("type", jsonArray(filter.Types))
	case query.Positions == nil:
		in("type", jsonArray(contact.EventTypes))
	}
	if len(filter.Sources) > 0 {
		in("source", jsonArray(filter.Sources))
	}
	if len(filter.Operations) == 0 || len(terms) == 0 {
		return terms, arguments
	}
	either := "(" + strings.Join(terms, " AND ") + ") OR (type IN (SELECT value FROM json_each(?)) AND address <> ?)"
	return []string{"(" + either + ")"}, append(arguments, jsonArray(filter.Operations), filter.Except)
}

// jsonArray lets a statement take a set as one argument, whatever its size.
func jsonArray[T ~string | ~int64](values []T) string {
	encoded, _ := json.Marshal(values) // strings and numbers always encode
	return string(encoded)
}
