package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// The events of a new contact with a permission, in their order.
const (
	contactCreated    = "contact.created"
	contactSubscribed = "contact.subscribed"
)

// about is what a call is about: a contact, and what happened to it.
type about struct{ email, event string }

// arrivals are the calls that arrived.
type arrivals struct {
	mu sync.Mutex
	// ids has the webhook-id of each event, and calls how often it arrived.
	ids   map[about]string
	calls map[string]int
	// twoIDs are events that came under a second id.
	twoIDs []about
	// early are contacts whose subscription came before their creation.
	early []about
	// unread counts calls that make no sense.
	unread int
	// limited are the calls to the path of the subscription with a rate limit.
	limited []time.Time
	// gone are the calls to the path that answers 410.
	gone []time.Time
}

func newArrivals() *arrivals {
	return &arrivals{ids: map[about]string{}, calls: map[string]int{}}
}

func (a *arrivals) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /hook", a.take)
	mux.HandleFunc("POST /limited", a.note)
	mux.HandleFunc("POST /gone", a.refuse)
	return mux
}

// take takes a call in the format Standard.
func (a *arrivals) take(w http.ResponseWriter, request *http.Request) {
	var call struct {
		Type string
		Data struct{ Contact struct{ Email string } }
	}
	err := json.NewDecoder(request.Body).Decode(&call)
	a.mu.Lock()
	defer a.mu.Unlock()
	id := request.Header.Get("webhook-id")
	if err != nil || id == "" || call.Data.Contact.Email == "" {
		a.unread++
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	what := about{email: call.Data.Contact.Email, event: call.Type}
	if first, known := a.ids[what]; known && first != id {
		a.twoIDs = append(a.twoIDs, what)
	}
	if call.Type == contactSubscribed && a.ids[about{what.email, contactCreated}] == "" {
		a.early = append(a.early, what)
	}
	a.ids[what] = id
	a.calls[id]++
}

// note takes a call of the subscription with a rate limit.
func (a *arrivals) note(http.ResponseWriter, *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.limited = append(a.limited, time.Now())
}

// refuse is a callback that is gone for good: its subscription must be deactivated
// by the first answer.
func (a *arrivals) refuse(w http.ResponseWriter, _ *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gone = append(a.gone, time.Now())
	w.WriteHeader(http.StatusGone)
}

// result is what became of all that was accepted.
type result struct {
	accepted, delivered int
	missing             []about
	// again is how many calls repeated one that had arrived, under its id.
	again  int
	twoIDs []about
	early  []about
	unread int
	gone   []time.Time
	// limited is how many calls of the subscription with a rate limit came within
	// any one second.
	limited int
}

// account compares what was accepted with what arrived. A new contact with a
// permission has two events.
func account(accepted []acceptance, a *arrivals) result {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := result{accepted: len(accepted), twoIDs: a.twoIDs, early: a.early, unread: a.unread, gone: a.gone, limited: mostInASecond(a.limited)}
	for _, contact := range accepted {
		for _, event := range []string{contactCreated, contactSubscribed} {
			if what := (about{contact.email, event}); a.ids[what] == "" {
				r.missing = append(r.missing, what)
			} else {
				r.delivered++
			}
		}
	}
	for _, times := range a.calls {
		r.again += times - 1
	}
	return r
}

// mostInASecond returns the largest number of times, which are in order, within one
// second.
func mostInASecond(times []time.Time) (most int) {
	first := 0
	for n, last := range times {
		for last.Sub(times[first]) >= time.Second {
			first++
		}
		most = max(most, n-first+1)
	}
	return most
}

// deactivationTime is how long a callback that answers 410 may still be called, by
// calls that were under way.
const deactivationTime = 5 * time.Second

// goneLasted is the time from the first call of /gone to the last.
func (r result) goneLasted() time.Duration {
	if len(r.gone) == 0 {
		return 0
	}
	return r.gone[len(r.gone)-1].Sub(r.gone[0])
}

// err says what must not be.
func (r result) err() error {
	var errs []error
	if len(r.missing) > 0 {
		errs = append(errs, fmt.Errorf("%d events of accepted contacts have not arrived, such as %s of %s", len(r.missing), r.missing[0].event, r.missing[0].email))
	}
	if len(r.twoIDs) > 0 {
		errs = append(errs, fmt.Errorf("%d events came under two ids, such as %s of %s", len(r.twoIDs), r.twoIDs[0].event, r.twoIDs[0].email))
	}
	if len(r.early) > 0 {
		errs = append(errs, fmt.Errorf("%d events came before the one before them of the same contact, such as %s of %s", len(r.early), r.early[0].event, r.early[0].email))
	}
	if lasting := r.goneLasted(); lasting > deactivationTime {
		errs = append(errs, fmt.Errorf("/gone was called for %s, after it had answered 410", lasting))
	}
	if r.unread > 0 {
		errs = append(errs, fmt.Errorf("%d calls could not be read", r.unread))
	}
	return errors.Join(errs...)
}
