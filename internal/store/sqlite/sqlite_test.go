package sqlite_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/sqlite"
	"postbus.dev/postbus/internal/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, storetest.Engine{
		NewPlace: func(t *testing.T) string { return filepath.Join(t.TempDir(), "postbus.db") },
		Open: func(t *testing.T, place string) store.Store {
			opened, err := sqlite.Open(t.Context(), place)
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
			return opened
		},
		RotateLinkKey: rotateLinkKey,
	})
}

func rotateLinkKey(t *testing.T, place string, overlap time.Duration) error {
	_, err := sqlite.RotateLinkKey(t.Context(), place, overlap)
	return err
}

// makeStore makes a store with a few pages of contacts in it.
func makeStore(t *testing.T) (path string) {
	t.Helper()
	g := NewWithT(t)
	path = filepath.Join(t.TempDir(), "postbus.db")
	opened, err := sqlite.Open(t.Context(), path)
	g.Expect(err).NotTo(HaveOccurred())
	for n := range 200 {
		_, err := opened.Change(t.Context(), store.Change{
			List: contact.ListKey{Namespace: "marketing", Name: "newsletter"}, Address: string(rune('a'+n)) + "@example.com",
			Apply: func(*contact.Contact) contact.Decision {
				return contact.Decision{
					Contact: contact.Contact{Email: "max@example.com"}, Changed: true,
					Events: []contact.Event{{Type: contact.EventCreate, Source: contact.SourceAPI}},
				}
			},
		})
		g.Expect(err).NotTo(HaveOccurred())
	}
	g.Expect(opened.Close()).To(Succeed())
	return path
}

func edit(t *testing.T, path, statement string) {
	t.Helper()
	g := NewWithT(t)
	db, err := sql.Open("sqlite", path)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = db.ExecContext(t.Context(), statement)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(db.Close()).To(Succeed())
}

func overwrite(t *testing.T, path string, offset int64) {
	t.Helper()
	g := NewWithT(t)
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	g.Expect(err).NotTo(HaveOccurred())
	noise := make([]byte, 4096)
	for i := range noise {
		noise[i] = 0xa5
	}
	_, err = file.WriteAt(noise, offset)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(file.Close()).To(Succeed())
}

// What can't be used stops the start with one clear line.
func TestOpenRefuses(t *testing.T) {
	for name, row := range map[string]struct {
		spoil func(t *testing.T, path string)
		want  error
		says  string
	}{
		"a damaged header":  {func(t *testing.T, path string) { overwrite(t, path, 0) }, store.ErrDamaged, "restore it from a backup"},
		"a damaged page":    {func(t *testing.T, path string) { overwrite(t, path, 5*4096) }, store.ErrDamaged, "restore it from a backup"},
		"a newer version":   {func(t *testing.T, path string) { edit(t, path, `PRAGMA user_version = 999`) }, store.ErrNewer, "schema 999"},
		"a foreign program": {func(t *testing.T, path string) { edit(t, path, `PRAGMA application_id = 1`) }, store.ErrDamaged, "another program"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			path := makeStore(t)
			row.spoil(t, path)
			_, err := sqlite.Open(t.Context(), path)
			g.Expect(err).To(MatchError(row.want))
			g.Expect(err).To(MatchError(ContainSubstring(row.says)))
			g.Expect(err).To(MatchError(ContainSubstring(path)))
			g.Expect(err.Error()).NotTo(ContainSubstring("\n"), "one line")
		})
	}
}

func TestOpenTwice(t *testing.T) {
	g := NewWithT(t)
	path := filepath.Join(t.TempDir(), "postbus.db")
	first, err := sqlite.Open(t.Context(), path)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = sqlite.Open(t.Context(), path)
	g.Expect(err).To(MatchError(store.ErrInUse))
	g.Expect(first.Close()).To(Succeed())
	second, err := sqlite.Open(t.Context(), path)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(second.Close()).To(Succeed())
}

func TestFolderMissing(t *testing.T) {
	g := NewWithT(t)
	_, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "nowhere", "postbus.db"))
	g.Expect(err).To(MatchError(os.ErrNotExist))
}

// The store holds personal data.
func TestFilesArePrivate(t *testing.T) {
	g := NewWithT(t)
	path := filepath.Join(t.TempDir(), "postbus.db")
	opened, err := sqlite.Open(t.Context(), path)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(opened.Close()).To(Succeed()) }()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(path + suffix)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(info.Mode().Perm()).To(Equal(os.FileMode(0o600)), suffix)
	}
}
