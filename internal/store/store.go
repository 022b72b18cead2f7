// Package store answers: what must never be lost?
//
// It says what a store does; the engines beneath it (sqlite, postgres) do it, and
// the suite in storetest holds each engine to it. A store holds six things:
//
//   - contacts, one row each;
//   - the event log: what happened to contacts, in the order of commits;
//   - deliveries, one small row for each subscription: how far it has read the
//     log, which events of what it read are still open, and how its callback is.
//     Beside it the events that were set aside, what was asked for, and the last
//     attempts;
//   - key usage, when each API key was last used;
//   - log usage, how many bytes each namespace has appended to the log today;
//   - texts, the templates of lists that the controller has checked.
//
// Data is found by the names of namespaces and lists. Namespaces tells which Namespace
// object the data of a namespace belongs to.
//
// Fan-out costs no writes: an event is stored once, however many subscriptions
// match it.
package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/link"
)

// The errors that callers tell apart.
var (
	// ErrExternalIDTaken: another contact of the list has this external id.
	ErrExternalIDTaken = errors.New("external id belongs to another contact of the list")
	// ErrNotFound: the row does not exist.
	ErrNotFound = errors.New("not found in the store")
	// ErrOnceReused: the key of a Once was used for another call.
	ErrOnceReused = errors.New("idempotency key was used for another call")
	// ErrUnavailable: the store can't be reached, or can't commit now. Nothing was
	// stored, but for one case: a connection to a server that broke while a commit
	// was under way leaves open whether that was stored.
	ErrUnavailable = errors.New("store is not available")
	// ErrBound: the data of the namespace belongs to another Namespace object.
	ErrBound = errors.New("namespace is bound to another Namespace object")
	// ErrOwned: another dispatcher owns the row.
	ErrOwned = errors.New("another dispatcher owns it")
	// ErrInUse: another process has the store open.
	ErrInUse = errors.New("store is in use by another process")
	// ErrDamaged: what is stored can't be read.
	ErrDamaged = errors.New("store is damaged")
	// ErrNewer: a newer version of this program made the store.
	ErrNewer = errors.New("store was written by a newer version")
	// ErrNotMigrated: the store lacks tables or rights that this version needs. An
	// owner of the tables runs postbus migrate.
	ErrNotMigrated = errors.New("store has not been migrated: run postbus migrate with the connection string of its owner")
	// ErrTooManyLinkKeys: older link keys have to expire first.
	ErrTooManyLinkKeys = errors.New("the store has too many link keys")
	// ErrOtherVersion: another version of this program made the store, and it is
	// not to be changed.
	ErrOtherVersion = errors.New("store was written by another version")
)

const (
	// LinkKeysInterval is how often a store reads its link keys.
	LinkKeysInterval = 5 * time.Second
	// LinkKeyDelay is how long after a rotation the new key signs, so that every process
	// verifies it by then. Where the rotation revokes the old keys, it signs at once.
	LinkKeyDelay = 6 * LinkKeysInterval
	// DefaultLinkKeyOverlap is how long older keys verify after a rotation: as long as
	// the link that works longest, the one to unsubscribe.
	DefaultLinkKeyOverlap = 365 * 24 * time.Hour
	// MaxLinkKeys bounds the keys of a store. A rotation beyond it is refused.
	MaxLinkKeys = 16
)

// Store is what an engine is. All methods are safe for concurrent use.
type Store interface {
	Contacts
	ContactReader
	Log
	Operations
	Deliveries
	Owners
	Requests
	Attempts
	KeyUsage
	LogUsage
	Texts
	Namespaces
	// Identity returns a random name that the store got when it was made and
	// keeps for ever.
	Identity() string
	// LinkKeys returns the keys that links in mails are signed with. From the first call
	// on, the store keeps the ring up to date: a rotation reaches it at once where the
	// engine can notify, and within LinkKeysInterval otherwise.
	LinkKeys(ctx context.Context) (*link.Ring, error)
	// Close ends all work and frees the store for another process.
	Close() error
}

