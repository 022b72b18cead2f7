package process

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Command is a program to run.
type Command struct {
	// Name is what messages and the log file call it.
	Name string
	// Path and Args are what is run.
	Path string
	Args []string
	// Env is added to the environment of this process, as NAME=VALUE.
	Env []string
	// LogDir is the folder of NAME.log, which takes both outputs and is begun
	// anew unless Append is set.
	LogDir string
	Append bool
}

// LogFile returns the path of the log.
func (c Command) LogFile() string { return filepath.Join(c.LogDir, c.Name+".log") }

// Process is one run of a program.
type Process struct {
	command Command
	cmd     *exec.Cmd
	tail    *lastLine
	done    chan struct{}
}

// Start starts a program. On Linux it is killed when this process dies in any
// way, so none is left behind.
func Start(command Command) (*Process, error) {
	log, err := openLog(command)
	if err != nil {
		return nil, err
	}
	tail := &lastLine{}
	cmd := exec.Command(command.Path, command.Args...) //nolint:noctx // Stop ends it in order, not a context at once
	cmd.Env = append(os.Environ(), command.Env...)
	cmd.SysProcAttr = attributes()
	cmd.Stdout = log
	cmd.Stderr = io.MultiWriter(log, tail)
	p := &Process{command: command, cmd: cmd, tail: tail, done: make(chan struct{})}
	started := make(chan error)
	go p.run(log, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", command.Name, err)
	}
	return p, nil
}

// run starts the program and waits for it on one thread, because Linux kills a
// child when the thread that started it ends, not the process.
func (p *Process) run(log io.Closer, started chan<- error) {
	runtime.LockOSThread()
	defer log.Close()
	defer close(p.done)
	if err := p.cmd.Start(); err != nil {
		started <- err
		return
	}
	started <- nil
	_ = p.cmd.Wait() // Exit tells how it ended
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// PID returns the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Kill ends the process at once, as kill -9 does.
func (p *Process) Kill() error { return p.cmd.Process.Kill() }

// Exit says, after Done, how the process ended and where its log is. One that
// ended by itself gives the reason: its own last line on standard error.
func (p *Process) Exit() error {
	log := p.command.LogFile()
	line := strings.TrimPrefix(p.tail.String(), p.command.Name+": ")
	if line != "" && p.cmd.ProcessState.Exited() {
		return fmt.Errorf("%s: %s (%s; log: %s)", p.command.Name, line, p.cmd.ProcessState, log)
	}
	return fmt.Errorf("%s ended: %s (log: %s)", p.command.Name, p.cmd.ProcessState, log)
}

// Stop asks the process to end, and kills it after the grace period. A process
// that has ended already is fine.
func (p *Process) Stop(grace time.Duration) error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return p.Wait(grace)
	}
	if p.Wait(grace) == nil {
		return nil
	}
	if err := p.Kill(); err != nil {
		return fmt.Errorf("kill %s: %w", p.command.Name, err)
	}
	<-p.done
	return fmt.Errorf("stop %s: it did not end within %s and was killed", p.command.Name, grace)
}

// Wait waits until the process has ended.
func (p *Process) Wait(timeout time.Duration) error {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
		return fmt.Errorf("%s did not end within %s", p.command.Name, timeout)
	}
}

func openLog(command Command) (*os.File, error) {
	if err := os.MkdirAll(command.LogDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the log folder: %w", err)
	}
	how := os.O_TRUNC
	if command.Append {
		how = os.O_APPEND
	}
	log, err := os.OpenFile(command.LogFile(), os.O_CREATE|os.O_WRONLY|how, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", command.Name, err)
	}
	return log, nil
}

// lineLimit bounds what is kept of a line.
const lineLimit = 4096

// lastLine keeps the last line that is not empty of what is written to it.
type lastLine struct {
	mu      sync.Mutex
	line    string
	current []byte
}

// Write takes the next piece of text.
func (l *lastLine) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range text {
		switch {
		case c == '\n':
			l.end()
		case len(l.current) < lineLimit:
			l.current = append(l.current, c)
		}
	}
	return len(text), nil
}

func (l *lastLine) end() {
	if line := strings.TrimSpace(string(l.current)); line != "" {
		l.line = line
	}
	l.current = l.current[:0]
}

// String returns the last line so far.
func (l *lastLine) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end()
	return l.line
}
