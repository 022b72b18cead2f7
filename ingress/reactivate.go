package ingress

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"postbus.dev/postbus/internal/link"
	"postbus.dev/postbus/internal/recipient"
	"postbus.dev/postbus/internal/store"
)

// CallbackKeeper tells of callbacks and has them reactivated.
type CallbackKeeper interface {
	// LoadDelivery returns how a subscription is, or store.ErrNotFound.
	LoadDelivery(ctx context.Context, key store.SubscriptionKey) (store.Delivery, error)
	// PutRequest asks the dispatcher, or returns store.ErrNotFound.
	PutRequest(ctx context.Context, request store.Request) error
}

// replayParameter says whether a reactivation sends the events that were kept.
const replayParameter = "replay"

// reactivate asks whoever has the link of a deactivation whether to end it, and has
// the dispatcher do it.
func (s *server) reactivate(r *http.Request, v *visit, token string) (pageAnswer, error) {
	opened, expired, valid := s.openReactivation(token, v.at)
	switch {
	case !valid:
		return pageOf(http.StatusNotFound, recipient.PageInvalid), nil
	case expired:
		return callbackPage(http.StatusGone, recipient.PageReactivateExpired, opened), nil
	}
	deactivated, err := s.findDeactivated(r.Context(), opened)
	switch {
	case err != nil:
		return pageAnswer{}, err
	case deactivated == nil:
		return callbackPage(http.StatusGone, recipient.PageReactivateOutdated, opened), nil
	case v.posts:
		return s.askToReactivate(r, opened)
	}
	answer := callbackPage(http.StatusOK, recipient.PageReactivate, opened)
	describeCallback(answer.page.Callback, deactivated)
	return answer, nil
}

// openReactivation is openLink for a link that reactivates.
func (s *server) openReactivation(token string, now time.Time) (opened link.Reactivation, expired, valid bool) {
	if s.options.LinkKeys == nil || s.options.Callbacks == nil {
		return opened, false, false
	}
	opened, err := s.options.LinkKeys.OpenReactivation(token, now)
	expired = errors.Is(err, link.ErrExpired)
	return opened, expired, expired || err == nil
}

// findDeactivated returns the subscription of a link, nil when the deactivation has
// ended that the link is of.
func (s *server) findDeactivated(ctx context.Context, opened link.Reactivation) (*store.Delivery, error) {
	delivery, err := s.options.Callbacks.LoadDelivery(ctx, subscriptionOf(opened))
	switch d := delivery.Life.Deactivation; {
	case errors.Is(err, store.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, storeProblem(ctx, err)
	case d == nil || !d.At.Equal(opened.DeactivatedAt):
		return nil, nil
	}
	return &delivery, nil
}

// askToReactivate does what the button says that was pressed. Pressed again it is
// the same request.
func (s *server) askToReactivate(r *http.Request, opened link.Reactivation) (pageAnswer, error) {
	form, err := readForm(r)
	if err != nil {
		return pageAnswer{}, err
	}
	choice := form[replayParameter]
	if choice != "true" && choice != "false" {
		return pageAnswer{}, illegalValue(replayParameter, "must be true or false")
	}
	err = s.options.Callbacks.PutRequest(r.Context(), store.Request{
		Key: subscriptionOf(opened), Type: store.RequestReactivateByLink,
		Value:  opened.DeactivatedAt.Format(time.RFC3339Nano) + " " + replayParameter + "=" + choice,
		Replay: choice == "true", DeactivatedAt: opened.DeactivatedAt,
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return callbackPage(http.StatusGone, recipient.PageReactivateOutdated, opened), nil
	case err != nil:
		return pageAnswer{}, storeProblem(r.Context(), err)
	}
	answer := callbackPage(http.StatusOK, recipient.PageReactivateAsked, opened)
	answer.page.Callback.Replay = choice == "true"
	return answer, nil
}

func subscriptionOf(opened link.Reactivation) store.SubscriptionKey {
	return store.SubscriptionKey{Namespace: opened.Namespace, Name: opened.Name}
}

// callbackPage returns a page about the callback of a link.
func callbackPage(status int, kind recipient.PageKind, opened link.Reactivation) pageAnswer {
	answer := pageOf(status, kind)
	answer.page.Callback = &recipient.Callback{
		Namespace: opened.Namespace, Name: opened.Name, DeactivatedAt: opened.DeactivatedAt,
	}
	return answer
}

// describeCallback says how a deactivated callback is.
func describeCallback(page *recipient.Callback, delivery *store.Delivery) {
	life := &delivery.Life
	page.FailingSince, page.KeptUntil = delivery.Health.FailingSince, life.Deactivation.Until
	page.Kept, page.Lost = int64(len(delivery.Open))+life.Owed.Events, life.Deactivation.Lost
	if failure := delivery.Health.LastFailure; failure != nil {
		page.Answer = string(failure.Reason)
		if failure.HTTPStatus != 0 {
			page.Answer = fmt.Sprintf("%s %d", failure.Reason, failure.HTTPStatus)
		}
	}
}
