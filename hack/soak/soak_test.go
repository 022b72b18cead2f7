package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

func call(t *testing.T, url, id, body string) int {
	t.Helper()
	g := NewWithT(t)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	g.Expect(err).NotTo(HaveOccurred())
	request.Header.Set("webhook-id", id)
	response, err := http.DefaultClient.Do(request)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(response.Body.Close()).To(Succeed())
	return response.StatusCode
}

func body(event, email string) string {
	return `{"type":"` + event + `","data":{"contact":{"email":"` + email + `"}}}`
}

func TestAccount(t *testing.T) {
	g := NewWithT(t)
	arrived := newArrivals()
	server := httptest.NewServer(arrived.handler())
	defer server.Close()
	hook := server.URL + "/hook"
	g.Expect(call(t, hook, "evt_1", body("contact.created", "ada@example.com"))).To(Equal(http.StatusOK))
	accepted := []acceptance{{email: "ada@example.com"}}
	g.Expect(account(accepted, arrived).err()).To(MatchError(ContainSubstring("1 events of accepted contacts have not arrived, such as contact.subscribed of ada@example.com")))

	call(t, hook, "evt_2", body("contact.subscribed", "ada@example.com"))
	call(t, hook, "evt_2", body("contact.subscribed", "ada@example.com"))
	r := account(accepted, arrived)
	g.Expect(r.err()).NotTo(HaveOccurred())
	g.Expect([]int{r.accepted, r.delivered, r.again}).To(Equal([]int{1, 2, 1}))

	call(t, hook, "evt_3", body("contact.created", "ada@example.com"))
	g.Expect(account(accepted, arrived).err()).To(MatchError(ContainSubstring("1 events came under two ids")))
	g.Expect(call(t, hook, "evt_4", "{")).To(Equal(http.StatusBadRequest))
	g.Expect(account(nil, arrived).err()).To(MatchError(ContainSubstring("1 calls could not be read")))
	g.Expect(call(t, server.URL+"/gone", "evt_5", "{}")).To(Equal(http.StatusGone))
	g.Expect(account(nil, arrived).gone).To(HaveLen(1))
	arrived.gone = append(arrived.gone, arrived.gone[0].Add(time.Minute))
	g.Expect(account(nil, arrived).err()).To(MatchError(ContainSubstring("/gone was called for 1m0s, after it had answered 410")))
	arrived.gone = nil
	g.Expect(call(t, server.URL+"/limited", "evt_6", "{}")).To(Equal(http.StatusOK))
	g.Expect(account(nil, arrived).limited).To(Equal(1))
	call(t, hook, "evt_7", body(contactSubscribed, "bob@example.com"))
	g.Expect(account(nil, arrived).err()).To(MatchError(ContainSubstring("1 events came before the one before them of the same contact, such as contact.subscribed of bob@example.com")))
}

func TestMostInASecond(t *testing.T) {
	began := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	var times []time.Time
	for _, after := range []int{0, 500, 999, 1000, 1600, 5000} {
		times = append(times, began.Add(time.Duration(after)*time.Millisecond))
	}
	NewWithT(t).Expect(mostInASecond(times)).To(Equal(3))
	NewWithT(t).Expect(mostInASecond(nil)).To(BeZero())
}

func TestReadFaults(t *testing.T) {
	for name, row := range map[string]struct {
		text  string
		want  []fault
		error string
	}{
		"a name and a command": {text: "# all\n\nkill one: kubectl delete pod -l a=b\n", want: []fault{{"kill one", "kubectl delete pod -l a=b"}}},
		"no colon":             {text: "kill\n", error: "line 1 of the faults is no name, colon and command"},
		"no command":           {text: "\nkill: \n", error: "line 2"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			path := filepath.Join(t.TempDir(), "faults")
			g.Expect(os.WriteFile(path, []byte(row.text), 0o600)).To(Succeed())
			read, err := readFaults(path)
			if row.error != "" {
				g.Expect(err).To(MatchError(ContainSubstring(row.error)))
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(read).To(Equal(row.want))
		})
	}
}

func TestDuring(t *testing.T) {
	g := NewWithT(t)
	began := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	at := func(second int, took time.Duration) acceptance {
		return acceptance{at: began.Add(time.Duration(second) * time.Second), took: took}
	}
	accepted := []acceptance{at(-5, time.Hour), at(1, time.Second), at(4, 3*time.Second), at(6, 0), at(20, time.Hour)}
	gap, slowest := during(accepted, observation{began: began, settled: began.Add(10 * time.Second)})
	g.Expect(gap).To(Equal(4*time.Second), "the last one came at second 6 of 10")
	g.Expect(slowest).To(Equal(3 * time.Second))
}

// TestPosterTriesAgain has an ingress that answers every other call.
func TestPosterTriesAgain(t *testing.T) {
	g := NewWithT(t)
	var calls atomic.Int64
	ingress := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if calls.Add(1)%2 == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if request.FormValue("key") != "secret" || request.FormValue("permission") != "2" {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	defer ingress.Close()
	p := newPoster(settings{ingress: ingress.URL, key: "secret", rate: 100, callers: 1})
	p.post(t.Context(), "ada@example.com")
	g.Expect(p.accepted()).To(HaveLen(1))
	g.Expect(p.accepted()[0].email).To(Equal("ada@example.com"))
	g.Expect(p.refused).To(Equal(map[string]int{"503": 1}))
	told := report(p, account(p.accepted(), newArrivals()), []observation{{fault: fault{name: "kill one"}, settled: time.Now()}})
	g.Expect(told).To(And(ContainSubstring("| 1 | 2 | 2 | 0 | 0 | 0 | 0 | 0, 0.0 s |"), ContainSubstring("503 1 times"), ContainSubstring("| kill one | 0.0 s |")))
}
