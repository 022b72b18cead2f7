package receiver

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

func do(t *testing.T, r *Receiver, method, target, body string) *httptest.ResponseRecorder {
	t.Helper()
	request := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	request.Header.Set("Webhook-Id", "evt_1")
	answer := httptest.NewRecorder()
	r.ServeHTTP(answer, request)
	return answer
}

func quiet(string) {}

func TestCallsAreListedAsTheyCame(t *testing.T) {
	g := NewWithT(t)
	var lines []string
	r := New(func(line string) { lines = append(lines, line) })

	g.Expect(do(t, r, "GET", "/received", "").Body.String()).To(MatchJSON(`[]`))
	g.Expect(do(t, r, "POST", "/crm?tenant=42", "{\n\"type\":1}").Code).To(Equal(http.StatusOK))
	g.Expect(do(t, r, "GET", "/mailup?customerEmail=a", "").Code).To(Equal(http.StatusOK))

	var listed []Call
	g.Expect(json.Unmarshal(do(t, r, "GET", "/received", "").Body.Bytes(), &listed)).To(Succeed())
	g.Expect(listed).To(HaveLen(2))
	first := listed[0]
	g.Expect([]string{first.Method, first.Path, first.Query, first.Body, first.Headers["webhook-id"]}).
		To(Equal([]string{"POST", "/crm", "tenant=42", "{\n\"type\":1}", "evt_1"}))
	g.Expect(first.Header().Get("Webhook-Id")).To(Equal("evt_1"))
	g.Expect(lines[0]).To(Equal(`POST /crm -> 200  id=evt_1 attempt=  { "type":1}`))

	g.Expect(do(t, r, "DELETE", "/received", "").Code).To(Equal(http.StatusNoContent))
	g.Expect(r.Calls()).To(BeEmpty())
}

func TestAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		body   string
		code   int
		status int
		says   string
	}{
		"a status is answered from then on":    {`{"status":500}`, 200, 500, `{"status":500,"delay":"0s"}`},
		"a delay may stand beside it":          {`{"status":503,"delay":"1ms"}`, 200, 503, `{"status":503,"delay":"1ms"}`},
		"a status below 200 is refused":        {`{"status":199}`, 400, 200, `{"error":"status must be between 200 and 599"}`},
		"a status above 599 is refused":        {`{"status":600}`, 400, 200, `{"error":"status must be between 200 and 599"}`},
		"a missing status is refused":          {`{}`, 400, 200, `{"error":"status must be between 200 and 599"}`},
		"a delay over a minute is refused":     {`{"status":200,"delay":"61s"}`, 400, 200, `{"error":"delay must be a duration between 0s and 1m0s, such as 2s"}`},
		"a delay that is a number is refused":  {`{"status":200,"delay":2}`, 400, 200, ""},
		"an unknown field is refused":          {`{"status":200,"code":2}`, 400, 200, ""},
		"what is no JSON is refused":           {`500`, 400, 200, ""},
		"what is an empty body is refused too": {``, 400, 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			r := New(quiet)
			answer := do(t, r, "PUT", "/answer", c.body)
			g.Expect(answer.Code).To(Equal(c.code))
			if c.says != "" {
				g.Expect(answer.Body.String()).To(MatchJSON(c.says))
			}
			g.Expect(do(t, r, "POST", "/crm", "").Code).To(Equal(c.status))
			g.Expect(r.Calls()[0].Status).To(Equal(c.status))
		})
	}
}

func TestOldestCallsAreDroppedAtTheBound(t *testing.T) {
	g := NewWithT(t)
	r := New(quiet)
	body := strings.Repeat("x", maxBody)
	const calls = maxKept/maxBody + 8
	for range calls {
		r.keep(Call{Path: "/crm", Body: body})
	}
	g.Expect(r.size).To(BeNumerically("<=", maxKept))
	g.Expect(len(r.Calls())).To(BeNumerically("<", calls-8))

	g.Expect(do(t, r, "POST", "/crm", body+"x").Code).To(Equal(http.StatusBadRequest))
}

func TestLineHasNoControlCharacters(t *testing.T) {
	g := NewWithT(t)
	line := Call{Method: "POST", Path: "/a", Body: "\x1b[2J\x00\xff" + strings.Repeat("ä", 500)}.String()
	g.Expect(line).NotTo(ContainSubstring("\x1b"))
	g.Expect([]rune(line)).To(HaveLen(len([]rune("POST /a -> 0  id= attempt=  ")) + shownBody + 1))
}
