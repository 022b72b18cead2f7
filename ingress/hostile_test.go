package ingress_test

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"postbus.dev/postbus/ingress"
	"postbus.dev/postbus/internal/link"
)

// maxMemory is what ingress may hold more under attack, garbage included. The
// attackers are in the same process, so it is theirs, too. docs/ingress.md
// states the figure.
const maxMemory = 256 << 20

// attack runs what strangers do, checks every few milliseconds that memory
// stays bounded, and at the end that a good caller is answered while it lasts.
func (f *fixture) attack(t *testing.T, strangers func()) {
	t.Helper()
	g := NewWithT(t)
	before := held(true)
	done, watched := make(chan struct{}), make(chan uint64)
	go func() {
		ticker := time.NewTicker(5 * time.Millisecond)
		defer ticker.Stop()
		var most uint64
		for {
			select {
			case <-done:
				watched <- max(most, held(false))
				return
			case <-ticker.C:
				most = max(most, held(false))
			}
		}
	}()
	strangers()
	g.Expect(f.good(t)).To(Equal(http.StatusOK))
	close(done)
	most := <-watched
	grown := int64(most) - int64(before)
	t.Logf("memory grew by at most %d MiB", grown>>20)
	g.Expect(grown).To(BeNumerically("<", maxMemory))
}

// held is how many bytes of heap and stacks are in use. Unlike runtime.ReadMemStats
// it stops nobody.
func held(collected bool) uint64 {
	if collected {
		runtime.GC()
	}
	samples := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() + samples[1].Value.Uint64()
}

// good posts a contact on a connection of its own, as a quick caller does, and
// returns the answer's status.
func (f *fixture) good(t *testing.T) int {
	t.Helper()
	g := NewWithT(t)
	transport, scheme := &http.Transport{DisableKeepAlives: true, TLSClientConfig: unverified()}, "http://"
	if f.secure {
		scheme = "https://"
	}
	body := strings.NewReader(encode(f.with("good@example.com")))
	sent, err := http.NewRequestWithContext(t.Context(), http.MethodPost, scheme+f.address+contactPath, body)
	g.Expect(err).NotTo(HaveOccurred())
	sent.Header.Set("Content-Type", formType)
	response, err := transport.RoundTrip(sent)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(response.Body.Close()).To(Succeed())
	return response.StatusCode
}

// crowd opens connections and says something on each. Ingress may close any.
func (f *fixture) crowd(t *testing.T, size int, text string) []net.Conn {
	t.Helper()
	connections := make([]net.Conn, size)
	for i := range connections {
		connections[i] = f.dial(t)
		_, _ = io.WriteString(connections[i], text) // it may be closed already
	}
	return connections
}

// turnedAway returns how many a limit has turned away.
func (f *fixture) turnedAway(t *testing.T, limit string) int {
	t.Helper()
	found := regexp.MustCompile(`turned_away_total\{limit="` + limit + `"\} (\d+)`).FindStringSubmatch(f.metrics(t))
	NewWithT(t).Expect(found).To(HaveLen(2))
	count, err := strconv.Atoi(found[1])
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return count
}

func (f *fixture) awaitTurnedAway(t *testing.T, limit string, least int) {
	t.Helper()
	NewWithT(t).Eventually(func() int { return f.turnedAway(t, limit) }).WithTimeout(30 * time.Second).
		Should(BeNumerically(">=", least))
}

// head is the beginning of a call with a form, whose header goes on with more.
func head(more string) string {
	return "POST " + contactPath + " HTTP/1.1\r\nHost: x\r\nContent-Type: " + formType + "\r\n" + more
}

func TestIdleConnections(t *testing.T) {
	f := start(t)
	size := 10_000
	var files syscall.Rlimit
	NewWithT(t).Expect(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files)).To(Succeed())
	if room := int(files.Cur) - ingress.DefaultMaxConnections - 500; room < size {
		t.Logf("only %d connections instead of %d: the process may open %d files", room, size, files.Cur)
		size = room
	}
	f.attack(t, func() {
		f.crowd(t, size, "")
		f.awaitTurnedAway(t, "connections", size-ingress.DefaultMaxConnections)
	})
}

// TestSlowStreams has more HTTP/2 connections than there may be, each with
// streams whose bodies never end.
func TestSlowStreams(t *testing.T) {
	g := NewWithT(t)
	f, _ := startTLS(t)
	f.attack(t, func() {
		const size = ingress.DefaultMaxConnections + 200
		for range size {
			connection := tls.Client(f.dial(t), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
			g.Expect(connection.HandshakeContext(t.Context())).To(Succeed())
			_, _ = connection.Write(slowStreams(t)) // it may be closed already
		}
		f.awaitTurnedAway(t, "http2_connections", size-64)
	})
}

// slowStreams returns how an HTTP/2 connection begins on which ten streams each
// send the beginning of a body.
func slowStreams(t *testing.T) []byte {
	t.Helper()
	g := NewWithT(t)
	var frames, block bytes.Buffer
	frames.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&frames, nil)
	g.Expect(framer.WriteSettings()).To(Succeed())
	headers := hpack.NewEncoder(&block)
	for stream := uint32(1); stream < 20; stream += 2 {
		block.Reset()
		for _, field := range [][2]string{
			{":method", "POST"}, {":scheme", "https"}, {":authority", "x"}, {":path", contactPath}, {"content-type", formType},
		} {
			g.Expect(headers.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})).To(Succeed())
		}
		g.Expect(framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true})).To(Succeed())
		g.Expect(framer.WriteData(stream, false, bytes.Repeat([]byte("a"), 6<<10))).To(Succeed())
	}
	return frames.Bytes()
}

