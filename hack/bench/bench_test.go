package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/store/batch"
	"postbus.dev/postbus/internal/testkit"
)

func TestParse(t *testing.T) {
	for name, row := range map[string]struct {
		arguments []string
		error     string
	}{
		"nothing":          {nil, ""},
		"an even number":   {[]string{"--rounds=4"}, "--rounds is 4, it must be odd"},
		"no expression":    {[]string{"--figures=("}, "--figures: "},
		"an argument more": {[]string{"all"}, `unexpected argument "all"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(row.arguments)
			if row.error == "" {
				NewWithT(t).Expect(err).NotTo(HaveOccurred())
				return
			}
			NewWithT(t).Expect(err).To(MatchError(ContainSubstring(row.error)))
		})
	}
}

func TestReport(t *testing.T) {
	g := NewWithT(t)
	r := report{rounds: 3, results: []result{{
		figure:   figure{name: "accepting", unit: "contacts/s", bar: 0.5},
		measured: []float64{100, 300, 200}, limits: []float64{400, 500, 300}, ratios: []float64{0.25, 0.6, 0.67},
		seconds: []float64{1.5, 1.25, 1}, megabytes: []float64{100, 101, 102},
	}}, latencies: []latencyResult{{
		latency: latency{engine: sqliteEngine, perSecond: 200}, p50: []float64{1, 3, 2}, p95: []float64{5, 5, 5}, p99: []float64{9.06, 8, 10},
	}}}
	path := filepath.Join(t.TempDir(), "benchmarks.md")
	g.Expect(os.WriteFile(path, []byte("# Before\n"), 0o600)).To(Succeed())
	g.Expect(r.write(path)).To(MatchError(ContainSubstring("has no marks")))

	text := "# Before\n" + beginMark + "old\n" + endMark + "After\n"
	g.Expect(os.WriteFile(path, []byte(text), 0o600)).To(Succeed())
	g.Expect(r.write(path)).To(Succeed())
	g.Expect(r.write(path)).To(Succeed(), "again")
	written, err := os.ReadFile(path)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(written)).To(And(HavePrefix("# Before\n"), HaveSuffix("After\n"), Not(ContainSubstring("old"))))
	g.Expect(strings.Count(string(written), "| accepting | 200 (100–300) contacts/s | 400 (300–500) | 0.60 (0.25–0.67) | 0.50 | 1.25 (1.00–1.50) | 101 (100–102) |\n")).To(Equal(1))
	g.Expect(string(written)).To(ContainSubstring("| latency, SQLite: 200 contacts a second | 2.0 (1.0–3.0) | 5.0 (5.0–5.0) | 9.1 (8.0–10.0) | 25 |\n"))
}

func TestLoad(t *testing.T) {
	g := NewWithT(t)
	var calls atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if calls.Add(1); request.URL.Path == "/down" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	perSecond, err := load(t.Context(), 4, 100, func(int) posted { return posted{url: server.URL} })
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(perSecond).To(BeNumerically(">", 0))
	g.Expect(calls.Load()).To(BeEquivalentTo(100))
	_, err = load(t.Context(), 4, 100, func(int) posted { return posted{url: server.URL + "/down"} })
	g.Expect(err).To(MatchError(ContainSubstring("answers 503")))
}

func TestReceiver(t *testing.T) {
	g := NewWithT(t)
	r := newReceiver()
	server := httptest.NewServer(r)
	defer server.Close()
	arrived := r.expect(50)
	_, err := load(t.Context(), 4, 50, func(n int) posted { return posted{url: server.URL, body: fmt.Sprint("n", n)} })
	g.Expect(err).NotTo(HaveOccurred())
	perSecond, err := arrived(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(perSecond).To(BeNumerically(">", 0))
	_, body := r.lastCall()
	g.Expect(string(body)).To(HavePrefix("n"))
}

// The limit of accepting writes what it is posted, once each.
func TestBareServer(t *testing.T) {
	dsnFile := filepath.Join(t.TempDir(), "dsn")
	for name, open := range map[engine]func(t *testing.T) (bareStore, error){
		sqliteEngine: func(t *testing.T) (bareStore, error) {
			return openBareSQLite(t.Context(), filepath.Join(t.TempDir(), "bare.db"))
		},
		postgresEngine: func(t *testing.T) (bareStore, error) {
			NewWithT(t).Expect(os.WriteFile(dsnFile, []byte(testkit.NewPostgreSQL(t).Database(t)), 0o600)).To(Succeed())
			return openBarePostgreSQL(t.Context(), dsnFile)
		},
	} {
		t.Run(string(name), func(t *testing.T) {
			g := NewWithT(t)
			store, err := open(t)
			g.Expect(err).NotTo(HaveOccurred())
			defer func() { g.Expect(store.Close()).To(Succeed()) }()
			queue := batch.NewQueue(func(rows []*bareRow) { commit(t.Context(), store, rows) })
			server := httptest.NewServer(bareHandler(queue))
			defer server.Close()
			for _, contentType := range []string{"application/json", "application/x-www-form-urlencoded"} {
				_, err := load(t.Context(), 4, 60, func(n int) posted {
					call := posted{url: server.URL + contactPath, contentType: contentType, body: fmt.Sprintf("email=%d@example.com", n)}
					if contentType == "application/json" {
						call.body = fmt.Sprintf(`{"email":"%d@example.com"}`, n)
					}
					return call
				})
				g.Expect(err).NotTo(HaveOccurred())
			}
			queue.Close()
			g.Expect(countRows(t, store)).To(Equal([]int{60, 120, 60}))
		})
	}
}

// countRows returns how many contacts and events there are, and how many are counted.
func countRows(t *testing.T, store bareStore) []int {
	t.Helper()
	const query = `SELECT (SELECT count(*) FROM contacts), (SELECT count(*) FROM events), contacts FROM lists`
	counts := make([]int, 3)
	into := []any{&counts[0], &counts[1], &counts[2]}
	switch store := store.(type) {
	case *bareSQLite:
		NewWithT(t).Expect(store.conn.QueryRowContext(t.Context(), query).Scan(into...)).To(Succeed())
	case *barePostgreSQL:
		NewWithT(t).Expect(store.conn.QueryRow(t.Context(), query).Scan(into...)).To(Succeed())
	}
	return counts
}
