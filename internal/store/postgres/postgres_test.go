package postgres

import (
	"os"
	"path/filepath"
	"testing"

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

// openAt opens a store that ends with the test, unless it is closed before.
func openAt(t *testing.T, file string) *Store {
	t.Helper()
	opened, err := Open(t.Context(), Options{DSNFile: file})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { NewWithT(t).Expect(opened.Close()).To(Succeed()) })
	return opened
}

func TestConformance(t *testing.T) {
	storetest.Run(t, storetest.Engine{
		NewPlace: newPlace,
		Open:     func(t *testing.T, place string) store.Store { return openAt(t, place) },
	})
}
