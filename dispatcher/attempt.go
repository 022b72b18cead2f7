package dispatcher

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/signature"
)

const (
	headerAttempt = "postbus-attempt"
	// maxAnswer is how much of an answer's body is read, so that its
	// connection can be used again. Nobody looks at it.
	maxAnswer = 16 << 10
	// secretTimeout bounds reading the signing secret.
	secretTimeout = 5 * time.Second
)

// caller makes the calls of one subscription. It has connections of its own,
// so a callback that hangs takes none from another.
type caller struct {
	client    *http.Client
	clock     clock.PassiveClock
	lists     *listBook
	secrets   client.Reader
	userAgent string

	mu sync.Mutex
	// signing is what was read from secretName in secretVersion.
	signing                   signature.Secret
	secretName, secretVersion string
}

// maxConnections is how many idle connections a caller keeps: as many as the
// largest rateLimit.maxInFlight can use.
const maxConnections = 1000

func newCaller(options *Options, lists *listBook) *caller {
	return &caller{
		client: &http.Client{
			Transport: &http.Transport{
				DialContext:         (&net.Dialer{Timeout: defaultTimeout, KeepAlive: 30 * time.Second}).DialContext,
				TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: options.RootCAs},
				ForceAttemptHTTP2:   true,
				DisableCompression:  true, // nobody looks at the answer's body
				MaxIdleConnsPerHost: maxConnections,
				IdleConnTimeout:     90 * time.Second,
			},
			// A redirect is an answer like any other, and not success.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		clock:     options.Clock,
		lists:     lists,
		secrets:   options.Secrets,
		userAgent: "postbus/" + options.Version,
	}
}

// attempt implements deliverer. The error never shows the URL, whose path may
// hold a secret.
func (c *caller) attempt(ctx context.Context, s *subscription, e *openEvent) (outcome, error) {
	body, contentType, err := s.format.render(e.event, c.lists.of(e.event.List))
	if err != nil {
		return outcome{verdict: failed, reason: v1alpha1.FailureRender}, err
	}
	signing, err := c.signingSecret(ctx, s)
	if ctx.Err() != nil {
		return outcome{verdict: aborted}, ctx.Err()
	}
	if err != nil {
		return outcome{verdict: failed, reason: v1alpha1.FailureSigning}, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return outcome{verdict: failed, reason: v1alpha1.FailureNetwork}, errors.New("the URL can't be called")
	}
	timestamp, signed := signing.Sign(e.event.ID, c.clock.Now(), body)
	request.Header.Set("Content-Type", contentType)
	request.Header.Set("User-Agent", c.userAgent)
	request.Header.Set(signature.HeaderID, e.event.ID)
	request.Header.Set(signature.HeaderTimestamp, timestamp)
	request.Header.Set(signature.HeaderSignature, signed)
	request.Header.Set(headerAttempt, strconv.Itoa(e.attempts+1))
	return c.send(request)
}

func (c *caller) send(request *http.Request) (outcome, error) {
	response, err := c.client.Do(request)
	if err != nil {
		var inURL *url.Error
		if errors.As(err, &inURL) {
			err = inURL.Err
		}
		return ofError(err), err
	}
	// The status has decided; the body matters to the connection alone.
	_, _ = io.CopyN(io.Discard, response.Body, maxAnswer)
	_ = response.Body.Close()
	return ofStatus(response.StatusCode), nil
}

// signingSecret returns the signing secret, and reads it when the controller
// has seen it change. The dispatcher may get Secrets, not list or watch them.
func (c *caller) signingSecret(ctx context.Context, s *subscription) (signature.Secret, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.secretName == s.secretName && c.secretVersion == s.secretVersion && c.secretName != "" {
		return c.signing, nil
	}
	ctx, cancel := context.WithTimeout(ctx, secretTimeout)
	defer cancel()
	var object corev1.Secret
	name := types.NamespacedName{Namespace: s.key.Namespace, Name: s.secretName}
	if err := c.secrets.Get(ctx, name, &object); err != nil {
		return signature.Secret{}, fmt.Errorf("read the signing secret %s: %w", name, err)
	}
	parsed, err := signature.ParseSecret(string(object.Data[signature.SecretKey]))
	if err != nil {
		return signature.Secret{}, fmt.Errorf("parse the signing secret %s: %w", name, err)
	}
	c.signing, c.secretName, c.secretVersion = parsed, s.secretName, s.secretVersion
	return parsed, nil
}

// close frees the connections that are not in use.
func (c *caller) close() { c.client.CloseIdleConnections() }
