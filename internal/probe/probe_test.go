package probe_test

import (
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"testing"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"

	"postbus.dev/postbus/internal/probe"
)

func TestHandler(t *testing.T) {
	g := NewWithT(t)
	metrics := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "postbus_test_total"})
	metrics.MustRegister(counter)
	var problem error
	server := httptest.NewServer(probe.NewHandler(probe.Options{
		Metrics: metrics,
		Ready:   func(context.Context) error { return problem },
	}))
	defer server.Close()
	get := func(path string) (status int, body string) {
		response, err := server.Client().Get(server.URL + path)
		g.Expect(err).NotTo(HaveOccurred())
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		g.Expect(err).NotTo(HaveOccurred())
		return response.StatusCode, string(text)
	}

	status, _ := get("/healthz")
	g.Expect(status).To(Equal(200))
	status, _ = get("/readyz")
	g.Expect(status).To(Equal(200))
	problem = errors.New("caches are not synced")
	status, body := get("/readyz")
	g.Expect(status).To(Equal(503))
	g.Expect(body).To(ContainSubstring("caches are not synced"))
	status, body = get("/metrics")
	g.Expect(status).To(Equal(200))
	g.Expect(body).To(ContainSubstring("postbus_test_total 0"))
	status, _ = get("/debug/pprof/")
	g.Expect(status).To(Equal(404))
}

func TestProfiling(t *testing.T) {
	server := httptest.NewServer(probe.NewHandler(probe.Options{Metrics: prometheus.NewRegistry(), Profiling: true}))
	defer server.Close()
	for name, path := range map[string]string{
		"what there is": "", "allocations": "allocs", "processor time": "profile?seconds=1", "what happens": "trace?seconds=0.1",
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			response, err := server.Client().Get(server.URL + "/debug/pprof/" + path)
			g.Expect(err).NotTo(HaveOccurred())
			defer response.Body.Close()
			g.Expect(response.StatusCode).To(Equal(200))
			body, err := io.ReadAll(response.Body)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(body).NotTo(BeEmpty())
		})
	}
}

func TestTakenAddress(t *testing.T) {
	g := NewWithT(t)
	taken := httptest.NewServer(nil)
	defer taken.Close()
	address := taken.Listener.Addr().String()
	err := probe.Run(t.Context(), probe.Options{Address: address, Metrics: prometheus.NewRegistry()})
	g.Expect(err).To(MatchError(ContainSubstring(address)))
}
