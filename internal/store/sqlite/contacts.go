package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/encoding"
)

const (
	selectContacts = `SELECT id, revision, state, address FROM contacts WHERE namespace = ? AND list = ?`

	selectContact = selectContacts + ` AND address = ?`

	selectContactByID = selectContacts + ` AND id = ?`

	selectExternalID = `SELECT id FROM contacts WHERE namespace = ? AND list = ? AND external_id = ?`

	insertContact = `INSERT INTO contacts (namespace, list, address, external_id, revision, state)
		VALUES (?, ?, ?, nullif(?, ''), ?, ?)`

	updateContact = `UPDATE contacts SET external_id = nullif(?, ''), revision = ?, state = ? WHERE id = ?`

	deleteContact = `DELETE FROM contacts WHERE id = ?`

	countContact = `INSERT INTO lists (namespace, name, contacts, subscribed) VALUES (?1, ?2, ?3, ?4)
		ON CONFLICT DO UPDATE SET contacts = contacts + ?3, subscribed = subscribed + ?4`
)

// Change implements store.Contacts.
func (s *Store) Change(ctx context.Context, change store.Change) (contact.Decision, error) {
	var decision contact.Decision
	err := s.writer.do(ctx, func(tx *transaction) (err error) {
		decision, err = tx.change(change)
		return err
	})
	if err != nil {
		return contact.Decision{}, fmt.Errorf("change a contact: %w", err)
	}
	return decision, nil
}

// ChangeAll implements store.Contacts.
func (s *Store) ChangeAll(ctx context.Context, changes []store.Change) ([]store.ChangeResult, error) {
	results := make([]store.ChangeResult, len(changes))
	err := s.writer.do(ctx, func(tx *transaction) error {
		for i := range changes {
			decision, err := tx.change(changes[i])
			var refused refusal
			if err != nil && !errors.As(err, &refused) {
				return err
			}
			results[i] = store.ChangeResult{Decision: decision, Err: err}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("change contacts: %w", err)
	}
	return results, nil
}

func (tx *transaction) change(change store.Change) (contact.Decision, error) {
	if change.Once != nil {
		if first, err := tx.recall(change.Once); first != nil || err != nil {
			return deref(first), err
		}
	}
	current, address, err := tx.loadContact(change)
	if err != nil {
		return contact.Decision{}, err
	}
	decision := change.Apply(current)
	if decision.Refused != nil {
		return contact.Decision{}, refusal{decision.Refused}
	}
	if change.ContactID != 0 {
		change.Address = address
		decision.Changed = decision.Changed && current != nil
	}
	if decision.Changed {
		if err := tx.write(change, current, &decision); err != nil {
			return contact.Decision{}, err
		}
	}
	if change.Once != nil {
		err = tx.remember(change.Once, &decision)
	}
	return decision, err
}

func deref(decision *contact.Decision) contact.Decision {
	if decision == nil {
		return contact.Decision{}
	}
	return *decision
}

// write makes a decision true: the contact and its events.
func (tx *transaction) write(change store.Change, current *contact.Contact, decision *contact.Decision) error {
	var err error
	switch {
	case decision.Removed:
		err = tx.removeContact(change.List, current)
	case decision.Contact.Email != "": // somebody who is not there can be forgotten
		err = tx.storeContact(change, current, &decision.Contact)
	}
	if err != nil {
		return err
	}
	for i := range decision.Events {
		event := &decision.Events[i]
		event.List, event.Address, event.Contact = change.List, change.Address, decision.Contact
		size, err := tx.appendEvent(event)
		if err != nil {
			return err
		}
		decision.LogBytes += size
		if !event.Forget {
			continue
		}
		if err := tx.forget(event); err != nil {
			return err
		}
	}
	if !decision.OptInStarted {
		return nil
	}
	size, err := tx.askForMail(change, &decision.Contact)
	decision.LogBytes += size
	return err
}

// askForMail has the contact be mailed its opt-in link. It returns the size of what
// it appended.
func (tx *transaction) askForMail(change store.Change, asked *contact.Contact) (size int, err error) {
	if err := tx.openDelivery(store.MailKey(change.List), tx.head); err != nil {
		return 0, err
	}
	return tx.appendEvent(&contact.Event{
		Type: contact.EventOptInMail, Source: contact.SourceAPI, Time: asked.OptIn.RequestedAt,
		List: change.List, Address: change.Address, Contact: *asked,
	})
}

func (tx *transaction) removeContact(list contact.ListKey, current *contact.Contact) error {
	if _, err := tx.exec(tx.deleteContact, current.ID); err != nil {
		return err
	}
	return tx.count(list, -1, -encoding.Subscribed(current))
}

// loadContact returns the contact that a change names and its address, or nil.
func (tx *transaction) loadContact(change store.Change) (*contact.Contact, string, error) {
	query, name := tx.selectContact, any(change.Address)
	if change.ContactID != 0 {
		query, name = tx.selectContactByID, change.ContactID
	}
	loaded, address, err := scanContact(tx.row(query, change.List.Namespace, change.List.Name, name))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	return &loaded, address, nil
}

// scanContact reads a row of selectContacts.
func scanContact(row interface{ Scan(...any) error }) (loaded contact.Contact, address string, err error) {
	loaded, address, _, err = scanSized(row)
	return loaded, address, err
}

// scanSized is scanContact with the encoded size.
func scanSized(row interface{ Scan(...any) error }) (loaded contact.Contact, address string, size int, err error) {
	var (
		id, revision int64
		state        []byte
	)
	if err := row.Scan(&id, &revision, &state, &address); err != nil {
		return loaded, "", 0, err
	}
	loaded, err = encoding.DecodeContact(id, revision, state)
	return loaded, address, len(state), err
}

// checkExternalID refuses an external id that another contact of the list has.
func (tx *transaction) checkExternalID(list contact.ListKey, current *contact.Contact, externalID string) error {
	if externalID == "" {
		return nil
	}
	var holder int64
	err := tx.row(tx.selectExternalID, list.Namespace, list.Name, externalID).Scan(&holder)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	case current != nil && current.ID == holder:
		return nil
	default:
		return refusal{store.ErrExternalIDTaken}
	}
}

// storeContact writes the contact and gives a new one its ID.
func (tx *transaction) storeContact(change store.Change, current, next *contact.Contact) error {
	if err := tx.checkExternalID(change.List, current, next.ExternalID); err != nil {
		return err
	}
	if current != nil {
		next.ID = current.ID
	}
	state, err := encoding.Contact(next)
	if err != nil {
		return err
	}
	if current == nil {
		result, err := tx.exec(tx.insertContact, change.List.Namespace, change.List.Name, change.Address,
			next.ExternalID, next.Revision, state)
		if err != nil {
			return err
		}
		if next.ID, err = result.LastInsertId(); err != nil {
			return err
		}
		return tx.count(change.List, 1, encoding.Subscribed(next))
	}
	if _, err := tx.exec(tx.updateContact, next.ExternalID, next.Revision, state, next.ID); err != nil {
		return err
	}
	return tx.count(change.List, 0, encoding.Subscribed(next)-encoding.Subscribed(current))
}

func (tx *transaction) count(list contact.ListKey, contacts, subscribed int64) error {
	if contacts == 0 && subscribed == 0 {
		return nil
	}
	_, err := tx.exec(tx.countContact, list.Namespace, list.Name, contacts, subscribed)
	return err
}

// Count implements store.Contacts.
func (s *Store) Count(ctx context.Context, list contact.ListKey) (contact.Counts, error) {
	var counts contact.Counts
	err := s.read.QueryRowContext(ctx, `SELECT contacts, subscribed FROM lists WHERE namespace = ? AND name = ?`,
		list.Namespace, list.Name).Scan(&counts.Contacts, &counts.Subscribed)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return contact.Counts{}, fmt.Errorf("count contacts: %w", err)
	}
	return counts, nil
}

