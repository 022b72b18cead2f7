package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/expression"
	"postbus.dev/postbus/internal/guard"
	"postbus.dev/postbus/internal/store"
)

// maxHostLength is the length of the longest host name, by RFC 1035.
const maxHostLength = 253

// accept owns the condition Accepted.
func (w webhookSubscriptions) accept(ctx context.Context, subscription *v1alpha1.WebhookSubscription) error {
	err := w.check(ctx, subscription)
	return record(subscription, v1alpha1.ConditionAccepted, err,
		isTrue(v1alpha1.ReasonValid, withWarning("Everything that the spec names exists.", subscription)+signingNote(subscription)))
}

func (w webhookSubscriptions) check(ctx context.Context, subscription *v1alpha1.WebhookSubscription) error {
	for _, check := range []step[*v1alpha1.WebhookSubscription]{w.checkCallback, w.checkExpressions, w.checkLists, w.checkSecrets, w.checkSigning} {
		if err := check(ctx, subscription); err != nil {
			return err
		}
	}
	return nil
}

func (w webhookSubscriptions) checkCallback(_ context.Context, subscription *v1alpha1.WebhookSubscription) error {
	callback, err := parseCallback(subscription.Spec.Callback.URL)
	if err != nil {
		subscription.Status.CallbackHost = ""
		return err
	}
	subscription.Status.CallbackHost = callback.Host
	// Its name is not resolved: the answer would be of this moment and this
	// machine. The dispatcher looks at what it dials.
	var refused *guard.RefusedError
	if errors.As(w.guard.CheckURL(callback), &refused) {
		return refuse(v1alpha1.ReasonCallbackForbidden, "spec.callback.url %s.", refused.Finding)
	}
	return nil
}

// checkExpressions looks at what only compiling them can tell.
func (webhookSubscriptions) checkExpressions(_ context.Context, subscription *v1alpha1.WebhookSubscription) error {
	if source := subscription.Spec.Filter; source != "" {
		if _, err := expression.CompileFilter(source); err != nil {
			return refuse(v1alpha1.ReasonFilterInvalid, "spec.filter, %s.", err)
		}
	}
	if source := subscription.Spec.Payload.Template; source != "" {
		if _, err := expression.CompileTemplate(source); err != nil {
			return refuse(v1alpha1.ReasonTemplateInvalid, "spec.payload.template, %s.", err)
		}
	}
	return nil
}

func (w webhookSubscriptions) checkLists(ctx context.Context, subscription *v1alpha1.WebhookSubscription) error {
	for _, name := range subscription.Spec.Lists {
		list := client.ObjectKey{Namespace: subscription.Namespace, Name: name}
		if err := checkList(ctx, w.client, list, "spec.lists"); err != nil {
			return err
		}
	}
	return nil
}

// mirror owns the condition Reachable and the facts of status that the
// dispatcher tells by the subscription's row in the store. It makes the row of
// a new subscription.
func (w webhookSubscriptions) mirror(ctx context.Context, subscription *v1alpha1.WebhookSubscription) error {
	delivery, err := w.delivery(ctx, keyOf(subscription))
	if err != nil {
		return err
	}
	attempts, err := w.store.LoadAttempts(ctx, delivery.Key)
	if err != nil {
		return err
	}
	mirrorDelivery(&subscription.Status, delivery)
	subscription.Status.RecentAttempts = recentAttempts(attempts)
	setCondition(subscription, v1alpha1.ConditionReachable, reachable(delivery.Health))
	return nil
}

func (w webhookSubscriptions) delivery(ctx context.Context, key store.SubscriptionKey) (store.Delivery, error) {
	delivery, err := w.store.LoadDelivery(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		if err := w.store.OpenDelivery(ctx, key); err != nil {
			return store.Delivery{}, fmt.Errorf("open the delivery: %w", err)
		}
		delivery, err = w.store.LoadDelivery(ctx, key)
	}
	if err != nil {
		return store.Delivery{}, fmt.Errorf("load the delivery: %w", err)
	}
	return delivery, nil
}

func (w webhookSubscriptions) cleanup(ctx context.Context, subscription *v1alpha1.WebhookSubscription) error {
	if err := w.store.DropDelivery(ctx, keyOf(subscription)); err != nil {
		return fmt.Errorf("drop the delivery: %w", err)
	}
	return w.secrets.remove(ctx, subscription)
}

func keyOf(subscription *v1alpha1.WebhookSubscription) store.SubscriptionKey {
	return store.SubscriptionKey{Namespace: subscription.Namespace, Name: subscription.Name}
}

// parseCallback parses a callback's URL. It refuses what the schema lets pass and
// no call can reach: ports that don't exist, names longer than DNS allows. The
// message never shows the URL, whose path may hold a secret.
func parseCallback(text string) (*url.URL, error) {
	callback, err := url.Parse(text)
	if err != nil || callback.Hostname() == "" {
		return nil, refuse(v1alpha1.ReasonCallbackInvalid, "spec.callback.url is not a URL with a host.")
	}
	if len(callback.Hostname()) > maxHostLength {
		return nil, refuse(v1alpha1.ReasonCallbackInvalid,
			"spec.callback.url has a host of more than %d characters.", maxHostLength)
	}
	if port := callback.Port(); port != "" {
		if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
			return nil, refuse(v1alpha1.ReasonCallbackInvalid, "spec.callback.url has a port outside 1 to 65535.")
		}
	}
	return callback, nil
}
