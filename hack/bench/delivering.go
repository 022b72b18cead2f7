package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
)

const (
	// deliveredCalls is how many calls a round has at least.
	deliveredCalls = 40_000
	// inFlight is how many calls a subscription may have under way: the default of
	// rateLimit.maxInFlight.
	inFlight = 64
)

// delivering is how many calls a second subscriptions get that match every event,
// when events wait for them. Its limit is a client that posts the same body to the
// same receiver, with as many calls at a time.
func delivering(e engine, subscriptions int) figure {
	name := fmt.Sprintf("delivering, %s: %d matching all", e, subscriptions)
	f := figure{name: name, unit: "calls/s"}
	if subscriptions == 1 {
		f.bar = 0.8
	}
	f.prepare = func(ctx context.Context, p *plane) (subject, error) {
		s := &deliveringSubject{name: name, engine: e, subscriptions: subscriptions, events: max(deliveredCalls/subscriptions, 200), receiver: newReceiver()}
		s.handler = s.receiver
		if err := s.prepare(ctx, p); err != nil {
			return nil, errors.Join(err, s.close())
		}
		return s, nil
	}
	return f
}

// deliveringSubject is Postbus with subscriptions, and their receiver.
type deliveringSubject struct {
	name          string
	engine        engine
	subscriptions int
	// events is how many contacts a round posts, with an event each.
	events    int
	installed *installation
	receiver  *receiver
	handler   http.Handler // the receiver, or another
	server    *http.Server
	url       string // of the receiver
	posted    int
}

func (s *deliveringSubject) prepare(ctx context.Context, p *plane) (err error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for calls: %w", err)
	}
	s.url = "http://" + listener.Addr().String()
	s.server = &http.Server{Handler: s.handler} //nolint:gosec // it is called by this benchmark alone
	go func() { _ = s.server.Serve(listener) }()
	if s.installed, err = p.install(ctx, s.engine); err != nil {
		return err
	}
	for n := range s.subscriptions {
		if err := s.subscribe(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// subscribe makes a subscription that waits, and returns once it is accepted.
func (s *deliveringSubject) subscribe(ctx context.Context, n int) error {
	subscription := &v1alpha1.WebhookSubscription{ObjectMeta: s.installed.named("hook-" + strconv.Itoa(n))}
	subscription.Spec = v1alpha1.WebhookSubscriptionSpec{
		App: "bench", Suspend: new(true), Events: []v1alpha1.EventType{contact.EventCreate},
		Callback: v1alpha1.Callback{URL: s.url},
	}
	if err := s.installed.plane.client.Create(ctx, subscription); err != nil {
		return fmt.Errorf("create a subscription: %w", err)
	}
	return s.installed.await(ctx, subscription, func() bool {
		return meta.IsStatusConditionTrue(subscription.Status.Conditions, v1alpha1.ConditionAccepted)
	})
}

// measure has events wait, and then all subscriptions go on.
func (s *deliveringSubject) measure(ctx context.Context) (m measurement, err error) {
	if err := s.suspend(ctx, true); err != nil {
		return m, err
	}
	if err := s.post(ctx); err != nil {
		return m, err
	}
	calls := s.events * s.subscriptions
	return s.installed.measured(ctx, s.name, calls, func() (float64, error) {
		arrived := s.receiver.expect(calls)
		if err := s.suspend(ctx, false); err != nil {
			return 0, err
		}
		return arrived(ctx)
	})
}

// post has a round's contacts accepted, with an event each.
func (s *deliveringSubject) post(ctx context.Context) error {
	first := s.posted
	s.posted += s.events
	_, err := load(ctx, inFlight, s.events, func(n int) posted {
		return posted{
			url: s.installed.ingress + contactPath, contentType: "application/x-www-form-urlencoded",
			body: fmt.Sprintf("key=%s&email=contact-%d@example.com&permission=2", s.installed.key, first+n),
		}
	})
	return err
}

// suspend suspends or resumes all subscriptions, and returns once their status says
// so.
func (s *deliveringSubject) suspend(ctx context.Context, suspended bool) error {
	for n := range s.subscriptions {
		subscription := &v1alpha1.WebhookSubscription{ObjectMeta: s.installed.named("hook-" + strconv.Itoa(n))}
		patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"spec":{"suspend":%t}}`, suspended))
		if err := s.installed.plane.client.Patch(ctx, subscription, patch); err != nil {
			return fmt.Errorf("patch spec.suspend: %w", err)
		}
	}
	if !suspended {
		return nil
	}
	for n := range s.subscriptions {
		subscription := &v1alpha1.WebhookSubscription{ObjectMeta: s.installed.named("hook-" + strconv.Itoa(n))}
		err := s.installed.await(ctx, subscription, func() bool { return subscription.Status.State == v1alpha1.StateSuspended })
		if err != nil {
			return err
		}
	}
	return nil
}

// limit has a bare client make as many calls, each like the last one of Postbus.
func (s *deliveringSubject) limit(ctx context.Context) (float64, error) {
	header, body := s.receiver.lastCall()
	calls := s.events * s.subscriptions
	written, err := json.Marshal(bareCalls{
		URL: s.url, Header: header, Body: string(body), Calls: calls, Callers: min(inFlight*s.subscriptions, maxCallers),
	})
	if err != nil {
		return 0, fmt.Errorf("tell the bare client what to do: %w", err)
	}
	arrived := s.receiver.expect(calls)
	command := exec.CommandContext(ctx, "/proc/self/exe", bareClientCommand)
	command.Stdin, command.Stderr = bytes.NewReader(written), os.Stderr
	if err := command.Run(); err != nil {
		return 0, fmt.Errorf("run the bare client: %w", err)
	}
	return arrived(ctx)
}

func (s *deliveringSubject) close() error {
	var errs []error
	if s.installed != nil {
		errs = append(errs, s.installed.close())
	}
	if s.server != nil {
		errs = append(errs, s.server.Close())
	}
	return errors.Join(errs...)
}