// CountAll implements store.Contacts.
func (s *Store) CountAll(ctx context.Context) (map[contact.ListKey]contact.Counts, error) {
	all := map[contact.ListKey]contact.Counts{}
	err := queryAll(ctx, s.read, func(rows *sql.Rows) error {
		var (
			list   contact.ListKey
			counts contact.Counts
		)
		err := rows.Scan(&list.Namespace, &list.Name, &counts.Contacts, &counts.Subscribed)
		all[list] = counts
		return err
	}, `SELECT namespace, name, contacts, subscribed FROM lists`)
	if err != nil {
		return nil, fmt.Errorf("count the contacts of all lists: %w", err)
	}
	return all, nil
}

// FindContact implements store.ContactReader.
func (s *Store) FindContact(ctx context.Context, list contact.ListKey, address string) (contact.Contact, error) {
	return s.find(ctx, selectContact, list, address)
}

// FindContactByID implements store.ContactReader.
func (s *Store) FindContactByID(ctx context.Context, list contact.ListKey, id int64) (contact.Contact, error) {
	return s.find(ctx, selectContactByID, list, id)
}

func (s *Store) find(ctx context.Context, query string, list contact.ListKey, name any) (contact.Contact, error) {
	found, _, err := scanContact(s.read.QueryRowContext(ctx, query, list.Namespace, list.Name, name))
	if errors.Is(err, sql.ErrNoRows) {
		err = store.ErrNotFound
	}
	if err != nil {
		return contact.Contact{}, fmt.Errorf("find a contact: %w", err)
	}
	return found, nil
}

// ListContacts implements store.ContactReader.
func (s *Store) ListContacts(ctx context.Context, list contact.ListKey, after string, limit int) ([]contact.Contact, string, error) {
	rows, err := s.read.QueryContext(ctx, selectContacts+" AND address > ? ORDER BY address LIMIT ?",
		list.Namespace, list.Name, after, limit)
	if err != nil {
		return nil, "", fmt.Errorf("list contacts: %w", err)
	}
	defer func() { _ = rows.Close() }() // rows.Err has what matters
	var page []contact.Contact
	for read := 0; rows.Next(); {
		found, address, size, err := scanSized(rows)
		if err != nil {
			return nil, "", fmt.Errorf("list contacts: %w", err)
		}
		page, read = append(page, found), read+size
		if len(page) == limit || read >= store.ContactsPageSize {
			return page, address, nil
		}
	}
	if err := rows.Err(); err != nil {
		return nil, "", fmt.Errorf("list contacts: %w", err)
	}
	return page, "", nil
}
