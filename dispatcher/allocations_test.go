package dispatcher

import (
	"bytes"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/testkit"
)

// allocationsOfADelivery is what an event may allocate that is read from the log and
// delivered at once, in the format Standard, over a connection that is open:
// net/http's part is in it, and the event's part of pages and checkpoints. It is what
// was measured, which varies by 0.3 %, and 2 % more. Lower it where you save
// something, and in docs/benchmarks.md.
var allocationsOfADelivery = testkit.Allocated{Objects: 78, Bytes: 6_800}

func TestAllocationsOfADelivery(t *testing.T) {
	testkit.SkipUnderRaceDetector(t)
	const rounds, events = 5, 1000
	g := NewWithT(t)
	r := newRig(t)
	r.verbosity = 0 // as it is shipped
	receiver := newQuietReceiver(t)
	var subscriptions []*v1alpha1.WebhookSubscription
	for n := range rounds { // one for each, as what was delivered is not delivered again
		subscriptions = append(subscriptions, r.subscribe(fmt.Sprint("crm-", n), func(s *v1alpha1.WebhookSubscription) {
			s.Spec.Callback.URL, s.Spec.Suspend, s.Spec.RateLimit.MaxInFlight = receiver.url, ptr.To(true), 1
		}))
	}
	r.run()
	// What was posted before would be read from the store, once more for each.
	g.Eventually(r.log.String, patience).Should(ContainSubstring("dispatcher is running"))
	r.postMany("ada", events)
	for _, subscription := range subscriptions {
		g.Eventually(r.delivery(subscription), patience).Should(HaveField("Behind", int64(events)))
		subscription.Spec.Suspend = ptr.To(false) // which begins when it is accepted
		g.Expect(plane.Client.Update(t.Context(), subscription)).To(Succeed())
	}
	next := 0
	testkit.LeastAllocated(rounds, func() int {
		receiver.expect(events)
		r.check(subscriptions[next], metav1.ConditionTrue, v1alpha1.ReasonValid)
		next++
		<-receiver.done
		return events
	}).ExpectWithin(t, allocationsOfADelivery)
}

// quietReceiver answers 200 to every call, as net/http would, and allocates nothing
// for it.
type quietReceiver struct {
	url string
	// missing is how many calls are expected yet; done tells when none is.
	missing atomic.Int64
	done    chan struct{}
}

func newQuietReceiver(t *testing.T) *quietReceiver {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	r := &quietReceiver{url: "http://" + listener.Addr().String(), done: make(chan struct{}, 1)}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // the test has ended
			}
			serving.Go(func() { r.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait() // for the dispatcher, which ends before
	})
	return r
}

func (r *quietReceiver) expect(calls int64) { r.missing.Store(calls) }

var (
	quietAnswer   = []byte("HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 10:00:00 GMT\r\nContent-Length: 0\r\n\r\n")
	endOfHeaders  = []byte("\r\n\r\n")
	contentLength = []byte("\r\nContent-Length: ")
)

func (r *quietReceiver) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	buffer := make([]byte, 16<<10)
	for read := 0; ; {
		n, err := conn.Read(buffer[read:])
		if err != nil {
			return
		}
		if read += n; !isWhole(buffer[:read]) {
			continue
		}
		read = 0
		if _, err := conn.Write(quietAnswer); err != nil {
			return
		}
		if r.missing.Add(-1) == 0 {
			r.done <- struct{}{}
		}
	}
}

// isWhole tells whether a call has come in with all of its body.
func isWhole(call []byte) bool {
	head := bytes.Index(call, endOfHeaders)
	if head < 0 {
		return false
	}
	length := 0
	if at := bytes.Index(call[:head], contentLength); at >= 0 {
		for _, digit := range call[at+len(contentLength) : head] {
			if digit < '0' || digit > '9' {
				break
			}
			length = 10*length + int(digit-'0')
		}
	}
	return len(call) >= head+len(endOfHeaders)+length
}
