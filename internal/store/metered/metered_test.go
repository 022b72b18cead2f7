package metered_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/metered"
	"postbus.dev/postbus/internal/store/sqlite"
	"postbus.dev/postbus/internal/store/storetest"
)

// open returns a store whose use is measured, and what a scrape shows of it.
func open(t *testing.T, path string) (opened *metered.Store, scrape func() string) {
	t.Helper()
	g := NewWithT(t)
	engine, err := sqlite.Open(t.Context(), path)
	g.Expect(err).NotTo(HaveOccurred())
	registry := prometheus.NewRegistry()
	opened, err = metered.New(t.Context(), engine, registry)
	g.Expect(err).NotTo(HaveOccurred())
	return opened, func() string {
		families, err := registry.Gather()
		g.Expect(err).NotTo(HaveOccurred())
		var text strings.Builder
		for _, family := range families {
			_, err := expfmt.MetricFamilyToText(&text, family)
			g.Expect(err).NotTo(HaveOccurred())
		}
		return text.String()
	}
}

// What is measured stays what it was.
func TestMeteredStoreIsAStore(t *testing.T) {
	storetest.Run(t, storetest.Engine{
		NewPlace: func(t *testing.T) string { return filepath.Join(t.TempDir(), "postbus.db") },
		Open: func(t *testing.T, place string) store.Store {
			opened, _ := open(t, place)
			return opened
		},
		RotateLinkKey: func(t *testing.T, place string, overlap time.Duration) error {
			_, err := sqlite.RotateLinkKey(t.Context(), place, overlap)
			return err
		},
	})
}

func TestMetrics(t *testing.T) {
	g := NewWithT(t)
	opened, scrape := open(t, filepath.Join(t.TempDir(), "postbus.db"))
	g.Expect(scrape()).To(And(
		ContainSubstring("postbus_store_up 1\n"),
		ContainSubstring("postbus_store_log_head_position 0\n"),
		Not(ContainSubstring("postbus_store_oldest_event_timestamp_seconds")),
		ContainSubstring("postbus_store_last_prune_timestamp_seconds 0\n"),
	))

	at := time.Unix(1_700_000_000, 0)
	list := contact.ListKey{Namespace: "marketing", Name: "newsletter"}
	save := store.Change{List: list, Address: "ada@example.com", Apply: func(*contact.Contact) contact.Decision {
		return contact.Decision{
			Contact: contact.Contact{Email: "ada@example.com", ExternalID: "1"}, Changed: true,
			Events: []contact.Event{{Type: contact.EventCreate, Source: contact.SourceAPI, Time: at}},
		}
	}}
	_, err := opened.Change(t.Context(), save)
	g.Expect(err).NotTo(HaveOccurred())
	save.Address = "grace@example.com"
	_, err = opened.Change(t.Context(), save)
	g.Expect(err).To(MatchError(store.ErrExternalIDTaken))
	g.Expect(scrape()).To(And(
		ContainSubstring("postbus_store_log_head_position 1\n"),
		ContainSubstring("postbus_store_oldest_event_timestamp_seconds 1.7e+09\n"),
		ContainSubstring(`postbus_store_operation_duration_seconds_count{operation="change_contact"} 2`),
		ContainSubstring(`postbus_store_errors_total{operation="change_contact"} 0`), // a refusal is none
	))

	removed, err := opened.Prune(t.Context(), time.Now())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(removed).To(BeEquivalentTo(1))
	g.Expect(scrape()).To(And(
		Not(ContainSubstring("postbus_store_last_prune_timestamp_seconds 0\n")),
		Not(ContainSubstring("postbus_store_oldest_event_timestamp_seconds")),
	))

	g.Expect(opened.Close()).To(Succeed())
	_, err = opened.Change(t.Context(), save)
	g.Expect(err).To(MatchError(store.ErrUnavailable))
	g.Expect(scrape()).To(And(
		ContainSubstring("postbus_store_up 0\n"), Not(ContainSubstring("postbus_store_log_head_position")),
		ContainSubstring(`postbus_store_errors_total{operation="change_contact"} 1`),
	))
}
