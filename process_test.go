package main

import (
	"io"
	"log"
	"net/http"
	"testing"

	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/testkit"
)

// A callback that sends more than its answer, such as the call itself, has that in no log.
func TestWhatComesBehindAnAnswerIsNotLogged(t *testing.T) {
	g := NewWithT(t)
	flags, output := log.Flags(), log.Writer()
	t.Cleanup(func() { log.SetFlags(flags); log.SetOutput(output) })
	lines := make(chan string, 10)
	logLibraries(funcr.New(func(_, line string) { lines <- line }, funcr.Options{Verbosity: 1}))

	receiver := testkit.NewReceiver(t)
	receiver.AnswerWith(func(w http.ResponseWriter, _ *http.Request) {
		connection, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(connection, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nPOST /secret HTTP/1.1\r\n\r\n")
		_, _ = io.Copy(io.Discard, connection)
		_ = connection.Close()
	})
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, receiver.URL(), nil)
	g.Expect(err).NotTo(HaveOccurred())
	response, err := new(http.Transport).RoundTrip(request)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(response.Body.Close()).To(Succeed())
	g.Eventually(lines, patience).Should(Receive(And(ContainSubstring(unasked), Not(ContainSubstring("secret")))))

	_, err = io.WriteString(log.Writer(), "something else\n") // as log.Print does
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(lines).To(Receive(ContainSubstring("something else")))
}
