package controllers

import (
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"postbus.dev/postbus/internal/testkit"
)

func TestMetricsOfObjects(t *testing.T) {
	g := NewWithT(t)
	namespace := plane.Namespace(t)
	expiry := metav1.NewTime(time.Now().Add(48 * time.Hour).Truncate(time.Second))
	expiring := testkit.ApiKey(namespace, "expiring", "newsletter")
	expiring.Spec.ExpiresAt = &expiry
	g.Expect(plane.Client.Create(t.Context(), expiring)).To(Succeed())
	g.Expect(plane.Client.Create(t.Context(), testkit.ApiKey(namespace, "lasting", "newsletter"))).To(Succeed())

	registry := prometheus.NewRegistry()
	scrape := func() string {
		families, err := registry.Gather()
		g.Expect(err).NotTo(HaveOccurred())
		var text strings.Builder
		for _, family := range families {
			_, err := expfmt.MetricFamilyToText(&text, family)
			g.Expect(err).NotTo(HaveOccurred())
		}
		return text.String()
	}
	running := startWith(t, openStore(t), Lease{Namespace: namespace}, func(o *Options) { o.Registerer = registry })
	key := func(name string) string {
		return `postbus_controller_apikey_expiry_timestamp_seconds{apikey="` + name + `",namespace="` + namespace + `"}`
	}
	g.Eventually(scrape, soon).Should(And(
		ContainSubstring(key("expiring")+" "+strconv.FormatFloat(float64(expiry.Unix()), 'g', -1, 64)+"\n"),
		Not(ContainSubstring(key("lasting"))),
		ContainSubstring(`postbus_controller_objects{kind="WebhookSubscription",ready="Unknown"}`),
		ContainSubstring("postbus_controller_retention_seconds 2.592e+06\n"),
		MatchRegexp(`postbus_controller_objects\{kind="ApiKey",ready="False"\} [1-9]`), // their Secrets are missing, and so is the list
	))
	g.Expect(plane.Client.Delete(t.Context(), expiring)).To(Succeed())
	g.Eventually(scrape, soon).ShouldNot(ContainSubstring(key("expiring")))
	g.Expect(running.stop()).To(Succeed())
	g.Expect(scrape()).To(BeEmpty(), "one that runs again registers its own")
}
