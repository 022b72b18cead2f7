package sqlite_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/sqlite"
)

// A reader sees what the process beside it commits, and stands in nobody's way.
func TestReaderBesideTheWriter(t *testing.T) {
	g := NewWithT(t)
	path := filepath.Join(t.TempDir(), "postbus.db")
	writer, err := sqlite.Open(t.Context(), path)
	g.Expect(err).NotTo(HaveOccurred())
	key := store.SubscriptionKey{Namespace: "marketing", Name: "crm"}
	g.Expect(writer.OpenDelivery(t.Context(), key)).To(Succeed())
	row, err := writer.LoadDelivery(t.Context(), key)
	g.Expect(err).NotTo(HaveOccurred())
	note := func(id string) {
		attempt := store.Attempt{Time: time.Now().UTC(), EventID: id, EventType: contact.EventCreate, Number: 1, Outcome: "Delivered"}
		g.Expect(writer.AddAttempts(t.Context(), []store.AttemptLog{{Key: key, Token: row.Token, Attempts: []store.Attempt{attempt}}})).To(Succeed())
	}

	reader, err := sqlite.OpenReader(t.Context(), path)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(reader.LoadAttempts(t.Context(), key)).To(BeEmpty())
	note("evt_1")
	g.Expect(reader.LoadAttempts(t.Context(), key)).To(HaveLen(1))
	note("evt_2")
	g.Expect(reader.LoadAttempts(t.Context(), key)).To(HaveLen(2))

	g.Expect(writer.Close()).To(Succeed(), "a reader does not hold up the end")
	g.Expect(reader.LoadAttempts(t.Context(), key)).To(HaveLen(2))
	next, err := sqlite.Open(t.Context(), path)
	g.Expect(err).NotTo(HaveOccurred(), "a reader holds no lock")
	g.Expect(reader.Close()).To(Succeed())
	g.Expect(next.LoadAttempts(t.Context(), key, store.MaxAttempts)).To(HaveLen(2))
	g.Expect(next.Close()).To(Succeed())

	reader, err = sqlite.OpenReader(t.Context(), path)
	g.Expect(err).NotTo(HaveOccurred(), "nobody has to have it open")
	g.Expect(reader.LoadAttempts(t.Context(), key)).To(HaveLen(2))
	g.Expect(reader.Close()).To(Succeed())
}

// What a process that was killed has left behind is read as it is.
func TestReaderOfAKilledProcess(t *testing.T) {
	g := NewWithT(t)
	folder := t.TempDir()
	path := filepath.Join(folder, "postbus.db")
	writer, err := sqlite.Open(t.Context(), path)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(writer.Close()).To(Succeed()) }()
	key := store.SubscriptionKey{Namespace: "marketing", Name: "crm"}
	g.Expect(writer.OpenDelivery(t.Context(), key)).To(Succeed())
	row, err := writer.LoadDelivery(t.Context(), key)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(writer.AddAttempts(t.Context(), []store.AttemptLog{{Key: key, Token: row.Token, Attempts: []store.Attempt{{EventID: "evt_1"}}}})).To(Succeed())

	left := filepath.Join(t.TempDir(), "postbus.db")
	for _, suffix := range []string{"", "-wal"} { // without -shm, as after a crash of the machine
		content, err := os.ReadFile(path + suffix)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(content).NotTo(BeEmpty())
		g.Expect(os.WriteFile(left+suffix, content, 0o600)).To(Succeed())
	}
	reader, err := sqlite.OpenReader(t.Context(), left)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(reader.LoadAttempts(t.Context(), key)).To(HaveLen(1))
	g.Expect(reader.Close()).To(Succeed())
	next, err := sqlite.Open(t.Context(), left)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(next.LoadAttempts(t.Context(), key, store.MaxAttempts)).To(HaveLen(1), "nothing is lost by reading")
	g.Expect(next.Close()).To(Succeed())
}

func TestOpenReaderRefuses(t *testing.T) {
	for name, row := range map[string]struct {
		spoil func(t *testing.T, path string)
		want  error
	}{
		"a missing file":   {func(t *testing.T, path string) { NewWithT(t).Expect(os.Remove(path)).To(Succeed()) }, os.ErrNotExist},
		"another file":     {func(t *testing.T, path string) { overwrite(t, path, 0) }, store.ErrDamaged},
		"another program":  {func(t *testing.T, path string) { edit(t, path, `PRAGMA application_id = 1`) }, store.ErrDamaged},
		"a newer version":  {func(t *testing.T, path string) { edit(t, path, `PRAGMA user_version = 999`) }, store.ErrOtherVersion},
		"an older version": {func(t *testing.T, path string) { edit(t, path, `PRAGMA user_version = 1`) }, store.ErrOtherVersion},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			path := makeStore(t)
			row.spoil(t, path)
			_, err := sqlite.OpenReader(t.Context(), path)
			g.Expect(err).To(MatchError(row.want))
			g.Expect(err).To(MatchError(ContainSubstring(path)))
		})
	}
}
