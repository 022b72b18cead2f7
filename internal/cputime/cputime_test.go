package cputime_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/cputime"
)

// Work counts. Waiting does not: whoever waits for a CPU pays nothing for it.
func TestOf(t *testing.T) {
	g := NewWithT(t)
	var wall time.Duration
	used := cputime.Of(func() {
		for began := time.Now(); wall < 20*time.Millisecond; {
			wall = time.Since(began)
		}
	})
	g.Expect(used).To(BeNumerically(">", 0))
	g.Expect(used).To(BeNumerically("<=", wall+time.Millisecond))

	waited := cputime.Of(func() { <-time.After(200 * time.Millisecond) })
	g.Expect(waited).To(BeNumerically("<", 100*time.Millisecond))
}
