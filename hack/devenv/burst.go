package main

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"postbus.dev/postbus/hack/devenv/receiver"
)

// The size of the burst.
const (
	contacts = 2000
	callers  = 32
	kills    = 3
)

// The bounds of the burst on a busy machine.
const (
	acceptedWithin  = 2 * time.Minute
	deliveredWithin = time.Minute
)

// burstClient keeps a connection for each caller.
var burstClient = &http.Client{
	Timeout:   10 * time.Second,
	Transport: &http.Transport{MaxIdleConnsPerHost: callers},
}

// survive posts many contacts, kills postbus meanwhile, and checks that what
// was accepted is delivered. A call that failed is made again, as a caller
// would: it may have been stored, or not.
func (t *storyteller) survive(ctx context.Context) error {
	t.receiver.Clear()
	began, cancel := context.WithTimeout(ctx, acceptedWithin)
	defer cancel()
	group, began := errgroup.WithContext(began)
	var next, accepted atomic.Int64
	for range callers {
		group.Go(func() error {
			for {
				n := next.Add(1)
				if n > contacts {
					return nil
				}
				if err := t.postUntilAccepted(began, burstAddress(n)); err != nil {
					return err
				}
				if done := accepted.Add(1); done%(contacts/(kills+1)) == 0 && done < contacts {
					if err := t.kill(began); err != nil {
						return fmt.Errorf("kill postbus: %w", err)
					}
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("post %d contacts: %w", contacts, err)
	}
	return eventually(ctx, deliveredWithin, func(context.Context) error { return t.delivered() })
}

func (t *storyteller) postUntilAccepted(ctx context.Context, email string) error {
	return eventually(ctx, acceptedWithin, func(ctx context.Context) error { return t.post(ctx, email) })
}

// delivered returns nil when each contact of the burst arrived with both its
// events.
func (t *storyteller) delivered() error {
	arrived, err := account(t.receiver.Calls())
	if err != nil {
		return err
	}
	missing := 0
	for n := int64(1); n <= contacts; n++ {
		for _, event := range []string{"contact.created", "contact.subscribed"} {
			if _, found := arrived[about{burstAddress(n), event}]; !found {
				missing++
			}
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d of %d events have not arrived", missing, 2*contacts)
	}
	return nil
}

func burstAddress(n int64) string { return fmt.Sprintf("burst-%d@example.com", n) }

// about is what a call is about: a contact, and what happened to it.
type about struct{ email, event string }

var (
	emailIn = regexp.MustCompile(`"([a-z0-9-]+@example\.com)"`)
	eventIn = regexp.MustCompile(`"type":\s*"(contact\.[a-z_]+)"`)
)

// account returns the webhook-id of each event that arrived with success. It
// is an error when one event came under two ids.
func account(calls []receiver.Call) (map[about]string, error) {
	ids, arrived := map[about]string{}, map[about]string{}
	for _, call := range calls {
		if call.Headers["postbus-test"] != "" { // it is about nobody
			continue
		}
		email, event := emailIn.FindStringSubmatch(call.Body), eventIn.FindStringSubmatch(call.Body)
		if email == nil || event == nil {
			return nil, fmt.Errorf("read the call %s: no address or type in its body", call.Headers["webhook-id"])
		}
		key, id := about{email[1], event[1]}, call.Headers["webhook-id"]
		if first, found := ids[key]; found && first != id {
			return nil, fmt.Errorf("%s of %s came under two ids: %s and %s", key.event, key.email, first, id)
		}
		ids[key] = id
		if call.Status == http.StatusOK {
			arrived[key] = id
		}
	}
	return arrived, nil
}

// checkReplay returns nil when the calls are the replay of both events of each kept
// contact. Calls for different contacts may overtake each other on their way.
func checkReplay(calls []receiver.Call) error {
	if len(calls) != 2*len(kept) {
		return fmt.Errorf("%d calls were made", len(calls))
	}
	events := map[string][]string{}
	for _, call := range calls {
		if call.Headers["postbus-test"] != "" { // it is about nobody
			continue
		}
		email, event := emailIn.FindStringSubmatch(call.Body), eventIn.FindStringSubmatch(call.Body)
		if email == nil || event == nil || call.Header().Get("postbus-replay") != "true" {
			return fmt.Errorf("the call %s is no replay of an event", call.Headers["webhook-id"])
		}
		events[email[1]] = append(events[email[1]], event[1])
	}
	for _, email := range kept {
		if !slices.Equal(events[email], []string{"contact.created", "contact.subscribed"}) {
			return fmt.Errorf("the events of %s came as %v", email, events[email])
		}
	}
	return nil
}
