package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/encoding"
)

// Change implements store.Contacts.
func (s *Store) Change(ctx context.Context, change store.Change) (contact.Decision, error) {
	results, err := s.writer.do(ctx, []step{{change: change}})
	if err == nil {
		err = results[0].Err
	}
	if err != nil {
		return contact.Decision{}, fmt.Errorf("change a contact: %w", err)
	}
	return results[0].Decision, nil
}

// ChangeAll implements store.Contacts.
func (s *Store) ChangeAll(ctx context.Context, changes []store.Change) ([]store.ChangeResult, error) {
	steps := make([]step, len(changes))
	for i := range changes {
		steps[i].change = changes[i]
	}
	results, err := s.writer.do(ctx, steps)
	if err != nil {
		return nil, fmt.Errorf("change contacts: %w", err)
	}
	return results, nil
}

// RaiseOnce implements store.Operations.
func (s *Store) RaiseOnce(ctx context.Context, once store.Once, event contact.Event) error {
	results, err := s.writer.do(ctx, []step{{change: store.Change{Once: &once}, raise: &event}})
	if err == nil {
		err = results[0].Err
	}
	if err != nil {
		return fmt.Errorf("raise an operational event: %w", err)
	}
	return nil
}

// named is an address, or an external id, of a list.
type named struct {
	list contact.ListKey
	name string
}

// contactRow is a row of contacts. Its state is decoded each time somebody asks,
// so that nobody changes it for others.
type contactRow struct {
	id, revision int64
	state        []byte
}

// onceRow is a row of idempotency.
type onceRow struct {
	fingerprint string
	decision    []byte
	until       time.Time
}

// stored is what a transaction that holds the log's lock has found.
type stored struct {
	// head is the last position, lastContact the last number of a contact.
	head, lastContact int64
	// day is that of events appended now, lastDay that of the last event, nil
	// where there is none.
	day     time.Time
	lastDay *time.Time
	// contacts has those that changes name, where they are there.
	contacts map[named]contactRow
	// addresses are those of the contacts that changes name by their number.
	addresses map[int64]named
	once      map[string]onceRow
	// holders are the numbers of those who have the external ids that were asked
	// for, 0 where nobody has.
	holders map[named]int64
}

// logTransaction is open, and holds the log's lock.
type logTransaction struct {
	conn   *pgxpool.Conn
	stored stored
}

const (
	selectLogState = `SELECT ` + behindGap + `, (SELECT max(day) FROM log_days),
		greatest((SELECT max(day) FROM log_days), ` + serverDay + `) FROM counters WHERE name = 'contacts'`

	contactColumns = `c.namespace, c.list, c.address, c.id, c.revision, c.state`

	selectNamedContacts = `SELECT ` + contactColumns + ` FROM contacts c
		JOIN unnest($1::text[], $2::text[], $3::text[]) AS k (namespace, list, address) USING (namespace, list, address)`

	selectContactsByID = `SELECT ` + contactColumns + ` FROM contacts c WHERE id = ANY ($1)`

	selectOnce = `SELECT key, fingerprint, decision, until FROM idempotency WHERE key = ANY ($1)`

	selectHolders = `SELECT namespace, list, external_id, id FROM contacts c
		JOIN unnest($1::text[], $2::text[], $3::text[]) AS k (namespace, list, external_id) USING (namespace, list, external_id)`
)

// lockLog opens a transaction that nobody else appends to the log beside, with
// what the steps of jobs need to know.
func (s *Store) lockLog(ctx context.Context, jobs []*job) (*logTransaction, error) {
	tx := &logTransaction{}
	conn, err := s.start(ctx, func(batch *pgx.Batch) {
		tx.stored = stored{
			contacts: map[named]contactRow{}, addresses: map[int64]named{}, once: map[string]onceRow{}, holders: map[named]int64{},
		}
		tx.stored.queue(batch, jobs, s.days.now())
	})
	if err != nil {
		return nil, err
	}
	tx.conn = conn
	return tx, nil
}

// queue adds the statements that lock the log and read.
func (s *stored) queue(batch *pgx.Batch, jobs []*job, now *time.Time) {
	lockCounter(batch, "log").QueryRow(func(row pgx.Row) error { return row.Scan(&s.head) })
	batch.Queue(selectLogState, now, failoverGap).QueryRow(func(row pgx.Row) error { return row.Scan(&s.lastContact, &s.lastDay, &s.day) })
	var (
		addresses names
		ids       []int64
		keys      []string
	)
	for _, j := range jobs {
		for i := range j.steps {
			step := &j.steps[i]
			switch {
			case step.raise != nil:
			case step.change.ContactID != 0:
				ids = append(ids, step.change.ContactID)
			default:
				addresses.add(named{step.change.List, step.change.Address})
			}
			if step.change.Once != nil {
				keys = append(keys, step.change.Once.Key)
			}
		}
	}
	if len(addresses.names) > 0 {
		batch.Queue(selectNamedContacts, addresses.namespaces, addresses.lists, addresses.names).Query(s.takeContacts)
	}
	if len(ids) > 0 {
		batch.Queue(selectContactsByID, ids).Query(s.takeContacts)
	}
	if len(keys) > 0 {
		batch.Queue(selectOnce, keys).Query(s.takeOnce)
	}
}

// names are columns of named.
type names struct{ namespaces, lists, names []string }

func (n *names) add(of named) {
	n.namespaces = append(n.namespaces, of.list.Namespace)
	n.lists = append(n.lists, of.list.Name)
	n.names = append(n.names, of.name)
}

func (s *stored) takeContacts(rows pgx.Rows) error {
	for rows.Next() {
		var (
			key named
			row contactRow
		)
		if err := rows.Scan(&key.list.Namespace, &key.list.Name, &key.name, &row.id, &row.revision, &row.state); err != nil {
			return err
		}
		s.contacts[key], s.addresses[row.id] = row, key
	}
	return rows.Err()
}

func (s *stored) takeOnce(rows pgx.Rows) error {
	for rows.Next() {
		var (
			key string
			row onceRow
		)
		if err := rows.Scan(&key, &row.fingerprint, &row.decision, &row.until); err != nil {
			return err
		}
		s.once[key] = row
	}
	return rows.Err()
}

// decide runs the steps of jobs, one after the other, each seeing what those
// before it did. Which external ids they give is known only then, so it asks who
// holds them, and decides again.
func (tx *logTransaction) decide(ctx context.Context, jobs []*job) (*plan, error) {
	for {
		made := newPlan(&tx.stored)
		for _, j := range jobs {
			for i := range j.steps {
				if err := made.take(&j.steps[i]); err != nil {
					return nil, err
				}
			}
		}
		if len(made.unknown.names) == 0 {
			return made, nil
		}
		if err := tx.askForHolders(ctx, made.unknown); err != nil {
			return nil, err
		}
	}
}

func (tx *logTransaction) askForHolders(ctx context.Context, of names) error {
	for i := range of.names {
		tx.stored.holders[named{contact.ListKey{Namespace: of.namespaces[i], Name: of.lists[i]}, of.names[i]}] = 0
	}
	rows, err := tx.conn.Query(ctx, selectHolders, of.namespaces, of.lists, of.names)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var (
			key named
			id  int64
		)
		if err := rows.Scan(&key.list.Namespace, &key.list.Name, &key.name, &id); err != nil {
			return err
		}
		tx.stored.holders[key] = id
	}
	return rows.Err()
}

// decode returns the contact of a row.
func (r contactRow) decode() (*contact.Contact, error) {
	decoded, err := encoding.DecodeContact(r.id, r.revision, r.state)
	return &decoded, err
}
