package controllers

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/testkit"
)

// writes are the requests by which a controller has changed something in a namespace;
// it sees those of other tests, too. What the lease needs is left out, as it goes by
// the clock, and what the API server refuses, because the controller's cache may be
// behind.
type writes struct {
	namespace string

	mu   sync.Mutex
	made []string
}

func (w *writes) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTrip(func(request *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(request)
		if err != nil || request.Method == http.MethodGet || response.StatusCode >= http.StatusMultipleChoices {
			return response, err
		}
		if resource := w.resourceOf(request.URL.Path); resource != "" && resource != "leases" {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.made = append(w.made, request.Method+" "+resource)
		}
		return response, nil
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (r roundTrip) RoundTrip(request *http.Request) (*http.Response, error) { return r(request) }

// resourceOf returns the resource in the path of a request, with its subresource, or
// nothing for another namespace:
// /apis/GROUP/VERSION/namespaces/NAMESPACE/RESOURCE/NAME/SUBRESOURCE.
func (w *writes) resourceOf(path string) string {
	_, named, _ := strings.Cut(path, "/namespaces/"+w.namespace+"/")
	resource, named, _ := strings.Cut(named, "/")
	if _, subresource, found := strings.Cut(named, "/"); found {
		return resource + "/" + subresource
	}
	return resource
}

func (w *writes) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.made)
}

func (w *writes) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.made = nil
}

// watchedStore counts how often the controller asks which rows have changed, and
// its passes over a subscription: each loads the attempts once.
type watchedStore struct {
	store.Store
	key           store.SubscriptionKey
	looks, passes atomic.Int64
}

// DeliveriesSince implements Store.
func (w *watchedStore) DeliveriesSince(ctx context.Context, revision int64) ([]store.Delivery, error) {
	w.looks.Add(1)
	return w.Store.DeliveriesSince(ctx, revision)
}

// LoadAttempts implements Store.
func (w *watchedStore) LoadAttempts(ctx context.Context, key store.SubscriptionKey, limit int) ([]store.Attempt, error) {
	if key == w.key {
		w.passes.Add(1)
	}
	return w.Store.LoadAttempts(ctx, key, limit)
}

// gauged is a controller whose writes are counted, by a clock that is set by hand.
type gauged struct {
	*WithT
	t            *testing.T
	store        *watchedStore
	writes       writes
	clock        atomic.Int64
	subscription *v1alpha1.WebhookSubscription
}

// counters is how long changes of counters are collected.
const counters = 5 * time.Second

func newGauged(t *testing.T) *gauged {
	t.Helper()
	namespace := plane.Namespace(t)
	w := &gauged{
		WithT: NewWithT(t), t: t, subscription: testkit.Subscription(namespace, "crm", callbackURL), writes: writes{namespace: namespace},
	}
	w.store = &watchedStore{Store: openStore(t), key: keyOf(w.subscription)}
	w.clock.Store(time.Now().UnixNano())
	startWith(t, w.store, Lease{Namespace: namespace}, func(options *Options) {
		options.Config.Wrap(w.writes.wrap)
		options.Now = func() time.Time { return time.Unix(0, w.clock.Load()) }
		options.Intervals.Counters = counters
	})
	return w
}

// costs has something happen and expects exactly these writes to follow.
func (w *gauged) costs(what string, happen func(), expected ...string) {
	w.t.Helper()
	w.writes.forget()
	happen()
	w.Eventually(w.writes.all, soon).Should(ConsistOf(expected), what)
	w.Consistently(w.writes.all, 500*time.Millisecond).Should(ConsistOf(expected), what)
}

// row changes the subscription's row as the dispatcher does, and returns once the
// controller has seen that.
func (w *gauged) row(change func(*store.Delivery)) {
	w.t.Helper()
	checkpoint(w.t, w.store, keyOf(w.subscription), change)
	w.looked()
}

// looked returns once the controller has seen all that is in the store.
func (w *gauged) looked() {
	w.t.Helper()
	before := w.store.looks.Load() // one look may be under way
	w.Eventually(w.store.looks.Load, soon).Should(BeNumerically(">=", before+2))
}

// wait lets the interval end: the controller knows the subscriptions of all tests, and of
// many each waits for several.
func (w *gauged) wait() { w.clock.Add(int64(100 * counters)) }

// pass has something happen that the controller makes a pass for.
func (w *gauged) pass(happen func()) {
	w.t.Helper()
	before := w.store.passes.Load()
	happen()
	w.Eventually(w.store.passes.Load, soon).Should(BeNumerically(">", before))
}