// Contacts keeps the contacts.
type Contacts interface {
	// Change changes one contact and returns once that is durable. It returns
	// what Apply decided, with the ids that the store gave. An event that forgets
	// removes the earlier events of its address from the log. Errors are
	// ErrExternalIDTaken, ErrOnceReused, Decision.Refused, ErrUnavailable (all
	// wrapped) and the context's.
	Change(ctx context.Context, change Change) (contact.Decision, error)
	// ChangeAll makes changes one after the other, in one commit, and returns
	// once that is durable: a result for each, in order. A change that is
	// refused (ErrExternalIDTaken, ErrOnceReused, Decision.Refused) does not touch the others. The
	// error says that nothing was changed at all.
	ChangeAll(ctx context.Context, changes []Change) ([]ChangeResult, error)
	// Count counts the contacts of a list.
	Count(ctx context.Context, list contact.ListKey) (contact.Counts, error)
	// CountAll counts the contacts of every list that has or had some.
	CountAll(ctx context.Context) (map[contact.ListKey]contact.Counts, error)
	// ScrubForgotten makes a tombstone, without personal data, of each event
	// that forgets somebody once every subscription of its namespace is past it.
	// It returns how many it made.
	ScrubForgotten(ctx context.Context) (scrubbed int, err error)
}

// ContactReader reads contacts back.
type ContactReader interface {
	// FindContact returns the contact of an address, in the form that addresses
	// are compared in, or ErrNotFound.
	FindContact(ctx context.Context, list contact.ListKey, address string) (contact.Contact, error)
	// FindContactByID returns the contact of a number, or ErrNotFound where the
	// list has none of this number.
	FindContactByID(ctx context.Context, list contact.ListKey, id int64) (contact.Contact, error)
	// ListContacts returns contacts of a list in the order of their addresses,
	// beginning behind this one, and the address to go on behind; it is empty
	// when there are no more. limit is how many to return at most. A page ends before
	// that with the contact that brings its encoded size to ContactsPageSize.
	ListContacts(ctx context.Context, list contact.ListKey, after string, limit int) (page []contact.Contact, next string, err error)
}

// ContactsPageSize is how many encoded bytes a page of contacts has, but for the last
// of them.
const ContactsPageSize = 1 << 20

// Change is one change of one contact.
type Change struct {
	// List is the list that the contact is on.
	List contact.ListKey
	// Address is the address in the form that addresses are compared in,
	// contact.Address.Key.
	Address string
	// ContactID names the contact instead of Address when it is not 0. Such a
	// change can't make a contact.
	ContactID int64
	// Apply decides, given the stored contact or nil. It may run several times
	// and on any goroutine, so it must depend on its argument alone.
	Apply func(current *contact.Contact) contact.Decision
	// Once, when not nil, makes a repeat of the change do nothing.
	Once *Once
}

// ChangeResult is what became of one change of several.
type ChangeResult struct {
	Decision contact.Decision
	// Err is the refusal, nil when there was none.
	Err error
}

// Once names a change, so that a repeat of it is recognised. The first change
// of a name is remembered until Until; a repeat gets the decision of the first,
// with Repeated set and of its contact the ID alone. An operational event can be
// named so as well.
type Once struct {
	// Key is the name. Whoever may not meet must not share names.
	Key string
	// Fingerprint tells repeats of one call from another call of the same name,
	// which is refused with ErrOnceReused.
	Fingerprint string
	// Now is the time; what is remembered and was to be forgotten before it is.
	Now time.Time
	// Until is when the name may be forgotten.
	Until time.Time
}

