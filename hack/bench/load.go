package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// posted is one call to make. A header that it has is sent as it is, in place of the
// content's type alone.
type posted struct {
	url, contentType, body string
	header                 http.Header
}

// load makes calls, the n-th of which call returns, by so many callers at once, each
// on a connection of its own, and returns how many were answered in a second. Any
// other answer than 200 is an error.
func load(ctx context.Context, callers, calls int, call func(n int) posted) (perSecond float64, err error) {
	transport := &http.Transport{MaxIdleConnsPerHost: callers, MaxConnsPerHost: callers}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: startPatience}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		next atomic.Int64
		all  sync.WaitGroup
	)
	began := time.Now()
	for range callers {
		all.Go(func() {
			for n := int(next.Add(1)) - 1; n < calls && ctx.Err() == nil; n = int(next.Add(1)) - 1 {
				if err := post(ctx, client, call(n)); err != nil {
					cancel(err)
				}
			}
		})
	}
	all.Wait()
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	return float64(calls) / time.Since(began).Seconds(), nil
}

// errRefused is the answer of a server that has too much to do.
var errRefused = errors.New("refused as there are too many calls")

func post(ctx context.Context, client *http.Client, call posted) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, call.url, strings.NewReader(call.body))
	if err != nil {
		return err
	}
	if request.Header = call.header; request.Header == nil {
		request.Header = http.Header{"Content-Type": {call.contentType}}
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	switch response.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusServiceUnavailable:
		return fmt.Errorf("%w: %s answers %s: %s", errRefused, call.url, response.Status, answer)
	default:
		return fmt.Errorf("%s answers %s: %s", call.url, response.Status, answer)
	}
}
