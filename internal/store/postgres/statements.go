package postgres

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store/encoding"
)

const (
	deleteContacts = `DELETE FROM contacts WHERE id = ANY ($1)`

	// Those who change their external ids may do so with each other.
	freeExternalIDs = `UPDATE contacts SET external_id = NULL WHERE id = ANY ($1)`

	updateContacts = `UPDATE contacts c SET external_id = nullif(k.external_id, ''), revision = k.revision, state = k.state::json
		FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[]) AS k (id, external_id, revision, state) WHERE c.id = k.id`

	insertContacts = `INSERT INTO contacts (id, external_id, revision, state, namespace, list, address)
		SELECT id, nullif(external_id, ''), revision, state::json, namespace, list, address
		FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[])
			AS k (id, external_id, revision, state, namespace, list, address)`

	countContacts = `INSERT INTO lists AS l (namespace, name, contacts, subscribed)
		SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[])
		ON CONFLICT (namespace, name) DO UPDATE SET contacts = l.contacts + excluded.contacts, subscribed = l.subscribed + excluded.subscribed`

	insertEvents = `INSERT INTO events (day, position, id, namespace, list, address, type, source, time, payload, size)
		SELECT $1::date, position, id, namespace, list, address, type, source, time, payload::json, size
		FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::timestamptz[], $10::text[],
			$11::integer[]) AS e (position, id, namespace, list, address, type, source, time, payload, size)`

	insertDay = `INSERT INTO log_days (day, first_position) VALUES ($1, $2) ON CONFLICT DO NOTHING`

	// What is remembered no more makes room.
	upsertOnce = `INSERT INTO idempotency (key, fingerprint, decision, until)
		SELECT key, fingerprint, decision::json, until
		FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) AS k (key, fingerprint, decision, until)
		ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, decision = excluded.decision, until = excluded.until`

	deleteOnce = `DELETE FROM idempotency WHERE until <= $1`

	// The row that is opened first wins, in one statement as over several.
	openRows = `INSERT INTO deliveries (namespace, name, cursor)
		SELECT DISTINCT ON (namespace, name) namespace, name, cursor
		FROM unnest($1::text[], $2::text[], $3::bigint[]) AS k (namespace, name, cursor) ORDER BY namespace, name, cursor
		ON CONFLICT DO NOTHING`
)

// statements returns what makes a plan true.
func (p *plan) statements(s *Store) (*pgx.Batch, error) {
	batch := &pgx.Batch{}
	if len(p.forgotten) > 0 {
		lockCounter(batch, "deliveries") // for what is set aside
	}
	p.queueContacts(batch)
	sizes, err := queueEvents(batch, &p.stored.day, p.events)
	if err != nil {
		return nil, err
	}
	for i, size := range sizes {
		if result := p.raisedBy[i]; result < len(p.results) { // what a checkpoint raises is of no step
			p.results[result].Decision.LogBytes += size
		}
	}
	if p.newDay() {
		batch.Queue(insertDay, p.stored.day, p.stored.head+1)
	}
	queueForgotten(batch, p.forgotten)
	queueOpened(batch, p.opened)
	p.queueOnce(batch)
	if p.lastContact > p.stored.lastContact {
		batch.Queue(setCounter, "contacts", p.lastContact)
	}
	s.queueHead(batch, p.stored.head, p.head)
	return batch, nil
}

// queueHead writes the new end of the log, and tells of it.
func (s *Store) queueHead(batch *pgx.Batch, before, head int64) {
	if head > before {
		batch.Queue(setCounter, "log", head)
		batch.Queue(notify, s.eventsChannel(), strconv.FormatInt(head, 10))
	}
}

// contactArrays are columns of rows of contacts.
type contactArrays struct {
	ids, revisions                     []int64
	externalIDs, states                []string
	namespaces, listNames, addressKeys []string
}

func (a *contactArrays) add(write *contactWrite) {
	a.ids = append(a.ids, write.row.id)
	a.externalIDs = append(a.externalIDs, write.externalID)
	a.revisions = append(a.revisions, write.row.revision)
	a.states = append(a.states, string(write.row.state))
	a.namespaces = append(a.namespaces, write.key.list.Namespace)
	a.listNames = append(a.listNames, write.key.list.Name)
	a.addressKeys = append(a.addressKeys, write.key.name)
}

