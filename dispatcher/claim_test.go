package dispatcher

import (
	"context"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/testkit"
)

// claims notes when rows are claimed.
type claims struct {
	store.Store
	mu sync.Mutex
	at []time.Time
}

func (c *claims) ClaimDelivery(ctx context.Context, key store.SubscriptionKey, dispatcher string) (store.Delivery, error) {
	c.mu.Lock()
	c.at = append(c.at, time.Now())
	c.mu.Unlock()
	return c.Store.ClaimDelivery(ctx, key, dispatcher)
}

func (c *claims) times() []time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at[:len(c.at):len(c.at)]
}

// A row that is not open is asked for less and less often: there are thousands of them
// while the controller opens those of a whole installation.
func TestRowThatIsNotOpen(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	counted := &claims{Store: r.store}
	r.options.Store = counted
	object := testkit.Subscription(r.namespace, "crm", r.receiver.URL()+"/crm")
	g.Expect(plane.Client.Create(t.Context(), object)).To(Succeed())
	testkit.Bind(t, r.store, object)
	r.run()
	const times = 6
	g.Eventually(counted.times).WithTimeout(patience).Should(HaveLen(times))
	for n, at := range counted.times()[1:times] {
		g.Expect(at.Sub(counted.times()[n])).To(BeNumerically(">=", 100*time.Millisecond<<n))
	}
	g.Expect(r.log.String()).NotTo(ContainSubstring("can't be followed"))
}
