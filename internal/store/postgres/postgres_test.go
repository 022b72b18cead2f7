package postgres

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/storetest"
	"postbus.dev/postbus/internal/testkit"
)

// server is nil where no PostgreSQL is installed.
var server *testkit.PostgreSQL

func TestMain(m *testing.M) {
	os.Exit(testkit.RunWithPostgreSQL(m, func(started *testkit.PostgreSQL) { server = started }))
}

// newPlace returns a file with the connection string of an empty database.
func newPlace(t *testing.T) (file string) {
	t.Helper()
	return writeDSN(t, server.Database(t))
}

func writeDSN(t testing.TB, dsn string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "dsn")
	NewWithT(t).Expect(os.WriteFile(file, []byte(dsn+"\n"), 0o600)).To(Succeed())
	return file
}

// prepare migrates a store as its owner, and has it keep no day.
func prepare(t testing.TB, file string) {
	t.Helper()
	g := NewWithT(t)
	_, err := Migrate(t.Context(), Options{DSNFile: file}, Roles{})
	g.Expect(err).NotTo(HaveOccurred())
	conn, _, err := connectOnce(t.Context(), file)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = conn.Exec(t.Context(), `UPDATE meta SET value = '-1000000' WHERE name = $1`, metaShortestRetention)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(conn.Close(t.Context())).To(Succeed())
}

// openAt opens a store that ends with the test, unless it is closed before.
func openAt(t *testing.T, file string) *Store {
	t.Helper()
	prepare(t, file)
	opened, err := Open(t.Context(), Options{DSNFile: file})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { NewWithT(t).Expect(opened.Close()).To(Succeed()) })
	return opened
}

func TestConformance(t *testing.T) {
	storetest.Run(t, storetest.Engine{
		NewPlace: newPlace,
		Open:     func(t *testing.T, place string) store.Store { return openAt(t, place) },
		RotateLinkKey: func(t *testing.T, place string, overlap time.Duration) error {
			_, err := RotateLinkKey(t.Context(), Options{DSNFile: place}, overlap)
			return err
		},
	})
}

// rotateAs returns what rotates the link key with another role's connection string.
func rotateAs(role string) func(t *testing.T, place string, overlap time.Duration) error {
	return func(t *testing.T, place string, overlap time.Duration) error {
		_, err := RotateLinkKey(t.Context(), Options{DSNFile: asRole(t, readFile(t, place), role)}, overlap)
		return err
	}
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return strings.TrimSpace(string(content))
}