// Log is the event log. Its order is the order of commits: whoever has read
// position n will never see a position below n appear.
type Log interface {
	// Head returns the position of the newest event, 0 when there is none.
	Head(ctx context.Context) (int64, error)
	// Read returns the events that the query names, in order.
	Read(ctx context.Context, query Query) ([]contact.Event, error)
	// CountEvents counts the events that the query names; Limit is ignored.
	CountEvents(ctx context.Context, query Query) (int64, error)
	// PositionBefore returns the position behind which the events of this time
	// and later begin.
	PositionBefore(ctx context.Context, at time.Time) (int64, error)
	// LastPosition returns the position of the last event of an address up to a
	// position, 0 when there is none.
	LastPosition(ctx context.Context, list contact.ListKey, address string, upTo int64) (int64, error)
	// OldestEvent returns when the oldest event of the log happened, or the zero time
	// when the log is empty.
	OldestEvent(ctx context.Context) (time.Time, error)
	// PrepareLog makes room for the events of the next days, where the engine needs
	// that. The acting controller calls it every hour; a call that comes a week late
	// loses nothing.
	PrepareLog(ctx context.Context) error
	// WaitForEvents returns nil once the log has gone on behind this position, or
	// the context's error. There may be no event: positions can be left out, and a
	// server may have lost its last ones.
	WaitForEvents(ctx context.Context, after int64) error
	// Prune removes the events that were appended before this time, whoever has
	// them still to be sent, and what was set aside of them; an engine may keep them
	// until all of their day are as old. It returns how many it removed. Positions
	// are not given again.
	Prune(ctx context.Context, before time.Time) (removed int64, err error)
}

// Operations takes operational events that belong to no delivery.
type Operations interface {
	// RaiseOnce appends an operational event to the log; a repeat of once does
	// nothing. Errors are ErrOnceReused and ErrUnavailable (wrapped) and the
	// context's.
	RaiseOnce(ctx context.Context, once Once, event contact.Event) error
}

// Query names events of the log. Empty sets match everything.
type Query struct {
	// After is the position behind which to begin.
	After int64
	// UpTo is the last position to look at; 0 means the end of the log.
	UpTo int64
	// Positions, when not nil, names the events one by one, of whatever type.
	Positions []int64
	// Filter is what events must match.
	Filter Filter
	// Limit is how many events to return at most; 0 means 512.
	Limit int
	// MaxBytes, when not 0, ends the page behind the event with which the sizes of its
	// events reach this sum (contact.Event.Size). A page has at least one event, if
	// there is one.
	MaxBytes int
}

// Full reports whether a limit of the query ended the page, so that there may be more events
// behind its last one.
func (q Query) Full(page []contact.Event) bool {
	size := 0
	for i := range page {
		size += page[i].Size
	}
	return len(page) >= q.PageSize() || q.MaxBytes > 0 && size >= q.MaxBytes
}

// PageSize returns how many events to return at most.
func (q Query) PageSize() int {
	if q.Limit <= 0 {
		return 512
	}
	return q.Limit
}

// MostEvents returns how many events the query can find at most, where that is bounded
// by positions too; 0 where only the log's end bounds them.
func (q Query) MostEvents() int {
	if q.UpTo == 0 {
		return 0
	}
	return int(max(0, min(q.UpTo-q.After, int64(q.PageSize()))))
}

// EventID returns the id of the event at a position. It ends in random text, and
// begins with the position, so that an event is found by its id without an index.
func EventID(position int64) string {
	return fmt.Sprintf("%s%0*s_%s", eventIDPrefix, eventIDDigits, strings.ToUpper(strconv.FormatInt(position, 36)), rand.Text())
}

// EventPosition returns the position of the event that has this id, if it is the
// id of one.
func EventPosition(id string) (position int64, ok bool) {
	digits, ok := strings.CutPrefix(id, eventIDPrefix)
	digits, _, found := strings.Cut(digits, "_")
	position, err := strconv.ParseInt(digits, 36, 64)
	return position, ok && found && err == nil && position > 0
}

const (
	eventIDPrefix = "evt_"
	// eventIDDigits makes ids of one length, in the order of their positions, for
	// longer than there will be events.
	eventIDDigits = 11
)

// Filter is the part of a subscription that an engine can match. The zero
// Filter matches every event about a contact; other types must be named.
type Filter struct {
	// Namespace is the lists' namespace; empty means any.
	Namespace string
	// Lists, Types and Sources are what to match; empty means any, of types any
	// that subscriptions can name.
	Lists   []string
	Types   []v1alpha1.EventType
	Sources []v1alpha1.EventSource
	// Operations are the operational events to match as well, whatever Lists,
	// Types and Sources say; empty means none. Except is the object of which they
	// are not matched, see contact.Operation.Object.
	Operations []v1alpha1.OperationalEvent
	Except     string
}