func (p *plan) queueContacts(batch *pgx.Batch) {
	var (
		gone, moved   []int64
		fresh, edited contactArrays
	)
	for _, id := range slices.Sorted(maps.Keys(p.writes)) {
		switch write := p.writes[id]; {
		case write.removed && write.made: // it was there for a moment only
		case write.removed:
			gone = append(gone, id)
		case write.made:
			fresh.add(write)
		default:
			edited.add(write)
			if write.moved {
				moved = append(moved, id)
			}
		}
	}
	if len(gone) > 0 {
		batch.Queue(deleteContacts, gone)
	}
	if len(moved) > 0 {
		batch.Queue(freeExternalIDs, moved)
	}
	if len(edited.ids) > 0 {
		batch.Queue(updateContacts, edited.ids, edited.externalIDs, edited.revisions, edited.states)
	}
	if len(fresh.ids) > 0 {
		batch.Queue(insertContacts, fresh.ids, fresh.externalIDs, fresh.revisions, fresh.states,
			fresh.namespaces, fresh.listNames, fresh.addressKeys)
	}
	p.queueCounts(batch)
}

func (p *plan) queueCounts(batch *pgx.Batch) {
	var (
		lists                names
		contacts, subscribed []int64
	)
	for list, counts := range p.counts {
		if counts == (contact.Counts{}) {
			continue
		}
		lists.add(named{list: list})
		contacts = append(contacts, counts.Contacts)
		subscribed = append(subscribed, counts.Subscribed)
	}
	if len(contacts) > 0 {
		batch.Queue(countContacts, lists.namespaces, lists.lists, contacts, subscribed)
	}
}

// queueEvents writes events that have their positions. It returns the sizes of their
// encoded payloads.
func queueEvents(batch *pgx.Batch, day *time.Time, events []contact.Event) (encoded []int, err error) {
	if len(events) == 0 {
		return nil, nil
	}
	var (
		positions                     []int64
		ids, types, sources, payloads []string
		lists                         names
		times                         []time.Time
		sizes                         []int
	)
	for i := range events {
		event := &events[i]
		payload, err := encoding.Payload(event)
		if err != nil {
			return nil, err
		}
		encoded = append(encoded, len(payload))
		positions = append(positions, event.Position)
		ids = append(ids, event.ID)
		lists.add(named{event.List, event.Address})
		types = append(types, string(event.Type))
		sources = append(sources, string(event.Source))
		times = append(times, event.Time)
		payloads = append(payloads, payload)
		sizes = append(sizes, event.Size)
	}
	batch.Queue(insertEvents, day, positions, ids, lists.namespaces, lists.lists, lists.names, types, sources, times, payloads, sizes)
	return encoded, nil
}

// queueOpened opens rows that are not there yet.
func queueOpened(batch *pgx.Batch, opened []openedRow) {
	if len(opened) == 0 {
		return
	}
	var (
		keys   keyArrays
		cursor []int64
	)
	for _, row := range opened {
		keys.add(row.key)
		cursor = append(cursor, row.after)
	}
	batch.Queue(openRows, keys.namespaces, keys.names, cursor)
}

func (p *plan) queueOnce(batch *pgx.Batch) {
	if len(p.firsts) == 0 {
		return
	}
	var (
		keys, fingerprints, decisions []string
		untils                        []time.Time
	)
	for key, row := range p.once {
		keys = append(keys, key)
		fingerprints = append(fingerprints, row.fingerprint)
		decisions = append(decisions, string(row.decision))
		untils = append(untils, row.until)
	}
	// Of callers whose clocks differ the slowest decides what is over.
	over := p.firsts[0].Now
	for _, once := range p.firsts {
		if once.Now.Before(over) {
			over = once.Now
		}
	}
	batch.Queue(deleteOnce, over)
	batch.Queue(upsertOnce, keys, fingerprints, decisions, untils)
}
