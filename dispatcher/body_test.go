package dispatcher

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/jwe"
	"postbus.dev/postbus/internal/rc4"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/testkit"
)

// templateBomb is a short template that gives 667 KB of JSON of any contact.
var templateBomb = `cel.bind(a, [event.contact.email` + strings.Repeat(", event.id", 59) + `], cel.bind(b, [a` + strings.Repeat(", a", 19) +
	`], cel.bind(c, [b` + strings.Repeat(", b", 12) + `], [c])))`

// Subscriptions whose templates give large bodies, and whose callbacks hang, hold no more
// bytes than their budgets. A healthy neighbor is delivered meanwhile, and nothing is lost:
// once the callbacks answer they have every event once.
func TestBodiesAreBoundedInBytes(t *testing.T) {
	g := NewWithT(t)
	const (
		events = 60
		each   = 8 << 20
		most   = 20 << 20
	)
	var (
		released = make(chan struct{})
		release  = sync.OnceFunc(func() { close(released) })
	)
	defer release()
	hanging := testkit.NewReceiver(t)
	hanging.AnswerWith(func(_ http.ResponseWriter, call *http.Request) {
		select {
		case <-released:
		case <-call.Context().Done():
		}
	})
	r := newRig(t)
	r.verbosity = 0
	r.options.MaxBodyBytes, r.options.MaxSubscriptionBodyBytes = most, each
	bombs := []string{"bomb-1", "bomb-2", "bomb-3"}
	for _, name := range bombs {
		r.subscribe(name, func(s *v1alpha1.WebhookSubscription) {
			s.Spec.Callback.URL, s.Spec.Callback.Timeout = hanging.URL()+"/"+name, &metav1.Duration{Duration: 30 * time.Second}
			s.Spec.Payload.Format, s.Spec.Payload.Template = v1alpha1.FormatTemplate, templateBomb
			s.Spec.RateLimit.MaxInFlight = 1000
		})
	}
	r.subscribe("healthy", nil)
	ids := r.postMany("ada", events)
	r.run()
	g.Eventually(func() []string { return r.ids("/healthy") }, patience).Should(ConsistOf(ids))
	// Each bomb has as many in flight as it may: bodies of 1.3 MB, for HTTP/2 copies them.
	g.Eventually(func() float64 { return r.metric("postbus_dispatcher_body_bytes") }, patience).Should(BeNumerically(">", most/2))
	g.Consistently(func(g Gomega) {
		g.Expect(r.metric("postbus_dispatcher_body_bytes")).To(BeNumerically("<=", most))
		for _, name := range bombs {
			g.Expect(r.metric("postbus_dispatcher_subscription_body_bytes", name)).To(BeNumerically("<=", each))
		}
		g.Expect(len(hanging.Calls())).To(BeNumerically("<=", most/(1<<20)))
	}, time.Second).Should(Succeed())
	g.Expect(r.metric("postbus_dispatcher_body_limit_bytes")).To(Equal(float64(most)))
	g.Expect(r.metric("postbus_dispatcher_each_body_limit_bytes")).To(Equal(float64(each)))
	release()
	for _, name := range bombs {
		g.Eventually(func() map[string]int {
			called := map[string]int{}
			for _, call := range hanging.Calls() {
				if call.Path == "/"+name {
					called[call.Header.Get(signature.HeaderID)]++
				}
			}
			return called
		}, 2*patience).Should(And(HaveLen(events), HaveEach(1)), name)
	}
	g.Eventually(func() float64 { return r.metric("postbus_dispatcher_body_bytes") }, patience).Should(BeZero())
}