// Matches tells whether the filter lets an event through. It means the same as
// Query.Filter does to an engine.
func (f Filter) Matches(event *contact.Event) bool {
	if f.Namespace != "" && f.Namespace != event.List.Namespace {
		return false
	}
	if slices.Contains(f.Operations, v1alpha1.OperationalEvent(event.Type)) && event.Address != f.Except {
		return true
	}
	return (len(f.Lists) == 0 || slices.Contains(f.Lists, event.List.Name)) &&
		f.matchesType(event.Type) &&
		(len(f.Sources) == 0 || slices.Contains(f.Sources, event.Source))
}

func (f Filter) matchesType(kind v1alpha1.EventType) bool {
	if len(f.Types) == 0 {
		return slices.Contains(contact.EventTypes, kind)
	}
	return slices.Contains(f.Types, kind)
}

// SubscriptionKey names a WebhookSubscription of any namespace.
type SubscriptionKey struct {
	Namespace string
	Name      string
}

// MailKey names the delivery row of a list's opt-in mails. No WebhookSubscription
// has such a name. The store opens the row itself, with the first mail that is
// asked for, so that none can come before it.
func MailKey(list contact.ListKey) SubscriptionKey {
	return SubscriptionKey{Namespace: list.Namespace, Name: mailPrefix + list.Name}
}

// mailPrefix is in no name of an object.
const mailPrefix = "mail/"

// MailList returns the list whose opt-in mails the key names, if it does.
func (k SubscriptionKey) MailList() (list contact.ListKey, isMail bool) {
	name, isMail := strings.CutPrefix(k.Name, mailPrefix)
	return contact.ListKey{Namespace: k.Namespace, Name: name}, isMail
}

// NoticeKey names the delivery row of a namespace's notices, see
// contact.EventNotice. No WebhookSubscription has such a name. The store opens the
// row itself, with the first notice.
func NoticeKey(namespace string) SubscriptionKey {
	return SubscriptionKey{Namespace: namespace, Name: noticeName}
}

// noticeName is no name of an object.
const noticeName = "notices/"

// IsNotices tells whether the key names the notices of its namespace.
func (k SubscriptionKey) IsNotices() bool { return k.Name == noticeName }

// KeyName names an ApiKey of any namespace.
type KeyName struct {
	Namespace string
	Name      string
}

// KeyUsage keeps when API keys were last used.
type KeyUsage interface {
	// NoteKeyUse notes when keys were last used. An earlier time than the one
	// that is known changes nothing.
	NoteKeyUse(ctx context.Context, uses map[KeyName]time.Time) error
	// KeyUses returns the keys that were last used after this time.
	KeyUses(ctx context.Context, since time.Time) (map[KeyName]time.Time, error)
	// ForgetKey removes what is known of a key; it does nothing when nothing is.
	ForgetKey(ctx context.Context, key KeyName) error
}

// LogUsage counts how many bytes namespaces append to the log in a day. Ingress
// counts them, and only where it has a limit.
type LogUsage interface {
	// AddLogBytes adds to what namespaces have appended on the day of this time, in
	// UTC, and returns what each has appended on that day so far, in all processes.
	// It removes the counts of earlier days.
	AddLogBytes(ctx context.Context, at time.Time, appended map[string]int64) (total map[string]int64, err error)
}

// Files are the data of a ConfigMap: contents by name.
type Files map[string]string

// ListTexts are the templates of one list that were found to be good.
type ListTexts struct {
	// Mailings are those of opt-in mailings, by the mailing's key.
	Mailings map[string]Files `json:"mailings,omitempty"`
	// Pages are those of the recipients' pages; empty for the built-in look.
	Pages Files `json:"pages,omitempty"`
}

// Texts keeps the templates of lists. The controller writes them, ingress and
// dispatcher read them, so neither needs a right to read ConfigMaps.
type Texts interface {
	// SaveTexts replaces the texts of a list.
	SaveTexts(ctx context.Context, list contact.ListKey, texts ListTexts) error
	// LoadTexts returns the texts of a list, empty ones when it has none.
	LoadTexts(ctx context.Context, list contact.ListKey) (ListTexts, error)
}
