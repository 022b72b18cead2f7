package sqlite_test

import (
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/sqlite"
)

// Who goes on with a backup gives nobody the number of a contact that came after it:
// the links in that contact's mails would open another's.
func TestBackupGivesNoNumberAgain(t *testing.T) {
	g := NewWithT(t)
	path := makeStore(t)
	opened, err := sqlite.Open(t.Context(), path)
	g.Expect(err).NotTo(HaveOccurred())
	copied := filepath.Join(t.TempDir(), "copy.db")
	g.Expect(sqlite.Backup(t.Context(), path, copied)).To(Succeed())
	lost := add(t, opened, "lost@example.com")
	g.Expect(opened.Close()).To(Succeed())

	restored, err := sqlite.Open(t.Context(), copied)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(add(t, restored, "next@example.com")).To(BeNumerically(">", lost))
	g.Expect(restored.Close()).To(Succeed())
}

// add makes a contact and returns its number.
func add(t *testing.T, s *sqlite.Store, address string) int64 {
	t.Helper()
	made, err := s.Change(t.Context(), store.Change{
		List: contact.ListKey{Namespace: "marketing", Name: "newsletter"}, Address: address,
		Apply: func(*contact.Contact) contact.Decision {
			return contact.Decision{Contact: contact.Contact{Email: address}, Changed: true}
		},
	})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return made.Contact.ID
}
