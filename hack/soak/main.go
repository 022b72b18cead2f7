// Command soak answers: does anything get lost while parts of an installation die?
//
// It posts contacts to an installation's ingress at a steady rate and is the
// callback of a subscription to all events of their list. Meanwhile it runs the
// faults of a file, one after the other. In the end it compares what was accepted
// with what arrived, prints a table, and fails where something is missing, one event
// came under two ids, or two of a contact out of order. docs/operations.md shows how
// it is used.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// settings are what the flags say.
type settings struct {
	ingress, key, listen, faults string
	rate, callers                int
	settle, duration, drain      time.Duration
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	s, err := parse(os.Args[1:])
	if err == nil {
		err = soak(ctx, s)
	}
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func parse(arguments []string) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.StringVar(&s.ingress, "ingress", "", "`URL` of ingress, such as http://postbus-ingress.postbus-system.svc")
	keyFile := flags.String("key-file", "", "`file` with an API key of the list, with the scope ContactsWrite")
	flags.StringVar(&s.listen, "listen", ":9000", "`address` of the callbacks: /hook and /limited take them, /gone answers 410")
	flags.IntVar(&s.rate, "rate", 300, "contacts a second")
	flags.IntVar(&s.callers, "callers", 64, "how many calls may be under way at a time")
	flags.StringVar(&s.faults, "faults", "", "`file` of faults, a line each: a name, a colon and a command of the shell")
	flags.DurationVar(&s.settle, "settle", 20*time.Second, "time before, between and after the faults")
	flags.DurationVar(&s.duration, "duration", 0, "how long to post at least")
	flags.DurationVar(&s.drain, "drain", 3*time.Minute, "how long to wait in the end for what has not arrived")
	if err := flags.Parse(arguments); err != nil {
		return s, err
	}
	if s.ingress == "" || *keyFile == "" {
		return s, errors.New("--ingress and --key-file are needed")
	}
	if s.rate < 1 || s.callers < 1 {
		return s, errors.New("--rate and --callers must be at least 1")
	}
	key, err := os.ReadFile(*keyFile)
	if err != nil {
		return s, fmt.Errorf("read the API key: %w", err)
	}
	s.key = strings.TrimSpace(string(key))
	return s, nil
}

// soak runs the whole and prints what came of it.
func soak(ctx context.Context, s settings) error {
	faults, err := readFaults(s.faults)
	if err != nil {
		return err
	}
	arrivals := newArrivals()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.listen)
	if err != nil {
		return fmt.Errorf("listen for callbacks: %w", err)
	}
	server := &http.Server{Handler: arrivals.handler(), ReadHeaderTimeout: 10 * time.Second}
	poster := newPoster(s)

	group, running := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve callbacks: %w", err)
		}
		return nil
	})
	var observed []observation
	group.Go(func() (err error) {
		defer func() { err = errors.Join(err, server.Close()) }()
		posting, stopPosting := context.WithCancel(running)
		posted := make(chan struct{})
		go func() { defer close(posted); poster.run(posting) }()
		observed, err = runFaults(running, faults, s, poster)
		stopPosting()
		<-posted
		if err != nil {
			return err
		}
		return awaitArrivals(running, arrivals, poster, s.drain)
	})
	err = group.Wait()
	result := account(poster.accepted(), arrivals)
	fmt.Print(report(poster, result, observed))
	return errors.Join(err, result.err())
}

// awaitArrivals returns when everything accepted has arrived, or the time is up.
func awaitArrivals(ctx context.Context, arrivals *arrivals, poster *poster, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for time.Now().Before(deadline) && len(account(poster.accepted(), arrivals).missing) > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}
