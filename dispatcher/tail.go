package dispatcher

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

const (
	// tailPage is how many events the tail reads at once.
	tailPage = 512
	// readRetry is the wait after the log could not be read.
	readRetry = 500 * time.Millisecond
)

// tail reads the end of the log and offers each event to the runners that have
// caught up with it.
//
// Its lock comes before a runner's: whoever holds it sees all runners on the
// tail at the same position.
type tail struct {
	log   store.Log
	clock clock.Clock
	// forget is called with each event that removes others from the log, for the
	// runners that are not on the tail too.
	forget func(event *contact.Event)
	// askForMail is called with the list of each mail that is asked for, for the
	// first one starts the runner of the list's mails.
	askForMail func(list contact.ListKey)
	// askForNotice is the same for the notices of a namespace.
	askForNotice func(namespace string)

	// mu comes before the lock of a runner, and is not held over I/O or an evaluation of a
	// filter.
	mu sync.Mutex
	// position is up to where every runner on the tail was offered everything.
	position int64
	// live are the runners on the tail, by the lists whose events they may want; under
	// no name those that may want events of any list of the namespace.
	live map[contact.ListKey]map[*runner]struct{}
	// window has the last events up to position. windowBytes, when not nil, is the metric
	// of its bytes.
	window      window
	windowBytes prometheus.Gauge
}

func newTail(ctx context.Context, log store.Log, clock clock.Clock) (*tail, error) {
	head, err := log.Head(ctx)
	if err != nil {
		return nil, fmt.Errorf("find the end of the event log: %w", err)
	}
	return &tail{
		log: log, clock: clock, position: head, live: map[contact.ListKey]map[*runner]struct{}{}, window: window{after: head},
	}, nil
}

// run reads until the context ends.
func (t *tail) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := t.readPage(ctx); err != nil && ctx.Err() == nil {
			logr.FromContextOrDiscard(ctx).Error(err, "event log can't be read, trying again")
			sleep(ctx, t.clock, readRetry)
		}
	}
}

func (t *tail) readPage(ctx context.Context) error {
	from := t.at()
	if err := t.log.WaitForEvents(ctx, from); err != nil {
		return err
	}
	page, err := t.log.Read(ctx, store.Query{After: from, Filter: store.Filter{Types: contact.LogTypes}, Limit: tailPage, MaxBytes: pageBytes})
	if err != nil {
		return err
	}
	if len(page) == 0 {
		return t.passGap(ctx, from)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range page {
		t.offer(&page[i])
	}
	return nil
}

// passGap goes on to the end of a log that has nothing behind a position, though its
// end is, or was, further: a server that goes on with another's log leaves positions
// out, and may lack the last events. Without it they would be asked for without end.
func (t *tail) passGap(ctx context.Context, from int64) error {
	head, err := t.log.Head(ctx)
	if err != nil {
		return err
	}
	if head <= from { // what was there is lost
		sleep(ctx, t.clock, readRetry)
		return nil
	}
	// Another event may have come meanwhile, but none up to head will any more.
	page, err := t.log.Read(ctx, store.Query{After: from, UpTo: head, Filter: store.Filter{Types: contact.LogTypes}, Limit: 1})
	if err != nil || len(page) > 0 {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.position = head
	return nil
}

// offer hands one event to those who want it. mu is held.
func (t *tail) offer(event *contact.Event) {
	t.offerTo(contact.ListKey{Namespace: event.List.Namespace}, event)
	if event.List.Name != "" {
		t.offerTo(event.List, event)
	}
	switch {
	case event.Erases():
		t.forget(event)
	case event.Type == contact.EventOptInMail:
		t.askForMail(event.List)
	case event.Type == contact.EventNotice:
		t.askForNotice(event.List.Namespace)
	}
	t.window.add(event)
	if t.windowBytes != nil {
		t.windowBytes.Set(float64(t.window.bytes))
	}
	t.position = event.Position
}

// offerTo hands an event to the live runners of a list. mu is held.
func (t *tail) offerTo(list contact.ListKey, event *contact.Event) {
	for r := range t.live[list] {
		if !r.offer(event) {
			t.remove(r)
		}
	}
}

// at returns the position up to which the tail has read.
func (t *tail) at() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.position
}

// feed gives a runner that is behind what the window has for it. It returns false when
// the runner is to read the log, or nothing.
func (t *tail) feed(r *runner) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return r.takeRecent(&t.window, t.position)
}

// join puts a runner on the tail if it has caught up with it.
func (t *tail) join(r *runner) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !r.goLive(t.position) {
		return
	}
	for _, list := range r.wantedLists() {
		if t.live[list] == nil {
			t.live[list] = map[*runner]struct{}{}
		}
		t.live[list][r] = struct{}{}
	}
}

// remove takes a runner from among the live ones, if it is there. mu is held, and the
// runner's subscription is what it was when it joined.
func (t *tail) remove(r *runner) {
	for _, list := range r.wantedLists() {
		delete(t.live[list], r)
		if len(t.live[list]) == 0 {
			delete(t.live, list)
		}
	}
}

// leave takes a runner off the tail and calls then, if it is not nil, before
// anybody can be offered another event.
func (t *tail) leave(r *runner, then func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remove(r)
	r.goBehind(t.position)
	if then != nil {
		then()
	}
}

// snapshot returns what of a runner is to be written to the store, if anything.
func (t *tail) snapshot(r *runner, idle bool) (store.Progress, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return r.snapshot(t.position, idle)
}

// sleep waits, unless the context ends first.
func sleep(ctx context.Context, clock clock.Clock, d time.Duration) {
	timer := clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C():
	}
}
