package dispatcher

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
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

// callOnce makes one attempt at a URL, as options say beside what every call needs.
func callOnce(t *testing.T, options Options, url string, timeout time.Duration) outcome {
	t.Helper()
	options.Secrets, options.Version = plane.Client, "test"
	return attemptAt(t, newTestCaller(t, options), signingSecret(t), url, timeout)
}

// attemptAt makes an attempt at a URL.
func attemptAt(t *testing.T, c *caller, secret *corev1.Secret, url string, timeout time.Duration) outcome {
	t.Helper()
	const token = "T0K3N-in-the-path"
	o, cause := c.attempt(t.Context(), &subscription{
		key: store.SubscriptionKey{Namespace: secret.Namespace, Name: "crm"}, format: standard{},
		url: url + "/" + token, method: http.MethodPost, timeout: timeout,
		signingSecret: secretPlace{name: secret.Name, key: signature.SecretKey, version: secret.ResourceVersion},
	}, call{event: &contact.Event{ID: "evt_1", Type: contact.EventCreate}})
	NewWithT(t).Expect(fmt.Sprint(cause)).NotTo(ContainSubstring(token), "it goes to the log")
	return o
}

// signingSecret makes a Secret with a signing secret in a namespace of its own.
func signingSecret(t *testing.T) *corev1.Secret {
	t.Helper()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: plane.Namespace(t), Name: "crm-signing"},
		StringData: map[string]string{signature.SecretKey: signature.GenerateSecret(v1alpha1.SigningHMAC)},
	}
	NewWithT(t).Expect(plane.Client.Create(t.Context(), secret)).To(Succeed())
	return secret
}

// ofEveryStatus is the outcome of a status, written once more.
func ofEveryStatus(status int) outcome {
	switch {
	case status >= 200 && status < 300:
		return outcome{verdict: delivered, status: status}
	case status == 410:
		return outcome{verdict: gone, reason: v1alpha1.FailureHTTPStatus, status: status}
	case status >= 300 && status < 400 && status != 304:
		return outcome{verdict: failed, reason: v1alpha1.FailureRedirect, status: status}
	default:
		return outcome{verdict: failed, reason: v1alpha1.FailureHTTPStatus, status: status}
	}
}

// Every status of three digits that an answer can end with, over a real connection
// of either protocol. Statuses end at 599, but nothing keeps a receiver from more.
func TestEveryStatus(t *testing.T) {
	for protocol, major := range map[string]int{"HTTP/1.1": 1, "HTTP/2": 2} {
		t.Run(protocol, func(t *testing.T) {
			authority := testkit.NewAuthority(t)
			var status, calls int
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				NewWithT(t).Expect(r.ProtoMajor).To(Equal(major))
				calls++
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(status)
			}))
			server.EnableHTTP2 = major == 2
			server.TLS = &tls.Config{Certificates: []tls.Certificate{authority.IssuePair(t, nil)}, MinVersion: tls.VersionTLS12}
			server.StartTLS()
			t.Cleanup(server.Close)
			c := newTestCaller(t, Options{Guard: toReceivers, RootCAs: authority.Pool()})
			for status = 200; status <= 999; status++ {
				o, err := callURL(t, c, server.URL+"/hook")
				NewWithT(t).Expect(err).NotTo(HaveOccurred())
				NewWithT(t).Expect(o).To(Equal(ofEveryStatus(status)), "status %d", status)
			}
			NewWithT(t).Expect(calls).To(Equal(800), "no redirect was followed")
		})
	}
}

