package dispatcher

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"

	"k8s.io/utils/clock"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/callback"
	"postbus.dev/postbus/internal/guard"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/tracing"
)

// Headers of calls, in the spelling that net/http gives them anyway.
const (
	headerAttempt = "Postbus-Attempt"
	headerReplay  = "Postbus-Replay"
	headerTest    = "Postbus-Test"
	// maxAnswer is how much of an answer's body is read, so that its
	// connection can be used again. Nobody looks at it.
	maxAnswer = 16 << 10
)

// caller makes the calls of one subscription. It has connections of its own,
// so a callback that hangs takes none from another.
type caller struct {
	clients      *clients
	tokens       tokens
	clock        clock.PassiveClock
	lists        *listBook
	signing      keptSecret[signature.Secrets]
	encryption   encryption
	url          keptSecret[string]
	headerValues keptSecret[string]
	links        reactivationLinks
	tracing      *tracing.Tracing
	userAgent    string
	// budget bounds the CPU time of the filter and the template.
	budget *expressionBudget
	turns  renderTurns
}

func newCaller(options *Options, lists *listBook) *caller {
	return &caller{
		clients: newClients(options),
		tokens: tokens{
			clock: options.Clock, turn: make(chan struct{}, 1),
			client: keptSecret[credentials]{title: "OAuth2 client", reader: options.Secrets, parse: parseCredentials},
		},
		clock: options.Clock,
		lists: lists,
		signing: keptSecret[signature.Secrets]{
			title: "signing secret", reader: options.Secrets,
			parse: func(data map[string][]byte, _ string) (signature.Secrets, error) { return signature.ParseSecrets(data) },
		},
		encryption:   newEncryption(options.Secrets),
		url:          keptSecret[string]{title: "URL", reader: options.Secrets, parse: ofOneKey(parseURL)},
		headerValues: keptSecret[string]{title: "header value", reader: options.Secrets, parse: ofOneKey(callback.ParseHeaderValue)},
		links:        reactivationLinks{keys: options.LinkKeys, base: options.Mail.PublicURL},
		tracing:      options.Tracing,
		userAgent:    "postbus/" + options.Version,
		turns:        newRenderTurns(options.renders),
	}
}

// errUnknownEvent: there is no such event in the format.
var errUnknownEvent = errors.New("the format does not know such events")

// attempt implements deliverer. The error never shows the URL, whose path may
// hold a secret.
func (c *caller) attempt(ctx context.Context, s *subscription, made call) (outcome, error) {
	seal, err := c.encryption.sealer(ctx, s)
	if err != nil {
		return ofSecret(ctx, v1alpha1.FailureEncryption, err)
	}
	carried, o, err := c.make(ctx, s, made, seal)
	if err != nil {
		return o, err
	}
	signing, err := c.signing.get(ctx, s, s.signingSecret)
	if err != nil {
		return ofSecret(ctx, v1alpha1.FailureSigning, err)
	}
	address, header, err := c.target(ctx, s)
	if err != nil {
		return ofSecret(ctx, v1alpha1.FailureSecret, err)
	}
	client, err := c.clients.of(ctx, s)
	if err != nil {
		return ofSecret(ctx, v1alpha1.FailureSecret, err)
	}
	ctx, cancel := context.WithTimeout(withLookup(ctx), s.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, s.method, withQuery(address, carried.query), bytes.NewReader(carried.body))
	if err != nil {
		return outcome{verdict: failed, reason: v1alpha1.FailureNetwork}, errors.New("the URL can't be called")
	}
	request.Header = header // what follows comes after, so that nothing stands in its place
	c.setHeaders(request.Header, made, carried)
	c.tracing.Hand(ctx, request.Header)
	timestamp, signed := signing.Sign(made.event.ID, c.clock.Now(), carried.body)
	request.Header.Set(signature.HeaderTimestamp, timestamp)
	request.Header.Set(signature.HeaderSignature, signed)
	return c.authorized(client, s, request)
}

// make makes what an attempt carries, and takes what it needs of the budget of bodies. With
// an error comes the attempt's outcome. Expressions are evaluated within their budget.
func (c *caller) make(ctx context.Context, s *subscription, made call, seal sealer) (carried payload, o outcome, err error) {
	if !s.hasExpressions() {
		return c.render(ctx, s, made, seal)
	}
	if err := c.budget.run(ctx, func() { carried, o, err = c.render(ctx, s, made, seal) }); err != nil {
		return payload{}, outcome{verdict: aborted}, err
	}
	return carried, o, err
}

