package sqlite

import (
	"database/sql"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// A file is read through only up to a size, so that a restart does not take
// longer with each day's events.
func TestCheckReadsThroughUpToASize(t *testing.T) {
	g := NewWithT(t)
	path := filepath.Join(t.TempDir(), "postbus.db")
	opened, err := Open(t.Context(), path)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(opened.Close()).To(Succeed())
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = file.WriteAt(make([]byte, 4096), 4*4096) // the fifth page is a table's
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(file.Close()).To(Succeed())

	db, err := sql.Open("sqlite", dataSource(path))
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(db.Close()).To(Succeed()) }()
	g.Expect(check(t.Context(), db, readThroughSize)).To(MatchError(store.ErrDamaged))
	g.Expect(check(t.Context(), db, 0)).To(Succeed())
}

// A store of any earlier version is brought to the newest, with what it has.
func TestMigrates(t *testing.T) {
	for version := 1; version < len(migrations); version++ {
		g := NewWithT(t)
		path := filepath.Join(t.TempDir(), "postbus.db")
		db, err := sql.Open("sqlite", dataSource(path))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(migrate(t.Context(), db, migrations[:version])).To(Succeed())
		_, err = db.ExecContext(t.Context(), `INSERT INTO lists VALUES ('marketing', 'newsletter', 3, 2)`)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(db.Close()).To(Succeed())

		opened, err := Open(t.Context(), path)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(opened.Count(t.Context(), contact.ListKey{Namespace: "marketing", Name: "newsletter"})).
			To(Equal(contact.Counts{Contacts: 3, Subscribed: 2}))
		g.Expect(opened.KeyUses(t.Context(), time.Time{})).To(BeEmpty())
		g.Expect(opened.Close()).To(Succeed())
	}
}
