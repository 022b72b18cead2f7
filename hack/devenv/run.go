package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/gofrs/flock"
)

// console prints whole lines from any goroutine.
type console struct{ mu sync.Mutex }

func (c *console) print(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Println(line)
}

// tell returns a function that prints lines of one part.
func (c *console) tell(part string) func(line string) {
	return func(line string) { c.print(part + line) }
}

// run is the environment until the context ends.
func run(ctx context.Context, s settings) error {
	unlock, err := lock(s.dir)
	if err != nil {
		return err
	}
	defer unlock()
	out := &console{}
	e := newEnvironment(s, out.tell("devenv: "), out.tell("receiver: "), out.tell("mail: "))
	err = e.during(ctx, func(ctx context.Context) error {
		e.tell("applying " + filepath.Join(s.config, "samples"))
		if err := e.applySamples(ctx); err != nil {
			return err
		}
		out.print(e.invitation())
		<-ctx.Done()
		e.tell("stopping; what was stored stays in " + s.dir)
		return nil
	})
	if errors.Is(err, context.Canceled) {
		return nil // Ctrl-C while it started
	}
	return err
}

// lock keeps a second environment out of the folder.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder for everything: %w", err)
	}
	file := flock.New(filepath.Join(dir, "lock"))
	held, err := file.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", file.Path(), err)
	}
	if !held {
		return nil, fmt.Errorf("%s is in use by another make run: end it, or choose another folder with POSTBUS_DIR", dir)
	}
	return func() { _ = file.Unlock() }, nil // the process ends, and the lock with it
}

// invitation is what to try, in lines to paste.
func (e *environment) invitation() string {
	s := e.settings
	return strings.Join([]string{
		"",
		"Postbus is up. Add a contact, and see its events arrive here:",
		"",
		fmt.Sprintf(`  curl -sS %s/webhooks/contacts/email -d key="$(cat %s)" -d email="ada.$(date +%%s)@example.com" -d permission=2`,
			e.ingressURL(), s.keyFile),
		fmt.Sprintf(`  curl -sS %s/webhooks/contacts/email -d key="$(cat %s)" -d email="grace.$(date +%%s)@example.com" -d doi=true   # a mail with a link arrives here`,
			e.ingressURL(), s.keyFile),
		fmt.Sprintf("  KUBECONFIG=%s %s get postbus -A", s.kubeconfig, e.kubectl()),
		fmt.Sprintf(`  curl -sS -X PUT %s/answer -d '{"status":500}'   # the callback fails from now on; 200 heals it`, e.receiverURL()),
		"",
		fmt.Sprintf("Ingress %s, receiver %s (GET /received), SMTP %s, metrics http://%s/metrics, logs %s. Ctrl-C stops everything.",
			e.ingressURL(), e.receiverURL(), dialable(s.mail), dialable(s.metrics), s.logs()),
		"",
	}, "\n")
}

// kubectl is the command to type: the one on the PATH, or ours.
func (e *environment) kubectl() string {
	if _, err := exec.LookPath("kubectl"); err == nil {
		return "kubectl"
	}
	return filepath.Join(e.settings.programs, "kubectl")
}