// A status below 200 is not an answer's last, but 101: nobody asked to switch
// to another protocol.
func TestEveryInformationalStatus(t *testing.T) {
	receiver := testkit.NewReceiver(t)
	c := newTestCaller(t, Options{Guard: toReceivers})
	for status := 100; status <= 199; status++ {
		for then, want := range map[string]outcome{
			"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n":              {verdict: delivered, status: 204},
			"HTTP/1.1 500 Oh\r\nConnection: close\r\nContent-Length: 0\r\n\r\n": {verdict: failed, reason: v1alpha1.FailureHTTPStatus, status: 500},
			"": {verdict: failed, reason: v1alpha1.FailureConnectionBroken},
			"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n": {verdict: delivered, status: 200},
		} {
			after := holdIt
			if then == "" {
				after = closeIt
			}
			if status == http.StatusSwitchingProtocols {
				want = outcome{verdict: failed, reason: v1alpha1.FailureHTTPStatus, status: status}
			}
			receiver.AnswerWith(raw(fmt.Sprintf("HTTP/1.1 %d Info\r\n\r\n", status)+then, after))
			o, err := callURL(t, c, receiver.URL())
			NewWithT(t).Expect(o).To(Equal(want), "status %d, then %q: %v", status, then, err)
		}
	}
}

// raw answers with bytes as they are, and then does something to the connection.
func raw(answer string, then func(net.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		connection, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(connection, answer)
		then(connection)
	}
}

func closeIt(connection net.Conn) { _ = connection.Close() }

// resetIt closes a connection by RST.
func resetIt(connection net.Conn) {
	_ = connection.(*net.TCPConn).SetLinger(0)
	_ = connection.Close()
}

// holdIt keeps a connection open until the caller has closed it.
func holdIt(connection net.Conn) {
	_, _ = io.Copy(io.Discard, connection)
	_ = connection.Close()
}

// repeat writes a text again and again, with a pause between, until the caller
// has closed the connection.
func repeat(text string, pause time.Duration) func(net.Conn) {
	return func(connection net.Conn) {
		ticker := time.NewTicker(pause)
		defer ticker.Stop()
		for range ticker.C {
			if _, err := io.WriteString(connection, text); err != nil {
				_ = connection.Close()
				return
			}
		}
	}
}

// brokenCall is a callback that is broken and what becomes of a call of it.
type brokenCall struct {
	answer http.HandlerFunc
	want   outcome
}

func because(reason v1alpha1.FailureReason) outcome { return outcome{verdict: failed, reason: reason} }

const (
	slowly     = 5 * time.Millisecond
	atOnce     = time.Microsecond
	okWithBody = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
	okChunked  = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	okEndless  = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
)

