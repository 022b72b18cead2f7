package ingress_test

import (
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/link"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/testkit"
)

// deactivatedAt has a part below the second, as it has in life.
var deactivatedAt = now.Add(-time.Hour + 123456789*time.Nanosecond)

// deactivated stores a subscription whose callback was deactivated then, with three
// events that are kept and two that are lost.
func (f *fixture) deactivated(t *testing.T, name string) store.SubscriptionKey {
	t.Helper()
	g := NewWithT(t)
	key := store.SubscriptionKey{Namespace: f.namespace, Name: name}
	g.Expect(f.store.OpenDelivery(t.Context(), key)).To(Succeed())
	f.change(t, key, func(delivery *store.Delivery) {
		delivery.Open = []store.OpenEvent{{Position: 1, Attempts: 6}}
		delivery.Health = store.Health{
			FailingSince: deactivatedAt.Add(-25 * time.Minute),
			LastFailure:  &store.Failure{Time: deactivatedAt, Reason: v1alpha1.FailureHTTPStatus, HTTPStatus: 503, Attempts: 6},
		}
		delivery.Life.Deactivation = &store.Deactivation{At: deactivatedAt, Until: deactivatedAt.Add(120 * time.Hour), Lost: 4}
		delivery.Life.Owed.Events = 2
	})
	return key
}

// change changes a row as the dispatcher does.
func (f *fixture) change(t *testing.T, key store.SubscriptionKey, edit func(*store.Delivery)) {
	t.Helper()
	g := NewWithT(t)
	delivery, err := f.store.LoadDelivery(t.Context(), key)
	g.Expect(err).NotTo(HaveOccurred())
	edit(&delivery)
	g.Expect(f.store.Checkpoint(t.Context(), []store.Progress{{Delivery: delivery}})).To(BeEmpty())
}

// reactivation returns the path of the link that ends a deactivation.
func (f *fixture) reactivation(key store.SubscriptionKey, at time.Time) string {
	base := &url.URL{Scheme: "http", Host: "x"}
	made := link.Reactivation{Namespace: key.Namespace, Name: key.Name, DeactivatedAt: at}
	return strings.TrimPrefix(f.keys.ReactivationURL(base, made), base.String())
}

func (f *fixture) requests(t *testing.T, key store.SubscriptionKey) []store.Request {
	t.Helper()
	requests, err := f.store.LoadRequests(t.Context(), key)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return requests
}

func TestReactivationIsAskedForByAButton(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	key := f.deactivated(t, "crm")
	path := f.reactivation(key, deactivatedAt)
	shown := f.open(t, path, "en")
	expectPage(t, shown, http.StatusOK, "reactivate")
	for _, told := range []string{
		"<strong>crm</strong>", f.namespace, "2026-11-22 08:35 UTC", "2026-11-22 09:00 UTC", "HTTPStatus 503", "2026-11-27 09:00 UTC",
		"<dd>3, and", "<dd>4</dd>", "send the kept events (3)</button>", "drop the kept events (3)</button>",
	} {
		g.Expect(shown.body).To(ContainSubstring(told))
	}
	expectPage(t, f.open(t, path, "de"), http.StatusOK, "reactivate")
	g.Expect(f.send(t, request{method: http.MethodHead, path: path}).status).To(Equal(http.StatusOK))
	g.Expect(f.requests(t, key)).To(BeEmpty(), "looking changes nothing")

	for _, wrong := range []url.Values{nil, {"replay": {"yes"}}, {"replay": {"true", "false"}}, {"other": {"true"}}} {
		expectPage(t, f.press(t, path, wrong), http.StatusBadRequest, "error")
	}
	g.Expect(f.requests(t, key)).To(BeEmpty(), "which of the two must be known")

	asked := f.press(t, path, url.Values{"replay": {"true"}})
	expectPage(t, asked, http.StatusOK, "reactivate asked")
	g.Expect(asked.body).To(ContainSubstring("are sent, in order"))
	put := f.requests(t, key)
	g.Expect(put).To(ConsistOf(And(HaveField("Type", store.RequestReactivateByLink), HaveField("Replay", true),
		HaveField("DeactivatedAt", deactivatedAt), HaveField("Value", ContainSubstring("2026-11-22T09:00:00.123456789Z")))))
	expectPage(t, f.press(t, path, url.Values{"replay": {"true"}}), http.StatusOK, "reactivate asked")
	g.Expect(f.requests(t, key)).To(Equal(put), "pressed twice it is one request")
	dropped := f.press(t, path, url.Values{"replay": {"false"}})
	expectPage(t, dropped, http.StatusOK, "reactivate asked")
	g.Expect(dropped.body).To(ContainSubstring("are dropped"))
	g.Expect(f.requests(t, key)).To(ConsistOf(HaveField("Replay", false)), "who presses the other button first means that")
}

