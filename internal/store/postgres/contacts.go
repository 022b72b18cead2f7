package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

const (
	selectCounts = `SELECT contacts, subscribed FROM lists WHERE namespace = $1 AND name = $2`

	selectAllCounts = `SELECT namespace, name, contacts, subscribed FROM lists`

	selectContacts = `SELECT ` + contactColumns + ` FROM contacts c WHERE namespace = $1 AND list = $2`
)

// Count implements store.Contacts.
func (s *Store) Count(ctx context.Context, list contact.ListKey) (counts contact.Counts, err error) {
	err = s.readRow(ctx, []any{&counts.Contacts, &counts.Subscribed}, selectCounts, list.Namespace, list.Name)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return contact.Counts{}, fmt.Errorf("count contacts: %w", err)
	}
	return counts, nil
}

// CountAll implements store.Contacts.
func (s *Store) CountAll(ctx context.Context) (map[contact.ListKey]contact.Counts, error) {
	found, err := readAll(ctx, s, scanCounts, selectAllCounts)
	if err != nil {
		return nil, fmt.Errorf("count the contacts of all lists: %w", err)
	}
	all := make(map[contact.ListKey]contact.Counts, len(found))
	for _, counted := range found {
		all[counted.list] = counted.Counts
	}
	return all, nil
}

// counted are the counts of a list.
type counted struct {
	list contact.ListKey
	contact.Counts
}

// scanCounts reads what selectAllCounts selects.
func scanCounts(row pgx.CollectableRow) (found counted, err error) {
	err = row.Scan(&found.list.Namespace, &found.list.Name, &found.Contacts, &found.Subscribed)
	return found, err
}

// FindContact implements store.ContactReader.
func (s *Store) FindContact(ctx context.Context, list contact.ListKey, address string) (contact.Contact, error) {
	return s.find(ctx, " AND address = $3", list, address)
}

// FindContactByID implements store.ContactReader.
func (s *Store) FindContactByID(ctx context.Context, list contact.ListKey, id int64) (contact.Contact, error) {
	return s.find(ctx, " AND id = $3", list, id)
}

func (s *Store) find(ctx context.Context, condition string, list contact.ListKey, name any) (contact.Contact, error) {
	found, err := readAll(ctx, s, scanContact, selectContacts+condition, list.Namespace, list.Name, name)
	if err == nil && len(found) == 0 {
		err = store.ErrNotFound
	}
	if err != nil {
		return contact.Contact{}, fmt.Errorf("find a contact: %w", err)
	}
	return found[0].Contact, nil
}

// addressed is a contact with the address that it is found by.
type addressed struct {
	contact.Contact
	address string
	size    int // of the encoded contact
}

// scanContact reads contactColumns.
func scanContact(row pgx.CollectableRow) (found addressed, err error) {
	var (
		list   contact.ListKey
		stored contactRow
	)
	err = row.Scan(&list.Namespace, &list.Name, &found.address, &stored.id, &stored.revision, &stored.state)
	if err != nil {
		return found, err
	}
	decoded, err := stored.decode()
	found.Contact, found.size = *decoded, len(stored.state)
	return found, err
}

// ListContacts implements store.ContactReader.
func (s *Store) ListContacts(ctx context.Context, list contact.ListKey, after string, limit int) (page []contact.Contact, next string, err error) {
	err = s.session(ctx, patience, func(ctx context.Context, conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, selectContacts+" AND address > $3 ORDER BY address LIMIT $4", list.Namespace, list.Name, after, limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		page, next, err = scanPage(rows, limit)
		return err
	})
	if err != nil {
		return nil, "", fmt.Errorf("list contacts: %w", err)
	}
	return page, next, nil
}

// scanPage reads rows until the page is full.
func scanPage(rows pgx.Rows, limit int) (page []contact.Contact, next string, err error) {
	for read := 0; rows.Next(); {
		found, err := scanContact(rows)
		if err != nil {
			return nil, "", err
		}
		page, read = append(page, found.Contact), read+found.size
		if len(page) == limit || read >= store.ContactsPageSize {
			return page, found.address, nil
		}
	}
	return page, "", rows.Err()
}
