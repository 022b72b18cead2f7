package controllers

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/expression"
	"postbus.dev/postbus/internal/store"
)

// bind owns status.namespaceUID and status.formerNamespaceUID. Until the subscription is
// bound it is not accepted: a delivery in the store may be an earlier Namespace's.
func (w webhookSubscriptions) bind(ctx context.Context, subscription *v1alpha1.WebhookSubscription) error {
	status := &subscription.Status
	err := w.namespaces.bind(ctx, subscription, &status.NamespaceUID, &status.FormerNamespaceUID)
	if refused := refusalIn(err); refused != nil {
		status.Secrets = nil
		setCondition(subscription, v1alpha1.ConditionAccepted, isFalse(refused.reason, refused.message))
	}
	return err
}

// accept owns the condition Accepted.
func (w webhookSubscriptions) accept(ctx context.Context, subscription *v1alpha1.WebhookSubscription) error {
	err := w.check(ctx, subscription)
	if refusalIn(err) != nil && subscription.Status.ObservedGeneration != subscription.Generation {
		// The Secrets behind what was refused were not looked at for this spec. Status
		// is about this spec from now on, so it tells of none of them as good.
		subscription.Status.Secrets = nil
	}
	return record(subscription, v1alpha1.ConditionAccepted, err,
		isTrue(v1alpha1.ReasonValid, withWarning("Everything that the spec names exists.", subscription)+signingNote(subscription)))
}

func (w webhookSubscriptions) check(ctx context.Context, subscription *v1alpha1.WebhookSubscription) error {
	for _, check := range []step[*v1alpha1.WebhookSubscription]{w.checkCallback, w.checkNotify, w.checkExpressions, w.checkLists, w.checkSecrets, w.checkSigning} {
		if err := check(ctx, subscription); err != nil {
			return err
		}
	}
	return nil
}

// checkNotify refuses addresses that the flags don't allow notices to go to.
func (w webhookSubscriptions) checkNotify(_ context.Context, subscription *v1alpha1.WebhookSubscription) error {
	for i, address := range subscription.Spec.Notify.Emails {
		if err := w.mail.CheckRecipient(subscription.Namespace, address); err != nil {
			return refuse(v1alpha1.ReasonNotifyForbidden, "spec.notify.emails[%d] %s.", i, err)
		}
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
// a new subscription. All of it is from one reading of the row: whoever sees that a
// request is done sees what was done in the same status.
func (w webhookSubscriptions) mirror(ctx context.Context, subscription *v1alpha1.WebhookSubscription) error {
	delivery, err := w.delivery(ctx, subscription)
	if err != nil {
		return err
	}
	attempts, err := w.store.LoadAttempts(ctx, delivery.Key, maxRecentAttempts)
	if err != nil {
		return err
	}
	mirrorDelivery(&subscription.Status, delivery)
	subscription.Status.RecentAttempts = recentAttempts(attempts)
	setCondition(subscription, v1alpha1.ConditionReachable, reachable(delivery.Health))
	return w.request(ctx, subscription, delivery)
}

// delivery returns the subscription's row, and makes it where there is none.
func (w webhookSubscriptions) delivery(ctx context.Context, subscription *v1alpha1.WebhookSubscription) (store.Delivery, error) {
	key := keyOf(subscription)
	delivery, err := w.store.LoadDelivery(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		if err := w.open(ctx, subscription); err != nil {
			return store.Delivery{}, fmt.Errorf("open the delivery: %w", err)
		}
		delivery, err = w.store.LoadDelivery(ctx, key)
	}
	if err != nil {
		return store.Delivery{}, fmt.Errorf("load the delivery: %w", err)
	}
	return delivery, nil
}

// open makes the subscription's row, which somebody has to drop once.
func (w webhookSubscriptions) open(ctx context.Context, subscription *v1alpha1.WebhookSubscription) error {
	known := &v1alpha1.WebhookSubscription{}
	switch err := live(ctx, w.secrets.reader, subscription, known); {
	case err != nil:
		return err
	case known.UID != subscription.UID || !known.DeletionTimestamp.IsZero():
		return errors.New("the subscription was deleted meanwhile")
	}
	return w.store.OpenDelivery(ctx, keyOf(subscription))
}

func (w webhookSubscriptions) cleanup(ctx context.Context, subscription *v1alpha1.WebhookSubscription) error {
	known := &v1alpha1.WebhookSubscription{}
	switch err := live(ctx, w.secrets.reader, subscription, known); {
	case err != nil:
		return err
	case known.UID != "" && known.UID != subscription.UID:
		return nil // whoever let this one go has cleaned up
	}
	switch err := w.bind(ctx, subscription.DeepCopy()); {
	case refusalIn(err) != nil, apierrors.IsNotFound(err): // the delivery is an earlier Namespace's
	case err != nil:
		return err
	default:
		if err := w.store.DropDelivery(ctx, keyOf(subscription)); err != nil {
			return fmt.Errorf("drop the delivery: %w", err)
		}
		if err := w.namespaces.store.ReleaseObject(ctx, string(subscription.UID)); err != nil {
			return err
		}
	}
	return w.secrets.remove(ctx, subscription)
}

func keyOf(subscription *v1alpha1.WebhookSubscription) store.SubscriptionKey {
	return store.SubscriptionKey{Namespace: subscription.Namespace, Name: subscription.Name}
}