func TestReactivationLinksThatDoNothing(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	ada := f.subscriber(t, "ada@example.com")
	crm, again, active := f.deactivated(t, "crm"), f.deactivated(t, "again"), f.deactivated(t, "active")
	f.change(t, again, func(d *store.Delivery) { d.Life.Deactivation.At = deactivatedAt.Add(time.Nanosecond) })
	f.change(t, active, func(d *store.Delivery) { d.Life.Deactivation = nil })
	good := f.reactivation(crm, deactivatedAt)
	reactivate := link.Reactivate.Path()
	for name, row := range map[string]struct {
		path   string
		status int
		kind   string
	}{
		"reactivated meanwhile":        {f.reactivation(active, deactivatedAt), http.StatusGone, "reactivate outdated"},
		"deactivated again":            {f.reactivation(again, deactivatedAt), http.StatusGone, "reactivate outdated"},
		"a subscription that is gone":  {f.reactivation(store.SubscriptionKey{Namespace: f.namespace, Name: "gone"}, deactivatedAt), http.StatusGone, "reactivate outdated"},
		"expired":                      {f.reactivation(crm, now.Add(-link.ReactivationTTL)), http.StatusGone, "expired"},
		"damaged":                      {good[:len(good)-1], http.StatusNotFound, "invalid"},
		"no token":                     {reactivate, http.StatusNotFound, "invalid"},
		"a path behind it":             {good + "/x", http.StatusNotFound, "invalid"},
		"a link to unsubscribe":        {reactivate + strings.TrimPrefix(f.link(link.Unsubscribe, ada), link.Unsubscribe.Path()), http.StatusNotFound, "invalid"},
		"a link to confirm":            {reactivate + strings.TrimPrefix(f.link(link.Confirm, ada), link.Confirm.Path()), http.StatusNotFound, "invalid"},
		"its token, to unsubscribe":    {link.Unsubscribe.Path() + strings.TrimPrefix(good, reactivate), http.StatusNotFound, "invalid"},
		"its token, to show a profile": {link.Profile.Path() + strings.TrimPrefix(good, reactivate), http.StatusNotFound, "invalid"},
		"another store's link":         {reactivate + link.NewRing(link.Key{Secret: "another key"}).Token(link.Link{Purpose: link.Reactivate, List: f.list(), Expires: now.Add(time.Hour)}), http.StatusNotFound, "invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, language := range []string{"en", "de"} {
				expectPage(t, f.open(t, row.path, language), row.status, row.kind)
			}
			expectPage(t, f.press(t, row.path, url.Values{"replay": {"true"}}), row.status, row.kind)
			for _, key := range []store.SubscriptionKey{crm, again, active} {
				NewWithT(t).Expect(f.requests(t, key)).To(BeEmpty())
			}
		})
	}
	for _, refused := range []request{
		{method: http.MethodDelete, path: good}, {path: good, body: "{}", contentType: "application/json"},
	} {
		g.Expect(f.send(t, refused).status).To(BeElementOf(http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType))
	}
	g.Expect(f.requests(t, crm)).To(BeEmpty())
	g.Expect(f.logs.String()).To(And(ContainSubstring("/reactivate/{token}"), Not(ContainSubstring(strings.TrimPrefix(good, reactivate)))))
	f.closeStore(t)
	expectPage(t, f.open(t, good, "en"), http.StatusServiceUnavailable, "later")
	expectPage(t, f.press(t, good, url.Values{"replay": {"true"}}), http.StatusServiceUnavailable, "later")
}

// With the keyboard, on a phone, behind a proxy that serves ingress below a path;
// and in every look that there is.
func TestReactivationInABrowser(t *testing.T) {
	g := NewWithT(t)
	p := photographer{folder: shotFolder(t), Browser: testkit.NewBrowser(t)}
	f := start(t)
	key := f.deactivated(t, "crm-with-a-name-that-is-as-long-as-names-of-objects-become-in-life")
	path := f.reactivation(key, deactivatedAt)
	base := f.behindPrefix(t)
	for kind, at := range map[string]time.Time{"reactivate": deactivatedAt, "reactivate-outdated": now, "reactivate-expired": now.Add(-link.ReactivationTTL)} {
		p.series(t, kind, func(string) { p.Open(t, base+f.reactivation(key, at)) })
	}
	p.Resize(t, 360, 740)
	p.Speak(t, "en")
	p.Open(t, base+path)
	g.Expect(f.requests(t, key)).To(BeEmpty())
	p.Press(t, "Reactivate and drop the kept events (3)")
	expectHeading(t, p.Browser, titles["reactivate asked"][0])
	expectFits(t, p.Browser)
	p.Photograph(t, filepath.Join(p.folder, "reactivate-asked.png"))
	g.Expect(f.requests(t, key)).To(ConsistOf(HaveField("Replay", false)))
	p.Open(t, base+path)
	p.Press(t, "Reactivate and send the kept events (3)")
	expectHeading(t, p.Browser, titles["reactivate asked"][0])
	g.Expect(f.requests(t, key)).To(ConsistOf(HaveField("Replay", true)))
	for _, requested := range p.Requested() {
		_, asked, _ := strings.Cut(requested, " ")
		g.Expect(asked).To(HavePrefix(base+"/"), "nothing from elsewhere")
	}
}
