package process

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

const grace = 10 * time.Second

func shell(t *testing.T, script string) Command {
	t.Helper()
	return Command{Name: "child", Path: "/bin/sh", Args: []string{"-c", script}, LogDir: t.TempDir()}
}

func TestExitTellsTheLastLineOfStandardError(t *testing.T) {
	g := NewWithT(t)
	p, err := Start(shell(t, "echo other; echo first >&2; echo 'port is taken' >&2; exit 3"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(p.Done()).WithTimeout(grace).Should(BeClosed())
	g.Expect(p.Exit()).To(MatchError(HavePrefix("child: port is taken (exit status 3; log: ")))
	g.Expect(os.ReadFile(p.command.LogFile())).To(ContainSubstring("other"))
}

func TestStopKillsWhatDoesNotEnd(t *testing.T) {
	g := NewWithT(t)
	command := shell(t, `trap "" TERM; echo up; while :; do sleep 1; done`)
	p, err := Start(command)
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(func() ([]byte, error) { return os.ReadFile(command.LogFile()) }).WithTimeout(grace).
		Should(ContainSubstring("up"))
	g.Expect(p.Stop(100 * time.Millisecond)).To(MatchError(ContainSubstring("was killed")))
	g.Expect(p.Done()).To(BeClosed())
}

func TestStartSaysWhatIsMissing(t *testing.T) {
	g := NewWithT(t)
	_, err := Start(Command{Name: "etcd", Path: filepath.Join(t.TempDir(), "etcd"), LogDir: t.TempDir()})
	g.Expect(err).To(MatchError(HavePrefix("start etcd: ")))
}

// told collects what a Supervisor reports.
type told struct {
	mu    sync.Mutex
	lines []string
}

func (l *told) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
}

func (l *told) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.lines...)
}

func TestSupervisorStartsAKilledProgramAgain(t *testing.T) {
	g := NewWithT(t)
	said := &told{}
	s := &Supervisor{
		Command:      shell(t, "exec sleep 600"),
		Ready:        func(context.Context) error { return nil },
		ReadyTimeout: grace, Grace: grace, Tell: said.add,
	}
	g.Expect(s.Start(t.Context())).To(Succeed())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()

	first := s.PID()
	g.Expect(s.Kill()).To(Succeed())
	g.Eventually(s.PID).WithTimeout(grace).ShouldNot(Equal(first))
	g.Eventually(said.all).WithTimeout(grace).Should(ConsistOf(
		HavePrefix("child ended: signal: killed"), HavePrefix("child is ready again")))

	cancel()
	g.Eventually(ended).WithTimeout(grace).Should(Receive(BeNil()))
	g.Expect(s.process().Done()).To(BeClosed())
}

func TestSupervisorFailsWhenTheFirstStartDoes(t *testing.T) {
	g := NewWithT(t)
	s := &Supervisor{
		Command: shell(t, "echo 'open the store: it is damaged' >&2; exit 1"),
		Ready: func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		},
		ReadyTimeout: grace, Grace: grace, Tell: func(string) {},
	}
	g.Expect(s.Start(t.Context())).To(MatchError(HavePrefix("child: open the store: it is damaged (exit status 1")))
}
