package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/apikey"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/sqlite"
	"postbus.dev/postbus/internal/testkit"
)

// TestKilledProcessLosesNothing posts contacts at full speed while the process
// is killed with -9 three times and started again.
func TestKilledProcessLosesNothing(t *testing.T) {
	g := NewWithT(t)
	const contacts, callers, kills = 20000, 32, 3
	i := newInstallation(t)
	i.program = asShipped(t)
	receiver := testkit.NewReceiver(t)
	objects := declare(t, receiver.URL())
	process := i.start()
	objects.waitUntilReady(t, i)

	var accepted sync.Map // address to true
	var done atomic.Int64
	var all sync.WaitGroup
	for caller := range callers {
		all.Go(func() {
			for n := caller; n < contacts; n += callers {
				address := fmt.Sprintf("ada.%d@example.com", n)
				for !post(t, i.ingress, objects.key, address) { // as a form would, until it is accepted
					i.waitUntilReady()
				}
				accepted.Store(address, true)
				done.Add(1)
			}
		})
	}
	for kill := range int64(kills) {
		g.Eventually(done.Load, patience).Should(BeNumerically(">", (kill+1)*contacts/(kills+1)))
		process.signal(syscall.SIGKILL)
		process = i.start()
	}
	all.Wait()

	calls := &callBook{}
	g.Eventually(func() int { return calls.read(t, receiver) }, 2*patience, time.Second).Should(BeNumerically(">=", contacts))
	process.signal(syscall.SIGTERM)
	g.Expect(process.err).NotTo(HaveOccurred())
	calls.read(t, receiver)

	stored := storedAddresses(t, i.store)
	var notStored, notDelivered []any
	accepted.Range(func(address, _ any) bool {
		if !stored[address.(string)] {
			notStored = append(notStored, address)
		}
		if calls.ids[address.(string)] == "" {
			notDelivered = append(notDelivered, address)
		}
		return true
	})
	g.Expect(notStored).To(BeEmpty())
	g.Expect(notDelivered).To(BeEmpty())
	g.Expect(calls.conflicts).To(BeEmpty(), "a duplicate repeats its webhook-id")
	t.Logf("%d contacts, %d calls, %d of them repeated", contacts, calls.count, calls.count-len(calls.ids))
}

// declared is what a test applied.
type declared struct {
	key          string
	apiKey       *v1alpha1.ApiKey
	subscription *v1alpha1.WebhookSubscription
}

// declare applies a list, a key and a subscription to every Create event.
func declare(t *testing.T, callback string) declared {
	t.Helper()
	g := NewWithT(t)
	namespace := plane.Namespace(t)
	d := declared{
		key:          apikey.Generate(),
		apiKey:       testkit.ApiKey(namespace, "website-form", "newsletter"),
		subscription: testkit.Subscription(namespace, "crm", callback),
	}
	d.subscription.Spec.Events = []v1alpha1.EventType{contact.EventCreate}
	for _, object := range []client.Object{
		&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "website-form"},
			StringData: map[string]string{apikey.SecretKey: d.key},
		},
		testkit.List(namespace, "newsletter"), d.apiKey, d.subscription,
	} {
		g.Expect(plane.Client.Create(t.Context(), object)).To(Succeed())
	}
	dropFinalizers(t, d.apiKey, d.subscription)
	return d
}

// dropFinalizers drops them after the test, when no controller runs any more
// that could.
func dropFinalizers(t *testing.T, objects ...client.Object) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	t.Cleanup(func() {
		for _, object := range objects {
			patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))
			NewWithT(t).Expect(plane.Client.Patch(ctx, object, patch)).To(Succeed())
		}
	})
}

// waitUntilReady waits for the controller, and until ingress has seen the key and the list.
func (d declared) waitUntilReady(t *testing.T, i *installation) {
	t.Helper()
	g := NewWithT(t)
	conditions := func() []metav1.Condition {
		g.Expect(plane.Client.Get(t.Context(), client.ObjectKeyFromObject(d.apiKey), d.apiKey)).To(Succeed())
		g.Expect(plane.Client.Get(t.Context(), client.ObjectKeyFromObject(d.subscription), d.subscription)).To(Succeed())
		return append(d.apiKey.GetConditions(), d.subscription.GetConditions()...)
	}
	g.Eventually(conditions, patience).Should(Satisfy(func(all []metav1.Condition) bool {
		ready := 0
		for _, condition := range all {
			if condition.Type == v1alpha1.ConditionReady && condition.Status == metav1.ConditionTrue {
				ready++
			}
		}
		return ready == 2
	}))
	g.Eventually(func() string { return postForm(t, i.ingress, url.Values{"key": {d.key}}) }, patience).
		Should(And(ContainSubstring(`"error"`), Not(Or(ContainSubstring("KeyUnknown"), ContainSubstring("ListNotReady")))))
}

// forms keeps a connection for each caller, who does not wait for ever for a process
// that was stopped.
var forms = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}, Timeout: 20 * time.Second}

// post posts a contact and tells whether it was accepted.
func post(t *testing.T, address, key, email string) bool {
	form := url.Values{"key": {key}, "email": {email}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		"http://"+address+"/webhooks/contacts/email", strings.NewReader(form.Encode()))
	if err != nil {
		return false
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := forms.Do(request)
	if err != nil {
		return false
	}
	defer func() { _ = response.Body.Close() }()
	_, err = io.Copy(io.Discard, response.Body)
	return err == nil && response.StatusCode == http.StatusOK
}

// callBook is what a receiver was told.
type callBook struct {
	count int
	// ids has the webhook-id under which each address was told first.
	ids map[string]string
	// conflicts are addresses that were told again under another id.
	conflicts []string
}

// read reads the calls that came since the last time, and returns how many
// addresses have been told.
func (b *callBook) read(t *testing.T, receiver *testkit.Receiver) int {
	t.Helper()
	if b.ids == nil {
		b.ids = map[string]string{}
	}
	calls := receiver.Calls()
	for _, call := range calls[b.count:] {
		var body struct {
			Data struct{ Contact struct{ Email string } }
		}
		NewWithT(t).Expect(json.Unmarshal(call.Body, &body)).To(Succeed())
		address, id := body.Data.Contact.Email, call.Header.Get(signature.HeaderID)
		if first, told := b.ids[address]; told && first != id {
			b.conflicts = append(b.conflicts, address)
		} else {
			b.ids[address] = id
		}
	}
	b.count = len(calls)
	return len(b.ids)
}

// storedAddresses reads the Create events of a store that nobody has open.
func storedAddresses(t *testing.T, path string) map[string]bool {
	t.Helper()
	g := NewWithT(t)
	opened, err := sqlite.Open(t.Context(), path)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(opened.Close()).To(Succeed()) }()
	addresses := map[string]bool{}
	query := store.Query{Limit: 1000}
	for {
		page, err := opened.Read(t.Context(), query)
		g.Expect(err).NotTo(HaveOccurred())
		for _, event := range page {
			if event.Type == contact.EventCreate {
				addresses[event.Contact.Email] = true
			}
			query.After = event.Position
		}
		if len(page) < query.Limit {
			return addresses
		}
	}
}
