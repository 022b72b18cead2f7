package ingress_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"

	"postbus.dev/postbus/ingress"
	"postbus.dev/postbus/internal/testkit"
)

// What a contact may allocate that is accepted over a connection that is open, from
// the first byte of its call to the last of its answer: net/http's part and the
// store's commit are in it, which a caller who is alone does not share. It is what was
// measured, which varies by 0.1 %, and 1 % more. Lower a number where you save
// something, and in docs/benchmarks.md.
var allocationsOfACall = map[string]testkit.Allocated{
	formType: {Objects: 401, Bytes: 32_400},
	jsonType: {Objects: 468, Bytes: 34_750},
}

// numberPlace is where the number of a contact stands in a template of a call.
const numberPlace = "00000000"

func TestAllocationsOfAnAcceptedContact(t *testing.T) {
	testkit.SkipUnderRaceDetector(t)
	const rounds, calls = 5, 200
	f := start(t)
	address := f.startQuiet(t)
	for contentType, body := range map[string]string{
		formType: "email=ada." + numberPlace + "@example.com&permission=2&FIRSTNAME=Ada&LASTNAME=Lovelace",
		jsonType: `{"email":"eve.` + numberPlace + `@example.com","permission":2,"FIRSTNAME":"Eve","LASTNAME":"Lovelace"}`,
	} {
		t.Run(contentType, func(t *testing.T) {
			g := NewWithT(t)
			c := dial(t, address, fmt.Sprintf("POST %s?key=%s HTTP/1.1\r\nHost: ingress\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
				contactPath, f.key, contentType, len(body), body))
			post := func() int {
				for range calls {
					c.post(t)
				}
				return calls
			}
			post() // so that what is made once is there
			testkit.LeastAllocated(rounds, post).ExpectWithin(t, allocationsOfACall[contentType])
			counts, err := f.store.Count(t.Context(), f.list())
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(counts.Contacts).To(BeNumerically(">=", (rounds+1)*calls), "each was new")
		})
	}
}

// startQuiet runs ingress once more beside the first, at the verbosity that it is
// shipped with, and returns its address.
func (f *fixture) startQuiet(t *testing.T) string {
	t.Helper()
	g := NewWithT(t)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	g.Expect(err).NotTo(HaveOccurred())
	address := listener.Addr().String()
	ctx, cancel := context.WithCancel(logr.NewContext(t.Context(), funcr.New(func(string, string) {}, funcr.Options{})))
	stopped := make(chan error, 1)
	go func() {
		stopped <- ingress.Run(ctx, ingress.Options{
			Listener: listener, AllowPlainHTTP: true, Objects: f.objects, Contacts: f.store, Reader: f.store, Bindings: f.store, KeyUses: f.store,
			Texts: f.store, Callbacks: f.store, LinkKeys: f.keys, Registerer: prometheus.NewRegistry(), KeyUseInterval: time.Hour,
		})
	}()
	t.Cleanup(func() {
		cancel()
		NewWithT(t).Expect(<-stopped).To(Succeed())
	})
	return address
}

// rawCaller makes calls that differ in a number, on one connection. It allocates
// nothing.
type rawCaller struct {
	conn   net.Conn
	call   []byte
	number []byte // a part of call
	answer [2 << 10]byte
}

func dial(t *testing.T, address, call string) *rawCaller {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = conn.Close() })
	c := &rawCaller{conn: conn, call: []byte(call)}
	at := strings.Index(call, numberPlace)
	c.number = c.call[at : at+len(numberPlace)]
	return c
}

var (
	accepted = []byte("HTTP/1.1 200 OK\r\n")
	// lastOfAnswer ends the JSON of an answer.
	lastOfAnswer = []byte("}}\n")
)

// post makes a call with the next number.
func (c *rawCaller) post(t *testing.T) {
	for at := len(c.number) - 1; ; at-- {
		if c.number[at]++; c.number[at] <= '9' {
			break
		}
		c.number[at] = '0'
	}
	if _, err := c.conn.Write(c.call); err != nil {
		t.Fatal(err)
	}
	for read := 0; !bytes.HasSuffix(c.answer[:read], lastOfAnswer); {
		n, err := c.conn.Read(c.answer[read:])
		if read += n; err != nil || !bytes.HasPrefix(c.answer[:read], accepted) {
			t.Fatalf("%v: %s", err, c.answer[:read])
		}
	}
}
