// Package storetest answers: does an engine do what package store says?
//
// Each engine's test calls Run. A test here knows nothing of the engine.
package storetest

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// Engine is how the suite gets at an engine's stores.
type Engine struct {
	// NewPlace returns where an empty store can be opened.
	NewPlace func(t *testing.T) string
	// Open opens the store at a place; the suite closes it.
	Open func(t *testing.T, place string) store.Store
	// RotateLinkKey rotates the link key of the store at a place, while it is open.
	RotateLinkKey func(t *testing.T, place string, overlap time.Duration) error
}

// Run holds an engine to what package store says.
func Run(t *testing.T, engine Engine) {
	for name, test := range map[string]func(*testing.T, store.Store){
		"a change is applied to what is stored":          testChange,
		"a decision that changes nothing stores nothing": testNoChange,
		"an external id belongs to one contact":          testExternalID,
		"a decision can refuse its change":               testRefused,
		"contacts are read back":                         testReadBack,
		"contacts are counted":                           testCount,
		"callers of one contact take turns":              testOneContact,
		"changes can share a commit":                     testChangeAll,
		"a caller that has gone changes nothing":         testCancelled,
		"a contact can be removed":                       testRemove,
		"a person can be forgotten":                      testForget,
		"a repeat of a named change does nothing":        testOnce,
		"the last use of a key is kept":                  testKeyUsage,
		"a decision says what it appended":               testLogBytes,
		"bytes of the log are counted by day":            testLogUsage,
		"the log is in commit order":                     testLogOrder,
		"events are found by what they are":              testQuery,
		"a page ends when it is full":                    testPages,
		"waiting for events ends with the context":       testWaitCancelled,
		"a delivery begins at the end of the log":        testOpenDelivery,
		"a delivery misses nothing behind its beginning": testOpenDeliveryRace,
		"a checkpoint writes rows that exist":            testCheckpoint,
		"changed deliveries are found by revision":       testDeliveriesSince,
		"events are set aside and taken up again":        testSetAside,
		"what is owed or set aside is not scrubbed":      testScrubWaits,
		"a checkpoint appends what it raises":            testRaised,
		"a repeated checkpoint raises nothing again":     testRaisedTwice,
		"operational events are found by their object":   testOperations,
		"dispatchers live as long as they join":          testJoin,
		"a delivery has one owner":                       testClaim,
		"a dead owner is followed by another":            testClaimFromTheDead,
		"a change of owners is told":                     testWaitForOwners,
		"old events are removed":                         testPrune,
		"the last request of each type is kept":          testRequests,
		"the last attempts are kept":                     testAttempts,
		"an event is found by its id and by its time":    testFindEvents,
		"a contact is found and changed by its number":   testContactByID,
		"a started opt-in puts a mail into the log":      testOptInMail,
		"the first mail of a list opens their delivery":  testMailDelivery,
		"the first notice opens their delivery":          testNoticeDelivery,
		"the texts of a list are kept":                   testTexts,
		"a namespace keeps its data when it is adopted":  testAdoptNamespace,
		"a namespace gets none of an earlier one's data": testRenewNamespace,
		"objects are bound to their namespace":           testBindObject,
		"the events of a list can be removed":            testRemoveEvents,
		"the oldest event is known":                      testOldestEvent,
	} {
		t.Run(name, func(t *testing.T) {
			opened := engine.Open(t, engine.NewPlace(t))
			defer func() { NewWithT(t).Expect(opened.Close()).To(Succeed()) }()
			test(t, opened)
		})
	}
	t.Run("everything is still there after a restart", func(t *testing.T) { testReopen(t, engine) })
	t.Run("links work until their key is revoked", func(t *testing.T) { testLinkKeys(t, engine) })
	t.Run("a closed store refuses changes", func(t *testing.T) { testClosed(t, engine) })
}

var list = contact.ListKey{Namespace: "marketing", Name: "newsletter"}

// now has no part below the microsecond and no location, as every engine keeps it.
var now = time.Date(2026, 11, 22, 10, 0, 0, 123456000, time.UTC)

// save returns a change that creates or renames a contact and raises one event.
func save(address, name string) store.Change {
	return store.Change{List: list, Address: address, Apply: func(current *contact.Contact) contact.Decision {
		next := contact.Contact{Email: address, Permission: contact.PermissionNone, CreatedAt: now}
		kind := contact.EventCreate
		if current != nil {
			next = *current
			kind = contact.EventChangeProfile
		}
		next.StandardFields = map[string]string{"FIRSTNAME": name}
		next.CustomFields = map[string]any{"text": "a", "number": 1.5, "flag": true}
		next.Revision++
		next.UpdatedAt = now
		return contact.Decision{
			Contact: next, Changed: true, Created: current == nil,
			Events: []contact.Event{{Type: kind, Source: contact.SourceAPI, Time: now, Changed: []string{"FIRSTNAME"}, Hops: 1, Trace: "00-1-2-01"}},
		}
	}}
}

// saveAs is save with other facts about the contact.
func saveAs(address string, edit func(*contact.Contact)) store.Change {
	change := save(address, "Max")
	apply := change.Apply
	change.Apply = func(current *contact.Contact) contact.Decision {
		decision := apply(current)
		edit(&decision.Contact)
		return decision
	}
	return change
}

func address(n int) string { return fmt.Sprintf("max.%d@example.com", n) }

func mustChange(t *testing.T, s store.Contacts, change store.Change) contact.Decision {
	t.Helper()
	decision, err := s.Change(t.Context(), change)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return decision
}

func mustRead(t *testing.T, s store.Log, query store.Query) []contact.Event {
	t.Helper()
	events, err := s.Read(t.Context(), query)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return events
}

func testReopen(t *testing.T, engine Engine) {
	g := NewWithT(t)
	place := engine.NewPlace(t)
	key := store.SubscriptionKey{Namespace: "marketing", Name: "crm"}

	first := engine.Open(t, place)
	identity := first.Identity()
	created := mustChange(t, first, save(address(1), "Max"))
	g.Expect(first.OpenDelivery(t.Context(), key)).To(Succeed())
	g.Expect(first.Close()).To(Succeed())

	second := engine.Open(t, place)
	defer func() { g.Expect(second.Close()).To(Succeed()) }()
	g.Expect(second.Identity()).To(Equal(identity))
	g.Expect(mustRead(t, second, store.Query{})).To(Equal(created.Events))
	g.Expect(second.Head(t.Context())).To(Equal(created.Events[0].Position))
	delivery, err := second.LoadDelivery(t.Context(), key)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(delivery.Cursor).To(Equal(created.Events[0].Position))
	changed := mustChange(t, second, save(address(1), "Moritz"))
	g.Expect(changed.Created).To(BeFalse())
	g.Expect(changed.Contact.ID).To(Equal(created.Contact.ID))
	g.Expect(changed.Contact.Revision).To(Equal(created.Contact.Revision + 1))
	g.Expect(changed.Events[0].Position).To(BeNumerically(">", created.Events[0].Position))
}

func testClosed(t *testing.T, engine Engine) {
	g := NewWithT(t)
	opened := engine.Open(t, engine.NewPlace(t))
	g.Expect(opened.Close()).To(Succeed())
	_, err := opened.Change(t.Context(), save(address(1), "Max"))
	g.Expect(err).To(MatchError(store.ErrUnavailable))
}
