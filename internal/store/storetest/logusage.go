package storetest

import (
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/encoding"
)

// logged returns the encoded size of the whole log.
func logged(t *testing.T, s store.Store) (size int) {
	t.Helper()
	for _, event := range mustRead(t, s, store.Query{Filter: store.Filter{Types: contact.LogTypes}}) {
		payload, err := encoding.Payload(&event)
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		size += len(payload)
	}
	return size
}

func testLogBytes(t *testing.T, s store.Store) {
	g := NewWithT(t)
	optIn := store.Change{List: list, Address: address(1), Apply: contact.Save{
		Address: contact.Address{Display: address(1), Key: address(1)}, Time: now, EventSource: contact.SourceAPI,
		Permission: contact.PermissionSingleOptIn, OptIn: &contact.OptIn{}, CustomFields: map[string]any{"nickname": "Max"},
	}.Decide}
	optIn.Once = &store.Once{Key: "a", Fingerprint: "x", Now: now, Until: now.Add(time.Hour)}
	first := mustChange(t, s, optIn)
	g.Expect(first.OptInStarted).To(BeTrue())
	g.Expect(first.LogBytes).To(And(BeNumerically(">", 200), Equal(logged(t, s))), "its events and its mail")
	g.Expect(mustChange(t, s, optIn).LogBytes).To(BeZero(), "a repeat appends nothing")

	before := logged(t, s)
	results, err := s.ChangeAll(t.Context(), []store.Change{
		save(address(2), "Max"), save(address(2), "Max"), remove(address(2)), remove(address(3)),
	})
	g.Expect(err).NotTo(HaveOccurred())
	sizes := make([]int, len(results))
	for i := range results {
		sizes[i] = results[i].Decision.LogBytes
	}
	g.Expect(sizes[0]).To(BeNumerically(">", 0))
	g.Expect(sizes[0] + sizes[1] + sizes[2] + sizes[3]).To(Equal(logged(t, s) - before))
	g.Expect(sizes[3]).To(BeZero(), "nobody was there")
}

func testLogUsage(t *testing.T, s store.Store) {
	g := NewWithT(t)
	day := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	g.Expect(s.AddLogBytes(t.Context(), day, nil)).To(BeEmpty())
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			_, err := s.AddLogBytes(t.Context(), day.Add(23*time.Hour), map[string]int64{"marketing": 3, "shop": 1 << 40})
			g.Expect(err).NotTo(HaveOccurred())
		})
	}
	all.Wait()
	g.Expect(s.AddLogBytes(t.Context(), day, map[string]int64{"marketing": 1})).
		To(Equal(map[string]int64{"marketing": 61, "shop": 20 << 40}))
	g.Expect(s.AddLogBytes(t.Context(), day.Add(24*time.Hour), map[string]int64{"shop": 5})).
		To(Equal(map[string]int64{"shop": 5}), "another day")
	g.Expect(s.AddLogBytes(t.Context(), day, nil)).To(BeEmpty(), "a day that is over is removed")
}