// What callbacks can do to a call once they are connected. None holds it longer
// than its timeout.
var brokenCalls = map[string]brokenCall{
	"hangs":                                {raw("", holdIt), because(v1alpha1.FailureTimeout)},
	"hangs in the status line":             {raw("HTTP/1.1 20", holdIt), because(v1alpha1.FailureTimeout)},
	"hangs in the headers":                 {raw("HTTP/1.1 200 OK\r\nContent-Type: te", holdIt), because(v1alpha1.FailureTimeout)},
	"hangs after an informational answer":  {raw("HTTP/1.1 102 Processing\r\n\r\n", holdIt), because(v1alpha1.FailureTimeout)},
	"sends a byte of headers now and then": {raw("HTTP/1.1 200 OK\r\nX-Long: ", repeat("x", slowly)), because(v1alpha1.FailureTimeout)},
	"sends informational answers for ever": {raw("", repeat("HTTP/1.1 102 Processing\r\n\r\n", slowly)), because(v1alpha1.FailureTimeout)},
	"switches the protocol and hangs":      {raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", holdIt), outcome{verdict: failed, reason: v1alpha1.FailureHTTPStatus, status: 101}},

	"closes without an answer":        {raw("", closeIt), because(v1alpha1.FailureConnectionBroken)},
	"closes within the status line":   {raw("HTTP/1.1 20", closeIt), because(v1alpha1.FailureNetwork)},
	"closes within the headers":       {raw("HTTP/1.1 200 OK\r\nContent-Type: te", closeIt), because(v1alpha1.FailureConnectionBroken)},
	"resets the connection":           {raw("", resetIt), because(v1alpha1.FailureConnectionBroken)},
	"resets it within the headers":    {raw("HTTP/1.1 200 OK\r\n", resetIt), because(v1alpha1.FailureConnectionBroken)},
	"answers something else":          {raw("SSH-2.0-OpenSSH\r\n", closeIt), because(v1alpha1.FailureNetwork)},
	"has a status of two digits":      {raw("HTTP/1.1 20 OK\r\n\r\n", closeIt), because(v1alpha1.FailureNetwork)},
	"has a status of four digits":     {raw("HTTP/1.1 2000 OK\r\n\r\n", closeIt), because(v1alpha1.FailureNetwork)},
	"has a status that is no number":  {raw("HTTP/1.1 2x0 OK\r\n\r\n", closeIt), because(v1alpha1.FailureNetwork)},
	"has a status below 100":          {raw("HTTP/1.1 099 Low\r\n\r\n", closeIt), outcome{verdict: failed, reason: v1alpha1.FailureHTTPStatus, status: 99}},
	"has headers that never end":      {raw("HTTP/1.1 200 OK\r\n", repeat("X-Long: "+strings.Repeat("x", 1<<16)+"\r\n", atOnce)), because(v1alpha1.FailureNetwork)},
	"has headers that are none":       {raw("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", closeIt), because(v1alpha1.FailureNetwork)},
	"has two lengths":                 {raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", closeIt), because(v1alpha1.FailureNetwork)},
	"speaks TLS where there is none":  {raw("\x15\x03\x01\x00\x02\x02\x50", closeIt), because(v1alpha1.FailureNetwork)},
	"answers in a protocol of 1 line": {raw("OK\r\n", closeIt), because(v1alpha1.FailureNetwork)},

	// The status has decided, whatever becomes of the body.
	"hangs before the body":            {raw(okWithBody, holdIt), outcome{verdict: delivered, status: 200}},
	"hangs in the body":                {raw(okWithBody+"half", holdIt), outcome{verdict: delivered, status: 200}},
	"closes within the body":           {raw(okWithBody+"half", closeIt), outcome{verdict: delivered, status: 200}},
	"resets it within the body":        {raw(okWithBody+"half", resetIt), outcome{verdict: delivered, status: 200}},
	"sends a byte of it now and then":  {raw(okEndless, repeat("x", slowly)), outcome{verdict: delivered, status: 200}},
	"sends a chunk of it now and then": {raw(okChunked, repeat("1\r\nx\r\n", slowly)), outcome{verdict: delivered, status: 200}},
	"sends a body that never ends":     {raw(okEndless, repeat(strings.Repeat("x", 1<<16), atOnce)), outcome{verdict: delivered, status: 200}},
	"sends chunks that are none":       {raw(okChunked+"nonsense", closeIt), outcome{verdict: delivered, status: 200}},
	"fails and hangs in the body":      {raw("HTTP/1.1 500 Oh\r\nContent-Length: 9\r\n\r\n", holdIt), outcome{verdict: failed, reason: v1alpha1.FailureHTTPStatus, status: 500}},
}

func TestBrokenCallbacks(t *testing.T) {
	for name, row := range brokenCalls {
		t.Run("it "+name, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(patiently(row.want, func(timeout time.Duration) outcome {
				receiver := testkit.NewReceiver(t)
				receiver.AnswerWith(row.answer)
				began := time.Now()
				got := callOnce(t, Options{Guard: toReceivers}, receiver.URL(), timeout)
				g.Expect(time.Since(began)).To(BeNumerically("<", timeout+patience), "the rest is for a slow machine")
				g.Expect(receiver.Count()).To(BeNumerically("<=", 1))
				return got
			})).To(Equal(row.want))
		})
	}
}

// patiently makes a call that may hang until its timeout, and returns how it ended.
// Where that is not as wanted it is made again with a longer one: on a machine that
// stands still meanwhile any call exceeds a short timeout.
func patiently(want outcome, call func(timeout time.Duration) outcome) (got outcome) {
	for _, timeout := range []time.Duration{300 * time.Millisecond, 3 * time.Second, patience} {
		if got = call(timeout); got == want {
			break
		}
	}
	return got
}

// What can't be read of an answer may be the call, which the callback repeats.
func TestAnswersAreNotQuoted(t *testing.T) {
	for name, answer := range map[string]string{
		"no HTTP":         secretValue + "\r\n",
		"the call itself": "POST /" + secretValue + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"the version":     "HTTP/" + secretValue + " 200 OK\r\n\r\n",
		"the status":      "HTTP/1.1 " + secretValue + "\r\n\r\n",
		"a header":        "HTTP/1.1 200 OK\r\n" + secretValue + "\r\n\r\n",
		"a length":        "HTTP/1.1 200 OK\r\nContent-Length: " + secretValue + "\r\n\r\n",
		"an encoding":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + secretValue + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			receiver := testkit.NewReceiver(t)
			receiver.AnswerWith(raw(answer, closeIt))
			o, err := callURL(t, newTestCaller(t, Options{Guard: toReceivers}), receiver.URL())
			NewWithT(t).Expect(o).To(Equal(because(v1alpha1.FailureNetwork)))
			NewWithT(t).Expect(err).To(MatchError(errGarbledAnswer))
		})
	}
}

