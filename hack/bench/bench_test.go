package main

import (
	"bufio"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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
		"an odd backlog":   {[]string{"--backlog=3"}, "--backlog is 3, it must be even"},
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
		seconds: []float64{1.5, 1.25, 1}, megabytes: []float64{100, 101, 102}, database: []float64{0.5, 0.25, 0.75},
	}}, latencies: []latencyResult{{
		latency: latency{engine: sqliteEngine, perSecond: 200}, p50: []float64{1, 3, 2}, p95: []float64{5, 5, 5}, p99: []float64{9.06, 8, 10},
	}, {
		latency: latency{engine: postgresEngine}, rate: 2345, refused: 7, p50: []float64{1}, p95: []float64{2}, p99: []float64{3},
	}}, facts: []*fact{
		{name: "idle: memory", unit: "MB", most: 200, values: []float64{120}},
		{name: "backlog: ratio", digits: 2, least: 0.9, values: []float64{0.5, 0.6, 0.7}},
	}, versions: "go1.26, SQLite 3.53", took: 90 * time.Second}
	folder := t.TempDir()
	path := filepath.Join(folder, "benchmarks.md")
	g.Expect(os.WriteFile(path, []byte("# Before\n"), 0o600)).To(Succeed())
	g.Expect(r.write(path)).To(MatchError(ContainSubstring("has no marks")))

	text := "# Before\n" + beginMark + "old\n" + endMark + "After\n"
	g.Expect(os.WriteFile(path, []byte(text), 0o600)).To(Succeed())
	g.Expect(r.write(path)).To(Succeed())
	g.Expect(r.write(path)).To(Succeed(), "again")
	written, err := os.ReadFile(path)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(written)).To(And(HavePrefix("# Before\n"), HaveSuffix("After\n"), Not(ContainSubstring("old"))))
	g.Expect(strings.Count(string(written), "| accepting | 200 (100–300) contacts/s | 400 (300–500) | 0.60 (0.25–0.67) | 0.50 | 1.25 (1.00–1.50) | 0.50 (0.25–0.75) | 101 (100–102) |\n")).To(Equal(1))
	g.Expect(string(written)).To(ContainSubstring("| latency, SQLite: 200 contacts a second | 2.0 (1.0–3.0) | 5.0 (5.0–5.0) | 9.1 (8.0–10.0) | 25 |\n"))
	g.Expect(string(written)).To(ContainSubstring("| latency, PostgreSQL: half of the most contacts a second (2345), 7 refused | 1.0 (1.0–1.0) | 2.0 (2.0–2.0) | 3.0 (3.0–3.0) |  |\n"))
	g.Expect(string(written)).To(ContainSubstring("| idle: memory | 120 MB | at most 200 |\n"))
	g.Expect(string(written)).To(ContainSubstring("| backlog: ratio | 0.60 (0.50–0.70) | at least 0.9, **missed** |\n"))
	g.Expect(string(written)).To(ContainSubstring("Made in 2 minutes by go1.26, SQLite 3.53 on "))
	for _, name := range []string{ratioFile, latencyFile} {
		g.Expect(string(written)).To(ContainSubstring("](" + name + ")"))
		g.Expect(filepath.Join(folder, name)).To(BeAnExistingFile())
	}
}

func TestFacts(t *testing.T) {
	g := NewWithT(t)
	found := &facts{}
	rounds := 0
	measured := trial{name: "trial", measure: func(_ context.Context, _ *plane, found *facts) error {
		rounds++
		found.add(fact{name: "first", unit: "ms"}, float64(rounds))
		found.add(fact{name: "second"}, 7)
		return nil
	}}
	g.Expect(try(t.Context(), nil, measured, 3, found)).To(Succeed())
	g.Expect(rowsOf(found.all)).To(Equal([]string{"| trial: first | 2 (1–3) ms |  |", "| trial: second | 7 (7–7) |  |"}))

	found = &facts{}
	g.Expect(try(t.Context(), nil, measured, 1, found)).To(Succeed())
	g.Expect(rowsOf(found.all)).To(Equal([]string{"| trial: first | 4 ms |  |", "| trial: second | 7 |  |"}))
}

// A plot is XML, its bars end where their values are, and names in it are text.
func TestPlot(t *testing.T) {
	g := NewWithT(t)
	p := plot{title: "a & b", most: 2, ticks: []float64{0, 1, 2}, rows: []plotRow{
		{name: "<one>", bar: 1.5, bars: []plotBar{{spread{median: 1, least: 0.5, most: 9}, "1.00"}}},
	}}
	text := p.svg()
	g.Expect(xml.Unmarshal([]byte(text), new(struct{}))).To(Succeed())
	g.Expect(text).To(And(ContainSubstring("a &amp; b"), ContainSubstring("&lt;one&gt;"), ContainSubstring(`class="asked"`), ContainSubstring("prefers-color-scheme: dark")))
	g.Expect(p.at(0)).To(BeEquivalentTo(plotNames))
	g.Expect(p.at(1)).To(BeEquivalentTo((plotNames + plotEnd) / 2))
	g.Expect(p.at(9)).To(BeEquivalentTo(plotEnd), "what is beyond the scale ends with it")
	p = plot{least: 0.1, most: 1000, logarithmic: true}
	g.Expect(p.at(10)).To(BeNumerically("~", (plotNames+plotEnd)/2, 0.1))
	g.Expect(p.at(0)).To(BeEquivalentTo(plotNames))
}

