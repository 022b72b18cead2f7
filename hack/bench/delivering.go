package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"postbus.dev/postbus/api/v1alpha1"
)

const (
	// manySubscriptions are so many that few contacts are enough for a round: they are
	// posted while the subscriptions are active. Fewer have their events wait first, so
	// that accepting is not in what is measured.
	manySubscriptions = 1000
	// sparseLists is how many lists there are where each subscription is of one, and
	// each event matches one in so many.
	sparseLists = 100
)

// deliveringCase is to how many subscriptions events go.
type deliveringCase struct {
	engine        engine
	subscriptions int
	// lists: subscriptions and contacts are of one of them each, by turns. With one,
	// each subscription matches every event.
	lists int
}

// deliverings are those of an engine.
func deliverings(e engine) (all []figure) {
	for _, subscriptions := range []int{1, 10, 100, 1000, 5000} {
		all = append(all, delivering(deliveringCase{engine: e, subscriptions: subscriptions, lists: 1}))
	}
	for _, subscriptions := range []int{100, 1000} {
		all = append(all, delivering(deliveringCase{engine: e, subscriptions: subscriptions, lists: sparseLists}))
	}
	return all
}

func (c deliveringCase) name() string {
	matching := "all"
	if c.lists > 1 {
		matching = "one in " + strconv.Itoa(c.lists)
	}
	return fmt.Sprintf("delivering, %s: %d matching %s", c.engine, c.subscriptions, matching)
}

// contacts is how many a round posts, with an event each, so that it has 40,000 calls,
// or 20,000 where a call needs an event of its own.
func (c deliveringCase) contacts() int {
	if c.subscriptions == c.lists {
		return max(40_000/c.subscriptions, 20_000)
	}
	return 40_000 * c.lists / c.subscriptions
}

// calls is how many a round has.
func (c deliveringCase) calls() int { return c.contacts() * c.subscriptions / c.lists }

// delivering is how many calls a second subscriptions get. Its limit is a client that
// posts the same body to the same receiver, with as many calls at a time.
func delivering(c deliveringCase) figure {
	f := figure{name: c.name(), unit: "calls/s"}
	if c.subscriptions == 1 {
		f.bar = 0.8
	}
	f.prepare = func(ctx context.Context, p *plane) (subject, error) {
		s := &deliveringSubject{deliveringCase: c, receiver: newReceiver()}
		if err := s.prepare(ctx, p); err != nil {
			return nil, errors.Join(err, s.close())
		}
		return s, nil
	}
	return f
}

// deliveringSubject is Postbus with subscriptions, and their receiver.
type deliveringSubject struct {
	deliveringCase
	installed *installation
	receiver  *receiver
	posted    int
}

func (s *deliveringSubject) prepare(ctx context.Context, p *plane) (err error) {
	if s.installed, err = p.install(ctx, s.engine, s.lists); err != nil {
		return err
	}
	if err := s.installed.listen(ctx, s.receiver); err != nil {
		return err
	}
	return s.installed.subscribe(ctx, s.subscriptions, func(n int) v1alpha1.WebhookSubscriptionSpec {
		spec := s.installed.calling(s.subscriptions)
		if s.lists > 1 {
			spec.Lists = []string{listName + strconv.Itoa(n%s.lists)}
		}
		return spec
	})
}

func (s *deliveringSubject) measure(ctx context.Context) (m measurement, err error) {
	begin := s.post
	if s.subscriptions < manySubscriptions {
		if err := errors.Join(s.installed.suspend(ctx, true), s.post(ctx)); err != nil {
			return m, err
		}
		begin = func(ctx context.Context) error { return s.installed.suspend(ctx, false) }
	}
	m, err = s.installed.measured(ctx, s.name(), s.calls(), func() (float64, error) {
		arrived := s.receiver.expect(s.calls())
		if err := begin(ctx); err != nil {
			return 0, err
		}
		return arrived(ctx)
	})
	if err == nil && s.subscriptions >= manySubscriptions {
		err = s.installed.awaitQuiet(ctx) // the status of each is written
	}
	return m, err
}

// post has a round's contacts accepted, with an event each that is sent.
func (s *deliveringSubject) post(ctx context.Context) error {
	first := s.posted
	s.posted += s.contacts()
	_, err := load(ctx, inFlight, s.contacts(), func(n int) posted {
		return s.installed.contact(n%s.lists, fmt.Sprintf("contact-%d@example.com", first+n))
	})
	return err
}

// limit has a bare client make as many calls.
func (s *deliveringSubject) limit(ctx context.Context) (float64, error) {
	return bareCallsTo(ctx, s.installed.callback.url, s.receiver, s.calls(), inFlightOf(s.subscriptions)*s.subscriptions)
}

// bareCallsTo returns how many calls a second a bare client makes, each like the last
// one that the receiver got.
func bareCallsTo(ctx context.Context, url string, receiver *receiver, calls, callers int) (perSecond float64, err error) {
	header, body := receiver.lastCall()
	written, err := json.Marshal(bareCalls{URL: url, Header: header, Body: string(body), Calls: calls, Callers: min(callers, maxCallers)})
	if err != nil {
		return 0, fmt.Errorf("tell the bare client what to do: %w", err)
	}
	arrived := receiver.expect(calls)
	command := exec.CommandContext(ctx, "/proc/self/exe", bareClientCommand)
	command.Stdin, command.Stderr = bytes.NewReader(written), os.Stderr
	if err := command.Run(); err != nil {
		return 0, fmt.Errorf("run the bare client: %w", err)
	}
	return arrived(ctx)
}

func (s *deliveringSubject) close() error {
	if s.installed == nil {
		return nil
	}
	return s.installed.close()
}