func TestNothingListens(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	NewWithT(t).Expect(callOnce(t, Options{Guard: toReceivers}, closed.URL, patience)).To(Equal(because(v1alpha1.FailureConnectionRefused)))
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"1":                              time.Second,
		"120":                            2 * time.Minute,
		"0":                              time.Second,
		"0000000000000000000000030":      30 * time.Second,
		"86400":                          24 * time.Hour,
		"86401":                          24 * time.Hour,
		"99999999999999999999999":        24 * time.Hour,
		"Sun, 22 Nov 2026 09:01:30 GMT":  90 * time.Second,
		"Sunday, 22-Nov-26 09:01:30 GMT": 90 * time.Second, // RFC 850
		"Sun Nov 22 09:01:30 2026":       90 * time.Second, // asctime
		"Sun, 22 Nov 2026 08:00:00 GMT":  time.Second,
		"Sun, 22 Nov 2027 09:00:00 GMT":  24 * time.Hour,
		"Sun, 22 Nov 9999 09:00:00 GMT":  24 * time.Hour,
		"":                               0,
		"-1":                             0,
		"+1":                             0,
		"1.5":                            0,
		"1s":                             0,
		"1, 2":                           0,
		"soon":                           0,
		"2026-11-22T09:01:30Z":           0,
	} {
		NewWithT(t).Expect(retryAfter(text, now)).To(Equal(want), "%q", text)
	}
}

func TestRetryAfterCountsForTwoStatuses(t *testing.T) {
	receiver := testkit.NewReceiver(t)
	for status, want := range map[int]time.Duration{200: 0, 301: 0, 410: 0, 429: 7 * time.Second, 500: 0, 503: 7 * time.Second} {
		receiver.AnswerWith(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
		})
		NewWithT(t).Expect(callOnce(t, Options{Guard: toReceivers}, receiver.URL(), patience).retryAfter).To(Equal(want), "status %d", status)
	}
}

func TestCutOffCallSaysNothing(t *testing.T) {
	g := NewWithT(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := newCaller(&Options{Clock: clock.RealClock{}, Guard: toReceivers}, &listBook{})
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, testkit.NewReceiver(t).URL(), nil)
	g.Expect(err).NotTo(HaveOccurred())
	client, err := c.clients.of(ctx, &subscription{})
	g.Expect(err).NotTo(HaveOccurred())
	o, _ := c.send(client, request)
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
		e := call{event: &contact.Event{ID: "evt_1", Type: contact.EventCreate}}
		o, err := c.attempt(t.Context(), checked(t, s), e)
		g.Expect(o).To(Equal(outcome{verdict: hindered, reason: v1alpha1.FailureSigning}), name)
		g.Expect(err).To(MatchError(ContainSubstring(fmt.Sprintf("%s/%s", namespace, name))))
		g.Expect(err.Error()).NotTo(ContainSubstring(known))
	}
}
