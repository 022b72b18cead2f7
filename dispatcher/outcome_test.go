package dispatcher

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/testkit"
)

// callOnce makes one attempt at a URL.
func callOnce(t *testing.T, url string, timeout time.Duration) outcome {
	t.Helper()
	secret := signingSecret(t)
	c := newCaller(&Options{Secrets: plane.Client, Clock: clock.RealClock{}, Version: "test", Guard: toReceivers}, &listBook{})
	t.Cleanup(c.close)
	const token = "T0K3N-in-the-path"
	o, cause := c.attempt(t.Context(), &subscription{
		key: store.SubscriptionKey{Namespace: secret.Namespace, Name: "crm"}, format: standard{},
		url: url + "/" + token, method: http.MethodPost, timeout: timeout,
		signingSecret: secretPlace{name: secret.Name, key: signature.SecretKey, version: secret.ResourceVersion},
	}, &openEvent{event: &contact.Event{ID: "evt_1", Type: contact.EventCreate}})
	NewWithT(t).Expect(fmt.Sprint(cause)).NotTo(ContainSubstring(token), "it goes to the log")
	return o
}

// signingSecret makes a Secret with a signing secret in a namespace of its own.
func signingSecret(t *testing.T) *corev1.Secret {
	t.Helper()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: plane.Namespace(t), Name: "crm-signing"},
		StringData: map[string]string{signature.SecretKey: signature.GenerateSecret()},
	}
	NewWithT(t).Expect(plane.Client.Create(t.Context(), secret)).To(Succeed())
	return secret
}

// Every status that a callback can answer with. 1xx answers are not final, so
// there is no outcome of them.
func TestEveryStatus(t *testing.T) {
	receiver := testkit.NewReceiver(t)
	c := newCaller(&Options{Clock: clock.RealClock{}, Guard: toReceivers}, &listBook{})
	for status := 200; status <= 999; status++ {
		g := NewWithT(t)
		receiver.AnswerWith(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", receiver.URL()+"/elsewhere")
			w.WriteHeader(status)
		})
		want := outcome{verdict: failed, reason: v1alpha1.FailureHTTPStatus, status: status}
		switch {
		case status < 300:
			want = outcome{verdict: delivered, status: status}
		case status < 400 && status != http.StatusNotModified:
			want = outcome{verdict: failed, reason: v1alpha1.FailureRedirect, status: status}
		}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, receiver.URL()+"/hook", nil)
		g.Expect(err).NotTo(HaveOccurred())
		o, err := c.send(request)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(o).To(Equal(want), "status %d", status)
	}
	NewWithT(t).Expect(receiver.Count()).To(Equal(800), "no redirect was followed")
}

// Everything else that a callback can do to a call.
func TestBrokenCallbacks(t *testing.T) {
	hijack := func(answer string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			connection, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				panic(err)
			}
			_, _ = io.WriteString(connection, answer)
			_ = connection.Close()
		}
	}
	reset := func(w http.ResponseWriter, _ *http.Request) {
		connection, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		_ = connection.(*net.TCPConn).SetLinger(0) // so that closing sends RST
		_ = connection.Close()
	}
	serve := func(t *testing.T, handler http.HandlerFunc) string {
		receiver := testkit.NewReceiver(t)
		receiver.AnswerWith(handler)
		return receiver.URL()
	}
	for name, row := range map[string]struct {
		url  func(t *testing.T) string
		want v1alpha1.FailureReason
	}{
		"nothing listens": {func(t *testing.T) string {
			closed := httptest.NewServer(nil)
			closed.Close()
			return closed.URL
		}, v1alpha1.FailureConnectionRefused},
		"the host has no address": {func(*testing.T) string { return "http://nowhere.invalid/" }, v1alpha1.FailureDNS},
		"it hangs": {func(t *testing.T) string {
			return serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		}, v1alpha1.FailureTimeout},
		"it closes without an answer":     {func(t *testing.T) string { return serve(t, hijack("")) }, v1alpha1.FailureConnectionBroken},
		"it closes within the answer":     {func(t *testing.T) string { return serve(t, hijack("HTTP/1.1 200 OK\r\nContent-Type: te")) }, v1alpha1.FailureConnectionBroken},
		"it resets the connection":        {func(t *testing.T) string { return serve(t, reset) }, v1alpha1.FailureConnectionBroken},
		"it answers something else":       {func(t *testing.T) string { return serve(t, hijack("SSH-2.0-OpenSSH\r\n")) }, v1alpha1.FailureNetwork},
		"it speaks HTTP where TLS is due": {func(t *testing.T) string { return "https" + testkit.NewReceiver(t).URL()[len("http"):] }, v1alpha1.FailureTLS},
		"its certificate is not trusted":  {func(t *testing.T) string { return tlsServer(t, 0).URL }, v1alpha1.FailureTLS},
		"its TLS is too old":              {func(t *testing.T) string { return tlsServer(t, tls.VersionTLS11).URL }, v1alpha1.FailureTLS},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(callOnce(t, row.url(t), 300*time.Millisecond)).To(
				Equal(outcome{verdict: failed, reason: row.want}))
		})
	}
}

func tlsServer(t *testing.T, maxVersion uint16) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: maxVersion} // what is refused must be offered
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// A body that never ends does not change the answer, nor does it hold the
// event longer than the timeout.
func TestEndlessBody(t *testing.T) {
	g := NewWithT(t)
	receiver := testkit.NewReceiver(t)
	receiver.AnswerWith(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	g.Expect(callOnce(t, receiver.URL(), 300*time.Millisecond)).To(Equal(outcome{verdict: delivered, status: 200}))
}

func TestCutOffCallSaysNothing(t *testing.T) {
	g := NewWithT(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := newCaller(&Options{Clock: clock.RealClock{}, Guard: toReceivers}, &listBook{})
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, testkit.NewReceiver(t).URL(), nil)
	g.Expect(err).NotTo(HaveOccurred())
	o, _ := c.send(request)
	g.Expect(o).To(Equal(outcome{verdict: aborted}))
}

func TestSigningSecretProblems(t *testing.T) {
	g := NewWithT(t)
	namespace := plane.Namespace(t)
	known := "whsec_not-base64-and-secret"
	g.Expect(plane.Client.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "broken"},
		StringData: map[string]string{signature.SecretKey: known},
	})).To(Succeed())
	c := newCaller(&Options{Secrets: plane.Client, Clock: clock.RealClock{}, Guard: toReceivers}, &listBook{})
	for _, name := range []string{"missing", "broken"} {
		s := &subscription{
			key: store.SubscriptionKey{Namespace: namespace, Name: "crm"}, format: standard{},
			url: "http://127.0.0.1:1/", method: http.MethodPost, timeout: time.Second,
			signingSecret: secretPlace{name: name, key: signature.SecretKey},
		}
		e := &openEvent{event: &contact.Event{ID: "evt_1", Type: contact.EventCreate}}
		o, err := c.attempt(t.Context(), s, e)
		g.Expect(o).To(Equal(outcome{verdict: hindered, reason: v1alpha1.FailureSigning}), name)
		g.Expect(err).To(MatchError(ContainSubstring(fmt.Sprintf("%s/%s", namespace, name))))
		g.Expect(err.Error()).NotTo(ContainSubstring(known))
	}
}
