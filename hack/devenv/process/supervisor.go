package process

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// The waits before a program is started again. A run of at least steadyAfter
// begins with the shortest again.
const (
	firstWait   = 200 * time.Millisecond
	longestWait = 10 * time.Second
	steadyAfter = 10 * time.Second
)

// Supervisor keeps a program running.
type Supervisor struct {
	// Command is the program.
	Command Command
	// Ready returns nil once the program is ready, and an error when the
	// context ends before. It is asked in every run.
	Ready func(ctx context.Context) error
	// ReadyTimeout bounds the first start.
	ReadyTimeout time.Duration
	// Grace is how long the program may take to end when it is asked to.
	Grace time.Duration
	// Tell reports, in one line, that the program ended or is ready again.
	Tell func(line string)

	mu      sync.Mutex
	current *Process
}

// Start starts the program and waits until it is ready. The error of a program
// that ends before is its own last line.
func (s *Supervisor) Start(ctx context.Context) error {
	p, err := s.launch(s.Command)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.ReadyTimeout)
	defer cancel()
	if err := s.untilReady(ctx, p); err != nil {
		_ = p.Stop(s.Grace) // the error before is the one to tell
		return err
	}
	return nil
}

// Run starts the program again whenever it ends, until the context ends; then
// it stops the program. Start comes first.
func (s *Supervisor) Run(ctx context.Context) error {
	command := s.Command
	command.Append = true
	p, wait, began := s.process(), firstWait, time.Now()
	for {
		select {
		case <-ctx.Done():
			return p.Stop(s.Grace)
		case <-p.Done():
		}
		if time.Since(began) >= steadyAfter {
			wait = firstWait
		}
		s.Tell(fmt.Sprintf("%v; starting it again in %s", p.Exit(), wait))
		if !sleep(ctx, wait) {
			return nil
		}
		next, err := s.launch(command)
		if err != nil {
			return err
		}
		p, began, wait = next, time.Now(), min(2*wait, longestWait)
		if s.untilReady(ctx, p) == nil {
			s.Tell(fmt.Sprintf("%s is ready again (process %d)", s.Command.Name, p.PID()))
		}
	}
}

// Kill ends the running program as kill -9 does.
func (s *Supervisor) Kill() error { return s.process().Kill() }

// PID returns the number of the running process.
func (s *Supervisor) PID() int { return s.process().PID() }

// untilReady waits until the program is ready, has ended or the context ends.
func (s *Supervisor) untilReady(ctx context.Context, p *Process) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ready := make(chan error, 1)
	go func() { ready <- s.Ready(ctx) }()
	select {
	case <-p.Done():
		return p.Exit()
	case err := <-ready:
		if err != nil {
			return fmt.Errorf("wait for %s to be ready (log: %s): %w", s.Command.Name, s.Command.LogFile(), err)
		}
		return nil
	}
}

func (s *Supervisor) launch(command Command) (*Process, error) {
	p, err := Start(command)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = p
	return p, nil
}

func (s *Supervisor) process() *Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// sleep waits, and tells whether the context did not end meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
