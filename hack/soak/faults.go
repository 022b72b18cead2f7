package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// fault is one thing that goes wrong.
type fault struct{ name, command string }

// readFaults reads lines such as
//
//	dispatchers restart: kubectl -n postbus-system rollout restart deployment/postbus-dispatcher
//
// Empty lines and those that begin with # say nothing.
func readFaults(path string) (faults []fault, err error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the faults: %w", err)
	}
	for number, line := range strings.Split(string(text), "\n") {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, command, found := strings.Cut(line, ":")
		if !found || strings.TrimSpace(name) == "" || strings.TrimSpace(command) == "" {
			return nil, fmt.Errorf("line %d of the faults is no name, colon and command", number+1)
		}
		faults = append(faults, fault{name: strings.TrimSpace(name), command: strings.TrimSpace(command)})
	}
	return faults, nil
}

// observation is a fault and when it went on: from its beginning to the end of the
// time in which things settle after it.
type observation struct {
	fault
	began, settled time.Time
	took           time.Duration
}

// runFaults runs one fault after the other, and lets things settle around them. A
// command that fails ends all, for nothing is known then of what it did.
func runFaults(ctx context.Context, faults []fault, s settings, p *poster) (observed []observation, err error) {
	start := time.Now()
	if err := wait(ctx, s.settle); err != nil {
		return nil, err
	}
	for _, f := range faults {
		o := observation{fault: f, began: time.Now()}
		fmt.Fprintf(os.Stderr, "%s  %s (%d accepted so far)\n", o.began.Format(time.TimeOnly), f.name, len(p.accepted()))
		command := exec.CommandContext(ctx, "sh", "-c", f.command)
		command.Stdout, command.Stderr = os.Stderr, os.Stderr
		if err := command.Run(); err != nil {
			return observed, fmt.Errorf("run the fault %q: %w", f.name, err)
		}
		o.took = time.Since(o.began)
		if err := wait(ctx, s.settle); err != nil {
			return observed, err
		}
		o.settled = time.Now()
		observed = append(observed, o)
	}
	return observed, wait(ctx, s.duration-time.Since(start))
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