func TestReadMetrics(t *testing.T) {
	g := NewWithT(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `# TYPE apiserver_request_total counter
apiserver_request_total{verb="PATCH",resource="webhooksubscriptions",subresource="status"} 7
apiserver_request_total{verb="POST",resource="webhooksubscriptions",subresource=""} 2
apiserver_request_total{verb="GET",resource="webhooksubscriptions",subresource=""} 100
apiserver_request_total{verb="PUT",resource="leases",subresource=""} 30
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 1.5e+08
`)
	}))
	defer server.Close()
	told, err := readMetrics(t.Context(), server.Client(), server.URL)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(told.sum("process_resident_memory_bytes", nil)).To(BeEquivalentTo(150e6))
	g.Expect(told.sum("nothing", nil)).To(BeZero())
	w, err := readWrites(t.Context(), server.Client(), server.URL)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(w).To(Equal(writes{subscriptions: 9, others: 30}))
}

func TestParseUsage(t *testing.T) {
	g := NewWithT(t)
	used, err := parseUsage("42 (post) bus) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 40 10 20 0 9 0 100 1000000 1000 18446744073709551615 1 1 0")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(used).To(Equal(usage{seconds: 3, ended: 0.5, bytes: float64(1000 * os.Getpagesize())}))
	_, err = parseUsage("42 (postbus) S 1")
	g.Expect(err).To(MatchError(ContainSubstring("fields")))
	own, err := usageOf(os.Getpid())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(own.bytes).To(BeNumerically(">", megabyte))
}

// A child that has ended counts as one that has not.
func TestSecondsOf(t *testing.T) {
	g := NewWithT(t)
	const work = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; "
	shell := exec.CommandContext(t.Context(), "/bin/sh", "-c", "("+work+"); ("+work+"echo done; read end) <&3 & echo $!; wait")
	ends, holds, err := os.Pipe()
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = ends.Close() }()
	shell.ExtraFiles = []*os.File{ends}
	said, err := shell.StdoutPipe()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(shell.Start()).To(Succeed())
	lines := bufio.NewScanner(said)
	g.Expect(lines.Scan()).To(BeTrue())
	child, err := strconv.Atoi(lines.Text())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(lines.Scan()).To(BeTrue(), "the child has worked")

	own, err := usageOf(shell.Process.Pid)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(own.ended).To(BeNumerically(">", 0))
	living, err := usageOf(child)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(living.seconds).To(BeNumerically(">", 0))
	all, err := secondsOf([]int{shell.Process.Pid, child})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(all).To(BeNumerically("~", own.seconds+own.ended+living.seconds, 0.05))
	g.Expect(holds.Close()).To(Succeed())
	g.Expect(shell.Wait()).To(Succeed())
	_, err = secondsOf([]int{shell.Process.Pid})
	g.Expect(err).To(MatchError(os.ErrNotExist))
}

func TestReadImported(t *testing.T) {
	for name, row := range map[string]struct{ answer, error string }{
		"complete":     {`{"line":1}` + "\n" + `{"complete":true,"lines":1,"failed":0}` + "\n", ""},
		"cut off":      {`{"line":1}` + "\n", `it ends with {"line":1}`},
		"a line fails": {`{"complete":true,"lines":1,"failed":1}` + "\n", "it ends with"},
	} {
		t.Run(name, func(t *testing.T) {
			err := readImported(strings.NewReader(row.answer))
			if row.error == "" {
				NewWithT(t).Expect(err).NotTo(HaveOccurred())
				return
			}
			NewWithT(t).Expect(err).To(MatchError(ContainSubstring(row.error)))
		})
	}
}

// Contacts are posted at their rate, and each arrives where it is waited for.
func TestSteadily(t *testing.T) {
	g := NewWithT(t)
	times := newArrivals()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if strings.HasPrefix(request.FormValue("email"), "contact-one-1@") {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		call := fmt.Sprintf(`{"data":{"contact":{"email":%q}}}`, request.FormValue("email"))
		times.ServeHTTP(w, httptest.NewRequestWithContext(request.Context(), http.MethodPost, "/", strings.NewReader(call)))
	}))
	defer server.Close()
	i := &installation{ingress: server.URL, keys: []string{"key"}}
	began := time.Now()
	took, err := times.timed(t.Context(), i, steadyLoad{name: "one", perSecond: 100, during: 200 * time.Millisecond})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(took).To(HaveLen(19), "one was refused")
	g.Expect(time.Since(began)).To(BeNumerically(">=", 190*time.Millisecond))
	for _, one := range took {
		g.Expect(one).To(BeNumerically(">", 0))
	}
}

func TestDeliveringCases(t *testing.T) {
	for subscriptions, row := range map[int]struct{ lists, contacts, calls, inFlight int }{
		1:    {1, 40_000, 40_000, 64},
		100:  {100, 20_000, 20_000, 64},
		1000: {100, 4_000, 40_000, 8},
		5000: {1, 8, 40_000, 1},
	} {
		t.Run(fmt.Sprint(subscriptions), func(t *testing.T) {
			c := deliveringCase{subscriptions: subscriptions, lists: row.lists}
			NewWithT(t).Expect([]int{c.contacts(), c.calls(), inFlightOf(subscriptions)}).To(Equal([]int{row.contacts, row.calls, row.inFlight}))
		})
	}
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