// render is make without the budget of expressions.
func (c *caller) render(ctx context.Context, s *subscription, made call, seal sealer) (carried payload, o outcome, err error) {
	if !made.test && !s.format.knows(made.event) { // it was taken when the spec had another format
		return payload{}, outcome{verdict: unsendable, reason: v1alpha1.FailureRender}, errUnknownEvent
	}
	unmade := outcome{verdict: aborted} // it did not come to its turn
	err = c.turns.do(ctx, func() error {
		if unmade.verdict = deferred; !made.body.allows() {
			return errNoRoom
		}
		unmade = outcome{verdict: unsendable, reason: v1alpha1.FailureFilter}
		if err := s.chosen.check(made.event); err != nil && !made.test {
			return err
		}
		unmade.reason = v1alpha1.FailureRender
		carried, err = s.format.render(c.links.to(made.event), c.lists.of(made.event.List))
		if err == nil && len(carried.query)+len(carried.body) > maxPayload {
			err = errTooLong
		}
		if err != nil {
			return err
		}
		unmade.reason = v1alpha1.FailureEncryption
		if carried, err = seal(carried); err == nil && len(carried.query)+len(carried.body) > maxSealed {
			err = errTooLong
		}
		if err != nil {
			return err
		}
		carried.body = fitted(carried.body)
		if unmade = (outcome{verdict: deferred}); !made.body.hold(heldBytes(&carried)) {
			return errNoRoom
		}
		return nil
	})
	if err != nil {
		return payload{}, unmade, err
	}
	return carried, outcome{}, nil
}

// setHeaders sets the headers of ours, but for the signature.
func (c *caller) setHeaders(header http.Header, made call, carried payload) {
	for name, value := range carried.header {
		header.Set(name, value)
	}
	if carried.contentType != "" {
		header.Set("Content-Type", carried.contentType)
	}
	header.Set("User-Agent", c.userAgent)
	header.Set(signature.HeaderID, made.event.ID)
	header.Set(headerAttempt, strconv.Itoa(made.number))
	if made.replayed {
		header.Set(headerReplay, "true")
	}
	if made.test {
		header.Set(headerTest, "true")
	}
	header.Set(guard.HeaderHops, strconv.Itoa(made.event.Hops+1))
	// Not sent: it lets the transport make the call once more where a connection
	// was closed while it was idle, which says nothing about the callback.
	header["Idempotency-Key"] = nil
}

// ofSecret is the outcome of an attempt whose secret can't be read.
func ofSecret(ctx context.Context, reason v1alpha1.FailureReason, err error) (outcome, error) {
	if ctx.Err() != nil {
		return outcome{verdict: aborted}, ctx.Err()
	}
	if errors.Is(err, errNotChecked) {
		return outcome{verdict: postponed}, err
	}
	return outcome{verdict: hindered, reason: reason}, err
}

// authorized makes a call with a token, where the subscription says where it comes
// from. A token that is rejected is fetched anew, once: it may have been revoked.
func (c *caller) authorized(client *http.Client, s *subscription, request *http.Request) (outcome, error) {
	if s.grant == nil {
		return c.send(client, request)
	}
	ctx := request.Context()
	token, err := c.tokens.get(ctx, s, client, nil)
	if err != nil {
		return ofTokenError(ctx, err)
	}
	token.SetAuthHeader(request)
	o, err := c.send(client, request)
	if o.status != http.StatusUnauthorized {
		return o, err
	}
	if token, err = c.tokens.get(ctx, s, client, token); err != nil {
		return ofTokenError(ctx, err)
	}
	again := request.Clone(ctx)
	if request.GetBody != nil {
		if again.Body, err = request.GetBody(); err != nil {
			return outcome{verdict: failed, reason: v1alpha1.FailureNetwork}, err
		}
	}
	token.SetAuthHeader(again)
	return c.send(client, again)
}

// send makes a call. It asks the transport, not the client: there is no redirect to
// follow and no cookie to keep.
func (c *caller) send(client *http.Client, request *http.Request) (outcome, error) {
	response, err := client.Transport.RoundTrip(request)
	if err != nil {
		o := ofError(err)
		if o.reason == v1alpha1.FailureTimeout && resolving(request.Context()) {
			o.reason = v1alpha1.FailureDNS
		}
		return o, unquoted(err)
	}
	// The status has decided; the body matters to the connection alone, which is
	// not ours to read where it has switched to another protocol. There is often none.
	if response.StatusCode != http.StatusSwitchingProtocols && response.Body != http.NoBody {
		_, _ = io.CopyN(io.Discard, response.Body, maxAnswer)
	}
	_ = response.Body.Close()
	return ofAnswer(response, c.clock.Now()), nil
}

// close frees the connections that are not in use.
func (c *caller) close() { c.clients.close() }
