package sqlite_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/sqlite"
)

// BenchmarkAddAttempts adds five attempts to each of 50 subscriptions that have
// all that is kept, which is what a busy dispatcher does in one commit.
func BenchmarkAddAttempts(b *testing.B) {
	g := NewWithT(b)
	opened, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "postbus.db"))
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(opened.Close()).To(Succeed()) }()
	attempt := store.Attempt{
		Time: time.Now().UTC(), EventID: store.EventID(1234), EventType: contact.EventSubscribe, Number: 1,
		Outcome: "Delivered", HTTPStatus: 200, Duration: 12345678,
	}
	var logs []store.AttemptLog
	for n := range 50 {
		key := store.SubscriptionKey{Namespace: "marketing", Name: fmt.Sprint(n)}
		g.Expect(opened.OpenDelivery(b.Context(), key)).To(Succeed())
		row, err := opened.LoadDelivery(b.Context(), key)
		g.Expect(err).NotTo(HaveOccurred())
		log := store.AttemptLog{Key: key, Token: row.Token}
		for range store.MaxAttempts {
			log.Attempts = append(log.Attempts, attempt)
		}
		logs = append(logs, log)
	}
	g.Expect(opened.AddAttempts(b.Context(), logs)).To(Succeed())
	for i := range logs {
		logs[i].Attempts = logs[i].Attempts[:5]
	}
	for b.Loop() {
		g.Expect(opened.AddAttempts(b.Context(), logs)).To(Succeed())
	}
}