func TestFloodsOfHeaders(t *testing.T) {
	for name, text := range map[string]string{
		"headers that never end":     head("X-A: "),
		"many small headers":         head(manyHeaders(30 << 10)),
		"one large header":           head("X-A: " + strings.Repeat("a", 30<<10)),
		"URL parameters without end": "POST " + contactPath + "?" + strings.Repeat("a&", 15<<10),
		"a request line and no more": "POST ",
		"an HTTP/2 preface":          "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"bytes that are no HTTP":     strings.Repeat("\x00", 1<<10),
		"a TLS handshake begun":      "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t)
			f.attack(t, func() { f.crowd(t, 2*ingress.DefaultMaxConnections, text) })
		})
	}
}

// manyHeaders returns as many headers as fit, each with a name of its own.
func manyHeaders(size int) string {
	var text strings.Builder
	for i := 0; text.Len() < size; i++ {
		fmt.Fprintf(&text, "%x:\r\n", i)
	}
	return text.String()
}

func TestHeaderTooLarge(t *testing.T) {
	for name, text := range map[string]string{
		"many headers":        head(manyHeaders(64 << 10)),
		"one large header":    head("X-A: " + strings.Repeat("a", 64<<10)),
		"many URL parameters": "POST " + contactPath + "?" + strings.Repeat("a&", 32<<10),
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			f := start(t)
			connection := f.dial(t)
			_, _ = io.WriteString(connection, text) // it may be closed before the end
			g.Expect(readAnswer(t, connection).status).To(Equal(http.StatusRequestHeaderFieldsTooLarge))
		})
	}
}

func TestSlowBodiesMakeRoom(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	f.attack(t, func() {
		slow := f.crowd(t, ingress.DefaultMaxRequests+50, head("Content-Length: 100\r\n\r\nsrc=a"))
		f.awaitTurnedAway(t, "requests", 50)
		got := readAnswer(t, slow[0])
		g.Expect(got.status).To(Equal(http.StatusServiceUnavailable))
		g.Expect(got.body).To(ContainSubstring(`"code":"Overloaded"`))
	})
}

func TestLargeBodiesMakeRoom(t *testing.T) {
	f := start(t)
	large := head("Content-Length: 1048576\r\n\r\n") + strings.Repeat("a", 1<<20-1)
	f.attack(t, func() {
		f.crowd(t, 200, large)
		f.awaitTurnedAway(t, "large_bodies", 190)
	})
}

// TestSlowCallersAreCutOff takes as long as the longest of its time limits.
func TestSlowCallersAreCutOff(t *testing.T) {
	t.Parallel()
	f := start(t)
	var slow sync.WaitGroup
	for text, status := range map[string]int{
		head("X-A: "):                                        0,
		head("Content-Length: 100\r\n\r\nsrc=a"):             http.StatusRequestTimeout,
		head("Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n"): http.StatusRequestTimeout,
	} {
		connection := f.crowd(t, 1, text)[0]
		slow.Go(func() {
			answered, err := io.ReadAll(connection) // to its end: the connection is closed
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
			if status != 0 {
				NewWithT(t).Expect(string(answered)).To(HavePrefix(fmt.Sprintf("HTTP/1.1 %d ", status)))
			}
		})
	}
	slow.Wait()
}

func TestEndlessBodies(t *testing.T) {
	chunk := "10000\r\n" + strings.Repeat("a", 1<<16) + "\r\n"
	for name, row := range map[string]struct{ beginning, part string }{
		"2 GiB that were announced": {head("Content-Length: 2147483648\r\n\r\n"), strings.Repeat("a", 1<<16)},
		"chunks without end":        {head("Transfer-Encoding: chunked\r\n\r\n"), chunk},
		"one chunk of 2 GiB":        {head("Transfer-Encoding: chunked\r\n\r\n80000000\r\n"), strings.Repeat("a", 1<<16)},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			f := start(t)
			f.attack(t, func() {
				connection := f.crowd(t, 1, row.beginning)[0]
				var refused sync.WaitGroup
				refused.Go(func() {
					g.Expect(readAnswer(t, connection).status).To(Equal(http.StatusRequestEntityTooLarge))
				})
				sent, err := 0, error(nil)
				for err == nil && sent < 1<<31 {
					_, err = io.WriteString(connection, row.part)
					sent += len(row.part)
				}
				refused.Wait()
				g.Expect(err).To(HaveOccurred(), "the connection is closed")
				g.Expect(sent).To(BeNumerically("<", 64<<20), "most of it stays in the caller's buffers")
			})
		})
	}
}