func (w *gauged) annotate(name, value string) {
	w.t.Helper()
	w.Expect(plane.Client.Get(w.t.Context(), client.ObjectKeyFromObject(w.subscription), w.subscription)).To(Succeed())
	before := w.subscription.DeepCopy()
	metav1.SetMetaDataAnnotation(&w.subscription.ObjectMeta, name, value)
	w.Expect(plane.Client.Patch(w.t.Context(), w.subscription, client.MergeFrom(before))).To(Succeed())
}

// The requests of one subscription.
const (
	patchObject  = "PATCH webhooksubscriptions"
	patchStatus  = "PATCH webhooksubscriptions/status"
	makeSecret   = "POST secrets"
	removeSecret = "DELETE secrets"
	sendEvent    = "POST events"
)

// The API server is written to once for what people must see, once an interval for
// what only counts, and never for nothing.
func TestWritesOfASubscriptionsLife(t *testing.T) {
	w := newGauged(t)
	at := time.Now()
	w.costs("it is made", func() {
		w.Expect(plane.Client.Create(t.Context(), w.subscription)).To(Succeed())
	}, patchObject, makeSecret, patchStatus, sendEvent)
	w.costs("its callback begins to fail", func() {
		w.row(func(row *store.Delivery) {
			row.Open = []store.OpenEvent{{Position: 1, Attempts: 1}}
			row.Health.FailingSince, row.Health.DeactivationDue = at, at.Add(time.Hour)
			row.Health.LastFailure = &store.Failure{Time: at, Reason: v1alpha1.FailureHTTPStatus, HTTPStatus: 500, Attempts: 1}
		})
	}, patchStatus, sendEvent)
	more := func() {
		for range 10 {
			w.row(func(row *store.Delivery) { row.Open[0].Attempts++; row.Health.LastFailure.Attempts++; row.Behind++ })
		}
	}
	w.costs("it goes on to fail, within an interval", more)
	w.costs("the interval has ended", w.wait, patchStatus)
	w.costs("it is deactivated", func() {
		w.row(func(row *store.Delivery) {
			row.Life.Deactivation = &store.Deactivation{At: at, Until: at.Add(time.Hour)}
		})
	}, patchStatus, sendEvent)
	w.costs("somebody asks to reactivate it", func() { w.annotate(v1alpha1.AnnotationReactivate, "1") }, patchStatus)
	w.costs("it is reactivated", func() {
		w.row(func(row *store.Delivery) {
			row.Open, row.Health, row.Life.Deactivation = nil, store.Health{LastSuccess: at}, nil
			row.Life.Answers = map[store.RequestType]store.Answer{
				v1alpha1.RequestReactivate: {Value: "1", Result: v1alpha1.RequestDone, Time: at},
			}
		})
	}, patchStatus, sendEvent)
	w.costs("it is deleted", func() {
		w.Expect(plane.Client.Delete(t.Context(), w.subscription)).To(Succeed())
	}, removeSecret, patchObject)
}

// Who delivers, or is only looked at, costs an interval's write or none.
func TestWritesOfAHealthySubscription(t *testing.T) {
	w := newGauged(t)
	at := time.Now()
	w.Expect(plane.Client.Create(t.Context(), w.subscription)).To(Succeed())
	w.Eventually(conditionOf(t, w.subscription, v1alpha1.ConditionReady), soon).Should(Equal("True Active"))
	w.Eventually(w.writes.all, soon).Should(HaveLen(4))
	w.costs("the first delivery", func() {
		w.row(func(row *store.Delivery) { row.Health.LastSuccess = at })
	}, patchStatus)
	w.costs("deliveries within an interval", func() {
		for n := range 20 {
			w.row(func(row *store.Delivery) {
				row.Cursor++
				row.Behind, row.Health.LastSuccess = int64(n), at.Add(time.Duration(n)*time.Minute)
			})
		}
	})
	w.costs("the interval has ended", w.wait, patchStatus)
	w.costs("rows are written as they were", func() {
		for range 5 {
			w.pass(func() {
				w.row(func(*store.Delivery) {})
				w.wait()
			})
		}
	})
	w.costs("passes for what others write", func() {
		for n := range 5 {
			w.pass(func() { w.annotate("example.com/seen", string(rune('a'+n))) })
		}
	})
	w.costs("intervals go by", func() {
		for range 5 {
			w.wait()
			w.looked()
		}
	})
}
