package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// callback is a server that subscriptions have called.
type callback struct {
	server *http.Server
	url    string
}

// listen starts a callback.
func listen(ctx context.Context, handler http.Handler) (*callback, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for calls: %w", err)
	}
	c := &callback{
		server: &http.Server{Handler: handler}, //nolint:gosec // it is called by this benchmark alone
		url:    "http://" + listener.Addr().String(),
	}
	go func() { _ = c.server.Serve(listener) }()
	return c, nil
}

// close ends the callback, which may be none.
func (c *callback) close() {
	if c != nil {
		_ = c.server.Close() // whoever still calls sees it
	}
}

// receiver takes calls, and tells how fast they came.
type receiver struct {
	mu          sync.Mutex
	body        []byte
	header      http.Header
	wanted, got int
	first, last time.Time
	all         chan struct{}
}

func newReceiver() *receiver { return &receiver{} }

// ServeHTTP takes a call.
func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.body, r.header = body, request.Header
	r.got++
	switch r.got {
	case 1:
		r.first = time.Now()
	case r.wanted:
		r.last = time.Now()
		close(r.all)
	}
}

// lastCall returns header and body of the last call.
func (r *receiver) lastCall() (http.Header, []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.header, r.body
}

// expect begins to count, and returns what waits for so many calls and tells how many
// came in a second, from the first to the last. There must be two at least.
func (r *receiver) expect(calls int) func(context.Context) (float64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wanted, r.got, r.all = calls, 0, make(chan struct{})
	all := r.all
	return func(ctx context.Context) (float64, error) {
		select {
		case <-all:
		case <-time.After(5 * time.Minute):
			return 0, fmt.Errorf("only %d of %d calls arrived", r.count(), calls)
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		return float64(calls-1) / r.last.Sub(r.first).Seconds(), nil
	}
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got
}

// arrivals is a receiver that notes when the event of each address came first.
type arrivals struct {
	mu sync.Mutex
	at map[string]time.Time
}

func newArrivals() *arrivals { return &arrivals{at: map[string]time.Time{}} }

// ServeHTTP takes a call in the format Standard.
func (a *arrivals) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	now := time.Now()
	var call struct {
		Data struct{ Contact struct{ Email string } }
	}
	if err := json.NewDecoder(request.Body).Decode(&call); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, known := a.at[call.Data.Contact.Email]; !known {
		a.at[call.Data.Contact.Email] = now
	}
}

// await returns when the event of an address came.
func (a *arrivals) await(ctx context.Context, address string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		a.mu.Lock()
		at, known := a.at[address]
		a.mu.Unlock()
		if known {
			return at, nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return at, fmt.Errorf("no event of %s came: %w", address, ctx.Err())
		}
	}
}
