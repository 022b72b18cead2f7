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

	newer, err := open(t.Context(), Options{DSNFile: place}, next(len(migrations)), nil)
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
	newer, err := open(t.Context(), Options{DSNFile: place}, next(len(migrations)+1), nil)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(newer.Close()).To(Succeed())
	_, err = Open(t.Context(), Options{DSNFile: place})
	g.Expect(err).To(MatchError(store.ErrNewer))
	g.Expect(err).To(MatchError(ContainSubstring("it has schema 2, which needs a program that knows 2 at least; this one knows 1")))
}

// Replicas that start at the same time migrate once.
func TestReplicasStartTogether(t *testing.T) {
	g := NewWithT(t)
	place := newPlace(t)
	opened := make(chan error)
	for range 4 {
		go func() {
			s, err := Open(t.Context(), Options{DSNFile: place})
			if err == nil {
				err = s.Close()
			}
			opened <- err
		}()
	}
	for range 4 {
		g.Expect(<-opened).To(Succeed())
	}
}

// A migration that goes wrong leaves everything as it was.
func TestMigrationFails(t *testing.T) {
	g := NewWithT(t)
	place := newPlace(t)
	broken := append(slices.Clone(migrations), migration{sql: `CREATE TABLE half (n int); SELECT 1/0`, oldest: 1})
	_, err := open(t.Context(), Options{DSNFile: place}, broken, nil)
	g.Expect(err).To(MatchError(ContainSubstring("migrate to schema 2")))
	s := openAt(t, place)
	var half *string
	g.Expect(s.readRow(t.Context(), []any{&half}, `SELECT to_regclass('half')::text`)).To(Succeed())
	g.Expect(half).To(BeNil())
}
