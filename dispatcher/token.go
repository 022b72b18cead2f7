package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"k8s.io/utils/clock"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/callback"
)

// tokenSlack is how long before its end a token is not used any more, so that it
// does not end on its way.
const tokenSlack = 10 * time.Second

// grant says where tokens come from. It is never changed, only replaced.
type grant struct {
	tokenURL string
	scopes   []string
	// client is the Secret with the client's credentials.
	client secretPlace
}

func newGrant(object *v1alpha1.WebhookSubscription) *grant {
	spec := object.Spec.Callback.OAuth2
	if spec.TokenURL == "" {
		return nil
	}
	return &grant{
		tokenURL: spec.TokenURL, scopes: spec.Scopes,
		client: placeOf(object, v1alpha1.SecretKeyReference{Name: spec.ClientSecretRef.Name}),
	}
}

// asks reports whether tokens of this grant are those that another one asks for.
func (g *grant) asks(other *grant) bool {
	return g != nil && g.tokenURL == other.tokenURL && slices.Equal(g.scopes, other.scopes)
}

// credentials are those of an OAuth2 client.
type credentials struct{ id, secret string }

func parseCredentials(data map[string][]byte, _ string) (credentials, error) {
	id, err := callback.ParseCredential(data[callback.ClientIDKey])
	if err != nil {
		return credentials{}, fmt.Errorf("%s %w", callback.ClientIDKey, err)
	}
	secret, err := callback.ParseCredential(data[callback.ClientSecretKey])
	if err != nil {
		return credentials{}, fmt.Errorf("%s %w", callback.ClientSecretKey, err)
	}
	return credentials{id: id, secret: secret}, nil
}

// tokens has the token that the calls of a subscription carry. It is fetched when
// it is first needed, when it has expired, and when a callback has rejected it.
type tokens struct {
	clock  clock.PassiveClock
	client keptSecret[credentials]
	// turn is held by who looks at what follows, and fetches.
	turn chan struct{}
	of   *grant
	// config finds out once in which way the endpoint wants the credentials.
	config *clientcredentials.Config
	with   credentials
	token  *oauth2.Token
}

// get returns a token that is not the rejected one, fetched by this client if need
// be. Errors are of type *tokenError where it is the endpoint's fault.
func (t *tokens) get(ctx context.Context, s *subscription, by *http.Client, rejected *oauth2.Token) (*oauth2.Token, error) {
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return nil, &tokenError{ctx.Err()} // whoever has the turn waits for the endpoint
	}
	client, err := t.client.get(ctx, s, s.grant.client)
	if err != nil {
		return nil, err
	}
	if !t.of.asks(s.grant) || t.with != client {
		t.of, t.with, t.token = s.grant, client, nil
		t.config = &clientcredentials.Config{
			ClientID: client.id, ClientSecret: client.secret, TokenURL: s.grant.tokenURL, Scopes: slices.Clone(s.grant.scopes),
		}
	}
	if t.token != nil && t.token != rejected && !t.hasExpired() {
		return t.token, nil
	}
	t.token = nil
	fetched, err := t.config.Token(context.WithValue(ctx, oauth2.HTTPClient, withShortAnswers(by)))
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, &tokenError{ctx.Err()}
	case err != nil:
		return nil, &tokenError{plainly(err)}
	}
	// What else the endpoint said is not kept.
	t.token = &oauth2.Token{AccessToken: fetched.AccessToken, TokenType: fetched.TokenType, Expiry: fetched.Expiry}
	return t.token, nil
}

// maxTokenAnswer is how long a token endpoint's answer may be. Each subscription keeps a token,
// and each of its calls carries it.
const maxTokenAnswer = 64 << 10

// withShortAnswers returns a client that reads no more of an answer than maxTokenAnswer. What
// is longer is cut off, and is no JSON then.
func withShortAnswers(by *http.Client) *http.Client {
	short := *by
	short.Transport = shortAnswers{by.Transport}
	return &short
}

type shortAnswers struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (s shortAnswers) RoundTrip(request *http.Request) (*http.Response, error) {
	answer, err := s.RoundTripper.RoundTrip(request)
	if err == nil {
		answer.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(answer.Body, maxTokenAnswer), answer.Body}
	}
	return answer, err
}

func (t *tokens) hasExpired() bool {
	return !t.token.Expiry.IsZero() && !t.clock.Now().Before(t.token.Expiry.Add(-tokenSlack))
}

// tokenError tells that the token endpoint gave no token.
type tokenError struct{ cause error }

// Error never shows the URL, credentials or what the endpoint wrote.
func (e *tokenError) Error() string { return "fetch a token: " + e.cause.Error() }

// Unwrap returns why.
func (e *tokenError) Unwrap() error { return e.cause }

// tokenErrorCodes are what an endpoint can say is wrong (RFC 6749, 5.2).
var tokenErrorCodes = []string{
	"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope",
}

// plainly returns an error without what the endpoint wrote, who knows what that is.
func plainly(err error) error {
	var (
		answer *oauth2.RetrieveError
		inURL  *url.Error
	)
	switch {
	case errors.As(err, &inURL):
		return unquoted(inURL.Err)
	case !errors.As(err, &answer) || answer.Response == nil:
		return errors.New("the endpoint's answer has no token, or is longer than 64 KiB")
	case slices.Contains(tokenErrorCodes, answer.ErrorCode):
		return fmt.Errorf("the endpoint answers %d, %s", answer.Response.StatusCode, answer.ErrorCode)
	default:
		return fmt.Errorf("the endpoint answers %d", answer.Response.StatusCode)
	}
}

// ofTokenError is the outcome of an attempt that has no token.
func ofTokenError(ctx context.Context, err error) (outcome, error) {
	var fromEndpoint *tokenError
	if !errors.As(err, &fromEndpoint) {
		return ofSecret(ctx, v1alpha1.FailureSecret, err)
	}
	o := ofError(err)
	if o.verdict == failed && o.reason != v1alpha1.FailureAddressForbidden {
		o.reason = v1alpha1.FailureToken
	}
	return o, err
}
