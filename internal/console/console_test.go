package console

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	. "github.com/onsi/gomega"
)

// A flag that stands where it is not read must not be taken for a parameter, or the
// call would go to another server than was meant, or do less.
func TestFlagsBehindArgumentsAreRefused(t *testing.T) {
	called := false
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called = true }))
	defer server.Close()
	for _, arguments := range [][]string{
		{"add", "--server=" + server.URL, "ada@example.com", "--server=http://127.0.0.1:1"},
		{"change", "--server=" + server.URL, "ada@example.com", "permission=2", "-server=http://127.0.0.1:1"},
		{"delete", "--server=" + server.URL, "ada@example.com", "--forget"},
	} {
		g := NewWithT(t)
		err := Run(t.Context(), arguments, IO{Environment: func(string) string { return "key" }, Out: io.Discard})
		g.Expect(err).To(MatchError(ContainSubstring("flags stand before them")), arguments[0])
		g.Expect(called).To(BeFalse(), arguments[0])
	}
}
