package dispatcher

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/testkit"
)

// Callbacks that hang take the calls that are shared, and no others; once they answer
// they have everything.
func TestCallsAreBoundedOverAll(t *testing.T) {
	g := NewWithT(t)
	const shared, events = 8, 200
	var (
		held     atomic.Int64
		released = make(chan struct{})
		release  = sync.OnceFunc(func() { close(released) })
	)
	defer release()
	hanging := testkit.NewReceiver(t)
	hanging.AnswerWith(func(_ http.ResponseWriter, call *http.Request) {
		held.Add(1)
		defer held.Add(-1)
		select {
		case <-released:
		case <-call.Context().Done():
		}
	})
	r := newRig(t)
	r.options.MaxCalls = shared
	for _, name := range []string{"hanging", "too"} {
		r.subscribe(name, func(s *v1alpha1.WebhookSubscription) {
			s.Spec.Callback.URL, s.Spec.Callback.Timeout = hanging.URL()+"/"+name, &metav1.Duration{Duration: 30 * time.Second}
		})
	}
	r.subscribe("crm", nil)
	ids := r.postMany("ada", events) // before the first call hangs, which it does for 30 s at most
	r.run()
	g.Eventually(func() []string { return r.ids("/crm") }, patience).Should(ConsistOf(ids))
	const most = shared + 2*ownCalls
	g.Eventually(held.Load, patience/2).Should(BeEquivalentTo(most), "before one of those that hang ends")
	g.Consistently(held.Load, time.Second).Should(BeEquivalentTo(most))
	release()
	called := func() map[string]bool {
		all := map[string]bool{}
		for _, call := range hanging.Calls() {
			all[call.Path+" "+call.Header.Get(signature.HeaderID)] = true
		}
		return all
	}
	g.Eventually(called, patience).Should(HaveLen(2 * events))
}

func TestSharedCalls(t *testing.T) {
	g := NewWithT(t)
	c := &sharedCalls{most: 1, told: prometheus.NewGauge(prometheus.GaugeOpts{})}
	for underWay := range ownCalls {
		g.Expect(c.take(underWay)).To(BeTrue())
	}
	g.Expect(c.take(ownCalls)).To(BeTrue(), "the shared one")
	g.Expect(c.left(ownCalls)).To(BeFalse(), "for another subscription")
	g.Expect(c.take(ownCalls)).To(BeFalse())
	g.Expect(c.left(ownCalls - 1)).To(BeTrue())
	c.give(ownCalls)
	g.Expect(c.left(ownCalls)).To(BeFalse(), "what was given back was its own")
	c.give(ownCalls + 1)
	g.Expect(c.take(ownCalls)).To(BeTrue())
}
