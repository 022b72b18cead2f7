package controllers

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// changes carries objects to look at again because something changed in the
// store.
type changes chan event.GenericEvent

func (c changes) send(ctx context.Context, object client.Object) error {
	select {
	case c <- event.GenericEvent{Object: object}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// poll runs look at once and then at every interval until the context ends. Of
// failures that follow each other only the first is logged.
func poll(ctx context.Context, interval time.Duration, look func(context.Context) error) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	broken := false
	for {
		err := look(ctx)
		if err != nil && !broken && ctx.Err() == nil {
			log.FromContext(ctx).Error(err, "Watch the store")
		}
		broken = err != nil
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// deliveryWatch sends the subscriptions whose rows in the store changed.
type deliveryWatch struct {
	store    DeliveryChanges
	interval time.Duration
	now      func() time.Time
	pacer    *pacer
	revision int64
	changed  changes
}

// Start runs until the context ends.
func (d *deliveryWatch) Start(ctx context.Context) error {
	poll(ctx, d.interval, d.look)
	return nil
}

func (d *deliveryWatch) look(ctx context.Context) error {
	rows, err := d.store.DeliveriesSince(ctx, d.revision)
	if err != nil {
		return fmt.Errorf("read the deliveries that changed: %w", err)
	}
	now := d.now()
	for _, row := range rows {
		d.pacer.observe(row, now)
		d.revision = max(d.revision, row.Revision)
	}
	for _, key := range d.pacer.due(now) {
		subscription := &v1alpha1.WebhookSubscription{
			ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name},
		}
		if err := d.changed.send(ctx, subscription); err != nil {
			return err
		}
	}
	return nil
}

// sharesOfInterval is how many busy subscriptions share an interval of the pacer. Of
// more of them each waits for as many intervals as all of them need.
const sharesOfInterval = 100

// pacer decides when a change of a row is worth a status patch: at once when
// the headline changed, otherwise at most once in every interval, and all together
// sharesOfInterval times, so that thousands of busy subscriptions don't flood the API
// server.
type pacer struct {
	interval time.Duration
	paces    map[store.SubscriptionKey]pace
}

func newPacer(interval time.Duration) *pacer {
	return &pacer{interval: interval, paces: map[store.SubscriptionKey]pace{}}
}

// pace is what the pacer remembers of one subscription.
type pace struct {
	headline headline
	// changed tells whether something changed that was not sent yet.
	changed bool
	// notBefore is when it may be sent.
	notBefore time.Time
}

// headline is what people must see soon. Everything else counts.
type headline struct {
	failingSince int64
	succeeded    bool
	failure      v1alpha1.FailureReason
	httpStatus   int
	deactivated  bool
	replaying    bool
	// answers changes with each request that is answered.
	answers string
}

func headlineOf(delivery store.Delivery) headline {
	health, life := &delivery.Health, &delivery.Life
	told := headline{
		succeeded: !health.LastSuccess.IsZero(), deactivated: life.Deactivation != nil, replaying: life.Replay.Running(),
		answers: answersOf(life.Answers),
	}
	if !health.FailingSince.IsZero() {
		told.failingSince = health.FailingSince.Unix()
	}
	if health.LastFailure != nil {
		told.failure = health.LastFailure.Reason
		told.httpStatus = health.LastFailure.HTTPStatus
	}
	return told
}

// answersOf names the requests that were answered.
func answersOf(answers map[store.RequestType]store.Answer) (all string) {
	for _, kind := range slices.Sorted(maps.Keys(answers)) {
		all += fmt.Sprintf("%s=%q ", kind, answers[kind].Value)
	}
	return all
}

// observe takes note of a row that changed.
func (p *pacer) observe(row store.Delivery, now time.Time) {
	fresh := headlineOf(row)
	seen, known := p.paces[row.Key]
	if !known || seen.headline != fresh {
		seen.notBefore = now
	}
	seen.headline = fresh
	seen.changed = true
	p.paces[row.Key] = seen
}

// due returns the subscriptions to look at now, and forgets those that have
// been quiet for an interval: their next change is due at once anyway.
func (p *pacer) due(now time.Time) []store.SubscriptionKey {
	var keys []store.SubscriptionKey
	maps.DeleteFunc(p.paces, func(key store.SubscriptionKey, seen pace) bool {
		return !seen.changed && !seen.notBefore.After(now)
	})
	intervals := (len(p.paces) + sharesOfInterval - 1) / sharesOfInterval
	for key, seen := range p.paces {
		if !seen.changed || seen.notBefore.After(now) {
			continue
		}
		keys = append(keys, key)
		seen.changed = false
		seen.notBefore = now.Add(p.interval * time.Duration(intervals))
		p.paces[key] = seen
	}
	return keys
}

// contactWatch sends the lists whose counts of contacts have changed. The log does not
// tell that: an import raises no events.
type contactWatch struct {
	store    ContactCounts
	interval time.Duration
	// counts are those that were seen last.
	counts  map[contact.ListKey]contact.Counts
	changed changes
}

// Start runs until the context ends.
func (c *contactWatch) Start(ctx context.Context) error {
	poll(ctx, c.interval, c.look)
	return nil
}

func (c *contactWatch) look(ctx context.Context) error {
	counts, err := c.store.CountAll(ctx)
	if err != nil {
		return err
	}
	for key, fresh := range counts {
		if seen, known := c.counts[key]; known && seen == fresh {
			continue
		}
		list := &v1alpha1.ContactList{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
		if err := c.changed.send(ctx, list); err != nil {
			return err
		}
	}
	c.counts = counts
	return nil
}
