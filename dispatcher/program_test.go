package dispatcher

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
)

// program is a receiver of callbacks that was written by another hand than ours:
// from the vendors' documents, in another language, with other libraries. It
// prints the port that it listens on, and then a line of JSON for each call.
type program[T any] struct {
	url   string
	calls chan T
}

// startProgram starts a program that ends with the test.
func startProgram[T any](t *testing.T, name string, arguments ...string) *program[T] {
	t.Helper()
	g := NewWithT(t)
	command := exec.CommandContext(t.Context(), name, arguments...)
	command.Stderr = os.Stderr
	output, err := command.StdoutPipe()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(command.Start()).To(Succeed())
	lines := bufio.NewScanner(output)
	p := &program[T]{calls: make(chan T, 100)}
	ended := make(chan struct{})
	t.Cleanup(func() {
		_ = command.Process.Kill()
		<-ended
		_ = command.Wait() // it was killed
	})
	if lines.Scan() {
		p.url = "http://127.0.0.1:" + lines.Text()
	}
	go func() {
		defer close(ended)
		for lines.Scan() {
			var call T
			if err := json.Unmarshal(lines.Bytes(), &call); err != nil {
				t.Errorf("read %q: %v", lines.Text(), err)
				return
			}
			p.calls <- call
		}
	}()
	g.Expect(p.url).NotTo(BeEmpty(), "the program listens")
	return p
}

// python and node return the interpreters of programs. Without them the test is
// skipped, but in CI it fails.
func python(t *testing.T) string { return installed(t, "python3") }

// node also needs the packages of testdata/node.
func node(t *testing.T) string {
	t.Helper()
	if packages, err := filepath.Glob("testdata/node/node_modules/*"); err != nil || len(packages) == 0 {
		skip(t, "npm ci has not run in dispatcher/testdata/node (hack/test.sh does that)")
	}
	return installed(t, "node")
}

func installed(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		skip(t, "no "+name+" is in the PATH")
	}
	return path
}

func skip(t *testing.T, missing string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(missing)
	}
	t.Skip("SKIPPED, so this is not tested against a receiver of another hand: " + missing)
}
