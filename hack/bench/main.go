// Command bench answers: how fast is Postbus, and how fast could it be here?
//
// It starts a control plane and Postbus as it is shipped, and measures each figure
// beside its limit: a program without any of what Postbus does, that does the same
// work on the wire and on the disk. Both are measured in turn, round by round, so
// that what else the machine does is in both, and what counts is the ratio. The
// results are written into docs/benchmarks.md. All of it talks to loopback alone.
//
//	bench ──▶ postbus standalone ──▶ receiver (in bench)
//	bench ──▶ bare server            bare client ──▶ receiver
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
)

// settings are what the flags say.
type settings struct {
	postbus, programs, crds, out string
	// profiles is the folder that gets profiles; empty where nobody wants them.
	profiles string
	figures  *regexp.Regexp
	rounds   int
	// backlog is how many events wait for a subscription that has a large backlog.
	backlog int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	if len(arguments) > 0 {
		switch arguments[0] {
		case bareServerCommand:
			return bareServer(ctx, arguments[1:])
		case bareClientCommand:
			return bareClient(ctx, os.Stdin)
		}
	}
	s, err := parse(arguments)
	if err != nil {
		return err
	}
	return measureAll(ctx, s)
}

func parse(arguments []string) (s settings, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&s.postbus, "postbus", "bin/postbus", "`program` to measure")
	flags.StringVar(&s.programs, "programs", "bin", "`folder` of etcd and kube-apiserver")
	flags.StringVar(&s.crds, "crds", "config/crd", "`folder` of the custom resource definitions")
	flags.StringVar(&s.out, "out", "docs/benchmarks.md", "`file` that gets the results between its marks")
	flags.IntVar(&s.rounds, "rounds", 3, "how often each figure is measured; odd, as medians are told")
	flags.StringVar(&s.profiles, "profiles", "", "`folder` that gets a profile of Postbus in each figure; none without")
	flags.IntVar(&s.backlog, "backlog", 1_000_000, "how many `events` wait for a subscription that has a large backlog; even")
	figures := flags.String("figures", "", "`regular expression` of the names of the figures to measure; all without")
	if err := flags.Parse(arguments); err != nil {
		return s, err
	}
	if flags.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if s.rounds < 1 || s.rounds%2 == 0 {
		return s, fmt.Errorf("--rounds is %d, it must be odd", s.rounds)
	}
	if s.backlog < 2 || s.backlog%2 != 0 {
		return s, fmt.Errorf("--backlog is %d, it must be even", s.backlog)
	}
	if s.figures, err = regexp.Compile(*figures); err != nil {
		return s, fmt.Errorf("--figures: %w", err)
	}
	return s, nil
}

// measureAll measures each figure on an installation of its own, and writes what came
// of it.
func measureAll(ctx context.Context, s settings) (err error) {
	plane, err := startPlane(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plane.stop()) }()
	r := &report{rounds: s.rounds}
	measured := r.measure(ctx, plane)
	if ctx.Err() != nil {
		return measured
	}
	if r.versions, err = plane.versions(ctx); err != nil {
		return errors.Join(measured, err)
	}
	return errors.Join(measured, r.write(s.out))
}
