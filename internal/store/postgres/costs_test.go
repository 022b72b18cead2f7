package postgres

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/store/storetest"
)

// Nothing depends on how much a batch or a checkpoint has. Lower a number where you
// save a statement, and in docs/benchmarks.md.
func TestStatementsOfWrites(t *testing.T) {
	g := NewWithT(t)
	sent, dsn := newWire(t, server.Database(t))
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) // no day begins meanwhile
	file := writeDSN(t, dsn)
	prepare(t, file)
	opened, err := open(t.Context(), Options{DSNFile: file}, len(migrations), func() time.Time { return noon })
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(opened.PrepareLog(t.Context())).To(Succeed())
	defer func() { g.Expect(opened.Close()).To(Succeed()) }()
	g.Eventually(opened.listening.Load).WithTimeout(patience).Should(BeTrue()) // which is no part of a write
	storetest.RunCosts(t, opened, sent.take, map[string]storetest.Cost{
		"new contacts":                            {Statements: 12, RoundTrips: 2},
		"new contacts with external ids":          {Statements: 13, RoundTrips: 3},
		"new contacts under names of calls":       {Statements: 15, RoundTrips: 2},
		"known contacts":                          {Statements: 10, RoundTrips: 2},
		"people who are forgotten":                {Statements: 15, RoundTrips: 2},
		"a checkpoint":                            {Statements: 7, RoundTrips: 2},
		"a checkpoint that sets aside and raises": {Statements: 14, RoundTrips: 2},
		"attempts":                                {Statements: 7, RoundTrips: 2},
	})
}