// isBrokenOff tells whether ingress closed a connection while it was still sent
// to. net/http then closes it too, beneath whoever still reads a long answer.
func isBrokenOff(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed)
}

// TestFloodedPages has many callers, with a good link, post more to a page than
// a form has.
func TestFloodedPages(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	flood := request{path: f.link(link.Profile, f.subscriber(t, "ada@example.com")), contentType: formType, body: strings.Repeat("a", 4<<20)}
	f.attack(t, func() {
		var callers sync.WaitGroup
		for n := range 64 {
			callers.Go(func() {
				sent := flood
				sent.chunked = n%2 == 0
				got, err := f.exchange(t, sent)
				if isBrokenOff(err) {
					return
				}
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(got.status).To(BeElementOf(http.StatusRequestEntityTooLarge, http.StatusServiceUnavailable))
				g.Expect(got.header.Get("Content-Type")).To(HavePrefix("text/html"))
			})
		}
		callers.Wait()
	})
}

// TestHostileBodies has many callers send, at once, what is small on the wire
// and large, or slow, to whoever reads it without care.
func TestHostileBodies(t *testing.T) {
	f, bomb := start(t), bomb(t)
	fill := func(before, unit, after string) string {
		return before + strings.Repeat(unit, (1<<20-len(before)-len(after))/len(unit)) + after
	}
	for name, row := range map[string]struct {
		request request
		message string
	}{
		"arrays in arrays":         {request{contentType: jsonType, body: fill("", "[", "")}, "the body must be one JSON object"},
		"arrays in a member":       {request{contentType: jsonType, body: fill(`{"a":`, "[", "")}, "the body must be one JSON object"},
		"objects in objects":       {request{contentType: jsonType, body: fill("", `{"a":`, "")}, "the body must be one JSON object"},
		"many members":             {request{contentType: jsonType, body: "{" + numbered(`"%x":1,`, 1<<20-100) + `"z":1}`}, "there are more than 1000 parameters"},
		"one long number":          {request{contentType: jsonType, body: fill(`{"permission":`, "9", "}")}, "permission must be"},
		"many parameters":          {request{contentType: formType, body: numbered("%x&", 1<<20-100)}, "there are more than 1000 parameters"},
		"one parameter repeated":   {request{contentType: formType, body: fill("", "a&", "")}, "too many values: a is given more than once"},
		"nothing but separators":   {request{contentType: formType, body: fill("", "&", "%")}, "not percent-encoded correctly"},
		"bytes that are no UTF-8":  {request{contentType: formType, body: fill("a=", "\xff", "")}, "a must be valid UTF-8"},
		"JSON that is no UTF-8":    {request{contentType: jsonType, body: fill(`{"a":"`, "\xc3", `"}`)}, "the body must be valid UTF-8"},
		"escapes":                  {request{contentType: formType, body: fill("src=", "%41", "")}, "src must have at most 255 characters"},
		"a zip bomb":               {request{contentType: jsonType, body: bomb, header: map[string]string{"Content-Encoding": "gzip"}}, "not compressed"},
		"a zip bomb of other make": {request{contentType: jsonType, body: bomb, header: map[string]string{"Content-Encoding": "identity, gzip"}}, "not compressed"},
		"a zip bomb in disguise":   {request{contentType: jsonType, body: bomb}, "the body must be valid UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			row.request.query = "email=max@example.com&key=" + f.key
			f.attack(t, func() {
				var callers sync.WaitGroup
				for range 16 {
					callers.Go(func() {
						got, err := f.exchange(t, row.request)
						if isBrokenOff(err) {
							return
						}
						g.Expect(err).NotTo(HaveOccurred())
						if got.status != http.StatusServiceUnavailable { // there is room for a few at a time
							g.Expect(got.status).To(BeElementOf(http.StatusBadRequest, http.StatusUnsupportedMediaType))
							g.Expect(got.body).To(ContainSubstring(row.message))
						}
					})
				}
				callers.Wait()
			})
		})
	}
}

// numbered repeats a format with a number in it up to a size.
func numbered(format string, size int) string {
	var text strings.Builder
	for i := 0; text.Len() < size; i++ {
		fmt.Fprintf(&text, format, i)
	}
	return text.String()
}

// bomb returns 16 MiB of spaces, compressed to some 16 KiB.
func bomb(t *testing.T) string {
	t.Helper()
	var compressed bytes.Buffer
	writer := gzip.NewWriter(&compressed)
	spaces := bytes.Repeat([]byte(" "), 1<<20)
	for range 16 {
		_, err := writer.Write(spaces)
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
	}
	NewWithT(t).Expect(writer.Close()).To(Succeed())
	return compressed.String()
}
