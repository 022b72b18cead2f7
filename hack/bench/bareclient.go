package main

import (
	"context"
	"flag"
	"fmt"
	"os"
)

// bareClientCommand runs the limit of delivering: a client that posts one body again
// and again.
const bareClientCommand = "bare-client"

// maxCallers is how many calls the bare client has under way at most: more of them
// make it slower.
const maxCallers = 256

func bareClient(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet(bareClientCommand, flag.ContinueOnError)
	url := flags.String("url", "", "`URL` to post to")
	file := flags.String("body", "", "`file` with the body")
	calls := flags.Int("calls", 1, "how many calls to make")
	callers := flags.Int("callers", 1, "how many at a time")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	body, err := os.ReadFile(*file)
	if err != nil {
		return fmt.Errorf("read the body: %w", err)
	}
	_, err = load(ctx, *callers, *calls, func(int) posted {
		return posted{url: *url, contentType: "application/json", body: string(body)}
	})
	return err
}
