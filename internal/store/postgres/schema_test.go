package postgres

import (
	"slices"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/store"
)

// next is a migration that this version does not know yet.
func next(oldest int) []migration {
	return append(slices.Clone(migrations), migration{
		sql: `ALTER TABLE contacts ADD COLUMN score int NOT NULL DEFAULT 0; ALTER TABLE deliveries ADD COLUMN note text`, oldest: oldest,
	})
}

// While an installation is upgraded, and downgraded by one version, processes of
// both versions work on one store.
func TestVersionsSideBySide(t *testing.T) {
	g := NewWithT(t)
	place := newPlace(t)
	today := openAt(t, place)
	_, err := today.Change(t.Context(), save("a@example.com"))
	g.Expect(err).NotTo(HaveOccurred())

	g.Expect(migrateTo(t.Context(), Options{DSNFile: place}, Roles{}, next(len(migrations)))).
		To(ContainElement(ContainSubstring("version 2 (before: 1)")))
	newer, err := open(t.Context(), Options{DSNFile: place}, len(migrations)+1, nil)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(newer.Close()).To(Succeed()) }()
	for _, s := range []*Store{today, newer, openAt(t, place)} {
		_, err := s.Change(t.Context(), save("a@example.com"))
		g.Expect(err).NotTo(HaveOccurred())
		key := store.SubscriptionKey{Namespace: "marketing", Name: "crm"}
		g.Expect(s.OpenDelivery(t.Context(), key)).To(Succeed())
		row, err := s.LoadDelivery(t.Context(), key)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(s.Checkpoint(t.Context(), []store.Progress{{Delivery: row}})).To(BeEmpty())
	}
	g.Expect(newer.FindContact(t.Context(), list, "a@example.com")).To(HaveField("Revision", int64(4)))
	g.Expect(newer.Identity()).To(Equal(today.Identity()))
}

// A schema that this version can't work on is left alone.
func TestNewerVersion(t *testing.T) {
	g := NewWithT(t)
	place := newPlace(t)
	_, err := migrateTo(t.Context(), Options{DSNFile: place}, Roles{}, next(len(migrations)+1))
	g.Expect(err).NotTo(HaveOccurred())
	_, err = Open(t.Context(), Options{DSNFile: place})
	_, migrating := Migrate(t.Context(), Options{DSNFile: place}, Roles{})
	for _, err := range []error{err, migrating} {
		g.Expect(err).To(MatchError(store.ErrNewer))
		g.Expect(err).To(MatchError(ContainSubstring("it has schema 2, which needs a program that knows 2 at least; this one knows 1")))
	}
}

// Several migrations at once take turns: one makes everything, the others find it made.
func TestMigrationsTakeTurns(t *testing.T) {
	g := NewWithT(t)
	place := newPlace(t)
	made := make(chan []string)
	for range 4 {
		go func() {
			done, err := Migrate(t.Context(), Options{DSNFile: place}, Roles{})
			if err != nil {
				t.Errorf("migrate: %v", err)
			}
			made <- done
		}()
	}
	first := 0
	for range 4 {
		if done := <-made; len(done) > 1 {
			first++
			g.Expect(done).To(HaveExactElements("made the schema postbus", "the schema postbus has version 1 (before: 0)",
				"made the first link key", "made 8 partitions of the log, up to 7 days ahead"))
		} else {
			g.Expect(done).To(HaveExactElements("the schema postbus has version 1 (before: 1)"))
		}
	}
	g.Expect(first).To(Equal(1))
	openAt(t, place)
}

// A process that finds no tables, or those of an older version, says who makes them.
func TestOpenDoesNotMigrate(t *testing.T) {
	g := NewWithT(t)
	place := newPlace(t)
	_, err := Open(t.Context(), Options{DSNFile: place})
	g.Expect(err).To(And(MatchError(store.ErrNotMigrated),
		MatchError(ContainSubstring("run postbus migrate with the connection string of its owner: the schema postbus has no tables"))))
	conn, _, err := connectOnce(t.Context(), place)
	g.Expect(err).NotTo(HaveOccurred())
	var made bool
	g.Expect(conn.QueryRow(t.Context(), `SELECT to_regnamespace('postbus') IS NOT NULL`).Scan(&made)).To(Succeed())
	g.Expect(made).To(BeFalse(), "it has made nothing")
	g.Expect(conn.Close(t.Context())).To(Succeed())

	prepare(t, place)
	_, err = open(t.Context(), Options{DSNFile: place}, len(migrations)+1, nil)
	g.Expect(err).To(And(MatchError(store.ErrNotMigrated), MatchError(ContainSubstring("has version 1, this program needs 2"))))
}

// A migration that goes wrong leaves everything as it was.
func TestMigrationFails(t *testing.T) {
	g := NewWithT(t)
	place := newPlace(t)
	broken := append(slices.Clone(migrations), migration{sql: `CREATE TABLE half (n int); SELECT 1/0`, oldest: 1})
	_, err := migrateTo(t.Context(), Options{DSNFile: place}, Roles{}, broken)
	g.Expect(err).To(MatchError(ContainSubstring("migrate to schema 2")))
	s := openAt(t, place)
	var half *string
	g.Expect(s.readRow(t.Context(), []any{&half}, `SELECT to_regclass('half')::text`)).To(Succeed())
	g.Expect(half).To(BeNil())
}
