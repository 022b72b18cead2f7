// Program attack attacks a postbus that it starts itself, on loopback, and prints what
// became of it: whether it crashed, how much it grew, and how a good caller fared.
//
//	make attack ATTACK=trailers DURATION=60s
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"postbus.dev/postbus/test/attack/stranger"
)

// maxDuration bounds an attack.
const maxDuration = 10 * time.Minute

type settings struct {
	attack            string
	duration          time.Duration
	requests          int64
	postbus, programs string
	crds              string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt) //nolint:forbidigo // the root of all contexts
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1) //nolint:forbidigo // main
	}
}

func run(ctx context.Context, arguments []string, out io.Writer) error {
	s, err := parse(arguments)
	if err != nil {
		return err
	}
	victim, err := startVictim(ctx, s)
	if err != nil {
		return err
	}
	report, err := observe(ctx, s, victim)
	if err := errors.Join(err, victim.stop()); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, report)
	return err
}

func parse(arguments []string) (s settings, err error) {
	flags := flag.NewFlagSet("attack", flag.ContinueOnError)
	flags.StringVar(&s.attack, "attack", "hpack", "hpack, trailers, headers or unread")
	flags.DurationVar(&s.duration, "duration", time.Minute, "how long the attack lasts")
	flags.Int64Var(&s.requests, "requests", 100_000_000, "how many requests it sends at most")
	flags.StringVar(&s.postbus, "postbus", "bin/postbus", "the `program` to attack")
	flags.StringVar(&s.programs, "programs", "bin", "`folder` of etcd and kube-apiserver")
	flags.StringVar(&s.crds, "crds", "config/crd", "`folder` of the CRDs")
	if err := flags.Parse(arguments); err != nil {
		return s, err
	}
	if stranger.Attacks[s.attack] == nil {
		return s, fmt.Errorf("unknown attack %q", s.attack)
	}
	if s.duration <= 0 || s.duration > maxDuration {
		return s, fmt.Errorf("-duration is %s, it must be at most %s", s.duration, maxDuration)
	}
	return s, nil
}

// report is what became of an attack.
type report struct {
	attack          string
	requests        int64
	lasted          time.Duration
	crashed         bool
	before, most    int64 // RSS in bytes
	answers, faults int64 // of the good caller
	p50, p99, worst time.Duration
}

// String returns the report as a line.
func (r report) String() string {
	return fmt.Sprintf("%s: %d requests in %s; crashed: %t; RSS %d MiB before, %d MiB at most (grew by %d MiB); "+
		"good caller: %d answered, %d not; p50 %s, p99 %s, worst %s",
		r.attack, r.requests, r.lasted.Round(time.Second), r.crashed, r.before>>20, r.most>>20, (r.most-r.before)>>20,
		r.answers, r.faults, r.p50.Round(time.Millisecond), r.p99.Round(time.Millisecond), r.worst.Round(time.Millisecond))
}

// observe attacks, and posts as a good caller meanwhile.
func observe(ctx context.Context, s settings, v *victim) (r report, err error) {
	r = report{attack: s.attack}
	if r.before, err = v.residentBytes(); err != nil {
		return r, err
	}
	lasting, cancel := context.WithTimeout(ctx, s.duration)
	defer cancel()
	began := time.Now()
	var (
		watching sync.WaitGroup
		most     atomic.Int64
		took     []time.Duration
	)
	watching.Go(func() { v.watch(lasting, &most) })
	watching.Go(func() { took, r.faults = v.postUntil(lasting) })
	r.requests, err = stranger.Attacks[s.attack](lasting, v.address, s.requests)
	r.lasted = time.Since(began)
	cancel()
	watching.Wait()
	r.most, r.crashed, r.answers = most.Load(), v.ended(), int64(len(took))
	if len(took) > 0 {
		slices.Sort(took)
		r.p50, r.p99, r.worst = took[len(took)/2], took[len(took)*99/100], took[len(took)-1]
	}
	return r, err
}