// metric returns the sum of the series of a metric, or of those of one subscription.
func (r *rig) metric(name string, subscription ...string) (sum float64) {
	r.t.Helper()
	families, err := r.metrics.Gather()
	NewWithT(r.t).Expect(err).NotTo(HaveOccurred())
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, series := range family.GetMetric() {
			of := ""
			for _, label := range series.GetLabel() {
				if label.GetName() == "subscription" {
					of = label.GetValue()
				}
			}
			if len(subscription) == 0 || of == subscription[0] {
				sum += series.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// The largest attempt that there can be fits into the least budget of a subscription, so none
// waits for ever: a body can't be larger than maxPayload, nor can encryption make more than
// maxSealed of it.
func TestLargestBodyFitsEveryBudget(t *testing.T) {
	g := NewWithT(t)
	g.Expect(int64(maxHeld)).To(BeNumerically("<=", MinSubscriptionBodyBytes))
	b := &budget{own: ownBodyBytes, each: MinSubscriptionBodyBytes, most: 2 * MinSubscriptionBodyBytes}
	g.Expect((&share{of: b}).take(maxHeld)).To(BeTrue())

	largest := payload{body: []byte(strings.Repeat("x", maxPayload)), contentType: contentTypeJSON}
	shared, err := jwe.ParseKey([]byte(strings.Repeat("k", jwe.SharedKeyBytes)))
	g.Expect(err).NotTo(HaveOccurred())
	sealed, err := sealJWE(shared, largest)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(len(sealed.body)).To(BeNumerically("<=", maxSealed))
	key, err := rc4.ParseKey([]byte("key"))
	g.Expect(err).NotTo(HaveOccurred())
	inBody, inQuery := sealRC4(key, largest), sealRC4(key, payload{query: string(largest.body)})
	g.Expect(len(inBody.body)).To(BeNumerically("<=", maxSealed))
	for _, made := range []payload{largest, sealed, inBody, inQuery} {
		made.body = fitted(made.body)
		g.Expect(heldBytes(&made)).To(BeNumerically("<=", maxHeld))
	}

	fat := contact.Event{Type: contact.EventSubscribe, Contact: contact.Contact{CustomFields: map[string]any{}}}
	parameters := []v1alpha1.PayloadParameter{}
	for range 50 {
		parameters = append(parameters, v1alpha1.PayloadParameter{Name: "p", Value: strings.Repeat("[Field:a]", 113)})
	}
	fat.Contact.CustomFields["a"] = strings.Repeat("😀", 255)
	_, err = mailUp{parameters: parameters}.render(&fat, &listNumbers{})
	g.Expect(err).To(MatchError(errTooLong))
}

// What attempts are expected to hold follows what the last ones held.
func TestReservations(t *testing.T) {
	g := NewWithT(t)
	r := &runner{clock: clocktesting.NewFakeClock(start), ledger: perContact(), bodies: share{of: &budget{own: ownBodyBytes, each: 1 << 20, most: 1 << 21}}}
	r.bodySize.Store(firstBody)
	first, ok := r.reserve()
	g.Expect(ok).To(BeTrue())
	second, ok := r.reserve()
	g.Expect(ok).To(BeTrue())
	g.Expect(first.allows()).To(BeTrue())
	g.Expect(first.hold(600 << 10)).To(BeTrue())
	g.Expect(second.allows()).To(BeFalse(), "bodies are known to be larger, and there is no room for another one")
	r.release(&second, outcome{verdict: deferred})
	g.Expect(r.bodies.used).To(Equal(int64(600 << 10)))
	r.ledger.inFlight = 1
	_, ok = r.reserve()
	g.Expect(ok).To(BeFalse())
	g.Expect(r.hasBodyRoom()).To(BeFalse())
	r.ledger.inFlight = 0
	r.release(&first, good)
	g.Expect(r.bodies.used).To(BeZero())
	g.Expect(r.bodySize.Load()).To(Equal(int64(600 << 10)))

	// Nothing is left of the budget. One attempt at a time tries whether its body is
	// smaller, and not again at once.
	r.bodies.of.used.Store(r.bodies.of.most)
	_, ok = r.reserve()
	g.Expect(ok).To(BeFalse(), "one was deferred just now")
	r.clock = clocktesting.NewFakeClock(start.Add(sharedCallRetry))
	g.Expect(r.hasBodyRoom()).To(BeTrue())
	trial, ok := r.reserve()
	g.Expect(ok).To(BeTrue())
	g.Expect(trial.allows()).To(BeTrue())
	g.Expect(trial.hold(600 << 10)).To(BeFalse())
	r.release(&trial, outcome{verdict: deferred})
	g.Expect(r.hasBodyRoom()).To(BeFalse())
	r.clock = clocktesting.NewFakeClock(start.Add(2 * sharedCallRetry))
	trial, ok = r.reserve()
	g.Expect(ok).To(BeTrue())
	g.Expect(trial.hold(8<<10)).To(BeTrue(), "this one fits into what each may always have")
	for range 200 {
		r.release(&trial, good)
	}
	g.Expect(r.bodySize.Load()).To(Equal(int64(8<<10)), "what was large once is forgotten")
}
