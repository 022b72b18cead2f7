package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
)

const (
	// apiCallers is how many requests to the API server are under way at once.
	apiCallers = 32
	// objectPatience is how much longer anything may take for each object.
	objectPatience = 50 * time.Millisecond
)

// each does something for each of n objects, some of them at once.
func each(ctx context.Context, n int, do func(ctx context.Context, n int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(apiCallers)
	for i := range n {
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
}

func subscriptionName(n int) string { return "hook-" + strconv.Itoa(n) }

// calling is the spec of each of so many subscriptions, which have the callback called
// when a contact is new.
func (i *installation) calling(subscriptions int) v1alpha1.WebhookSubscriptionSpec {
	return v1alpha1.WebhookSubscriptionSpec{
		App: "bench", Events: []v1alpha1.EventType{contact.EventCreate}, Callback: v1alpha1.Callback{URL: i.callback.url},
		RateLimit: v1alpha1.RateLimit{MaxInFlight: int32(inFlightOf(subscriptions))},
	}
}

// subscribeAlike makes subscriptions that match every new contact.
func (i *installation) subscribeAlike(ctx context.Context, subscriptions int) error {
	return i.subscribe(ctx, subscriptions, func(int) v1alpha1.WebhookSubscriptionSpec { return i.calling(subscriptions) })
}

const (
	// inFlight is how many calls a subscription may have under way: the default of
	// rateLimit.maxInFlight.
	inFlight = 64
	// mostInFlight is how many calls all subscriptions together may have: each is a
	// connection, which both ends have a file for.
	mostInFlight = 8000
)

// inFlightOf is how many calls each of so many subscriptions may have under way.
func inFlightOf(subscriptions int) int { return max(1, min(inFlight, mostInFlight/subscriptions)) }

// subscribe makes subscriptions, and returns once they are accepted.
func (i *installation) subscribe(ctx context.Context, n int, spec func(n int) v1alpha1.WebhookSubscriptionSpec) error {
	i.subscriptions = n
	err := each(ctx, n, func(ctx context.Context, n int) error {
		subscription := &v1alpha1.WebhookSubscription{ObjectMeta: i.named(subscriptionName(n)), Spec: spec(n)}
		if err := i.plane.client.Create(ctx, subscription); err != nil {
			return fmt.Errorf("create a subscription: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return i.awaitAll(ctx, func(s *v1alpha1.WebhookSubscription) bool {
		return meta.IsStatusConditionTrue(s.Status.Conditions, v1alpha1.ConditionAccepted)
	})
}

// suspend suspends or resumes all subscriptions. It returns once their status says
// that they are suspended; those that are resumed begin at once.
func (i *installation) suspend(ctx context.Context, suspended bool) error {
	err := i.patchAll(ctx, fmt.Appendf(nil, `{"spec":{"suspend":%t}}`, suspended))
	if err != nil || !suspended {
		return err
	}
	return i.awaitAll(ctx, func(s *v1alpha1.WebhookSubscription) bool { return s.Status.State == v1alpha1.StateSuspended })
}

// patchAll merges something into all subscriptions.
func (i *installation) patchAll(ctx context.Context, patch []byte) error {
	return each(ctx, i.subscriptions, func(ctx context.Context, n int) error {
		subscription := &v1alpha1.WebhookSubscription{ObjectMeta: i.named(subscriptionName(n))}
		if err := i.plane.client.Patch(ctx, subscription, client.RawPatch("application/merge-patch+json", patch)); err != nil {
			return fmt.Errorf("patch a subscription: %w", err)
		}
		return nil
	})
}

// awaitAll returns once all subscriptions are as they should be.
func (i *installation) awaitAll(ctx context.Context, fits func(*v1alpha1.WebhookSubscription) bool) error {
	ctx, cancel := context.WithTimeout(ctx, i.patience())
	defer cancel()
	for {
		fit, err := i.countFitting(ctx, fits)
		if err != nil || fit == i.subscriptions {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%d of %d subscriptions become what they should be: %w", fit, i.subscriptions, ctx.Err())
		}
	}
}

// countFitting returns how many subscriptions are as they should be once all are, or once
// the API server tells no more, as it does to whom it tells too much at a time. It tells
// of each that is there, and then of each that changes.
func (i *installation) countFitting(ctx context.Context, fits func(*v1alpha1.WebhookSubscription) bool) (int, error) {
	changes, err := i.plane.client.Watch(ctx, &v1alpha1.WebhookSubscriptionList{}, client.InNamespace(i.namespace))
	if err != nil {
		return 0, fmt.Errorf("watch subscriptions: %w", err)
	}
	defer changes.Stop()
	fit := map[string]bool{}
	for change := range changes.ResultChan() {
		subscription, known := change.Object.(*v1alpha1.WebhookSubscription)
		switch {
		case !known:
			return len(fit), nil
		case change.Type != watch.Deleted && fits(subscription):
			fit[subscription.Name] = true
		default:
			delete(fit, subscription.Name)
		}
		if len(fit) == i.subscriptions {
			break
		}
	}
	return len(fit), nil
}

// unsubscribe removes the subscriptions, and returns once they are gone.
func (i *installation) unsubscribe(ctx context.Context) error {
	err := each(ctx, i.subscriptions, func(ctx context.Context, n int) error {
		subscription := &v1alpha1.WebhookSubscription{ObjectMeta: i.named(subscriptionName(n))}
		return client.IgnoreNotFound(i.plane.client.Delete(ctx, subscription))
	})
	if err != nil {
		return fmt.Errorf("remove subscriptions: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, i.patience())
	defer cancel()
	for {
		var left v1alpha1.WebhookSubscriptionList
		if err := i.plane.client.List(ctx, &left, client.InNamespace(i.namespace), client.Limit(1)); err != nil || len(left.Items) == 0 {
			i.subscriptions = 0
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("subscriptions are not removed: %w", ctx.Err())
		}
	}
}

// patience is how long something may take that is done to all subscriptions.
func (i *installation) patience() time.Duration {
	return startPatience + time.Duration(i.subscriptions)*objectPatience
}
