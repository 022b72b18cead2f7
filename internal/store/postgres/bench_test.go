package postgres

import (
	"sync/atomic"
	"testing"

	. "github.com/onsi/gomega"
)

// BenchmarkChange has 64 callers make new contacts. The server does not wait for
// its disk.
func BenchmarkChange(b *testing.B) {
	g := NewWithT(b)
	file := writeDSN(b, server.Database(b))
	prepare(b, file)
	s, err := Open(b.Context(), Options{DSNFile: file})
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(s.Close()).To(Succeed()) }()
	var next atomic.Int64
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Change(b.Context(), save(address(0, int(next.Add(1))))); err != nil {
				b.Error(err)
			}
		}
	})
}
