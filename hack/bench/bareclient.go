package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// bareClientCommand runs the limit of delivering: a client that makes one call again
// and again.
const bareClientCommand = "bare-client"

// maxCallers is how many calls the bare client has under way at most: more of them
// make it slower.
const maxCallers = 256

// bareCalls are the calls to make, told in JSON on the standard input.
type bareCalls struct {
	URL     string
	Header  http.Header
	Body    string
	Calls   int
	Callers int
}

func bareClient(ctx context.Context, in io.Reader) error {
	var calls bareCalls
	if err := json.NewDecoder(in).Decode(&calls); err != nil {
		return fmt.Errorf("read what to do: %w", err)
	}
	call := posted{url: calls.URL, header: calls.Header, body: calls.Body}
	_, err := load(ctx, calls.Callers, calls.Calls, func(int) posted { return call })
	return err
}
