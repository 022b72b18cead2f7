package dispatcher

import (
	"context"
	"errors"
	"slices"

	"postbus.dev/postbus/internal/expression"
)

const (
	// maxPayload is how long query and body of an attempt may be together before they are
	// encrypted, in any format: what a template may give.
	maxPayload = expression.MaxJSON
	// maxSealed is how long encryption makes them at most. JWE writes a header and Base64,
	// which is a third more. RC4 writes Base64 too, with escapes of +, / and =: a few
	// percent more of random bytes, so what is longer is refused as too long.
	maxSealed = maxPayload*3/2 + 4096
	// maxHeld is the most that an attempt can hold, see heldBytes.
	maxHeld = 3 * (maxSealed + firstBody)
	// firstBody is what is reserved for an attempt of a subscription whose bodies are not
	// known to be larger.
	firstBody = 4 << 10
	// renders is how many bodies are made at a time, and rendersOfEach how many of one
	// subscription. Making one takes some memory beside the result: a template of the
	// highest cost that is allowed some 30 MB.
	renders       = 4
	rendersOfEach = 2
)

// errTooLong: nothing as long as that is sent.
var errTooLong = errors.New("query and body are longer than 1 MiB together")

// errNoRoom: the budget of bodies has no room for this one now.
var errNoRoom = errors.New("the bodies of other attempts take all of --max-body-bytes or --max-subscription-body-bytes")

// fitted returns a body without the room behind it, where that is much.
func fitted(body []byte) []byte {
	if cap(body)-len(body) > firstBody {
		return slices.Clone(body)[:len(body):len(body)]
	}
	return body
}

// heldBytes is what an attempt with this payload holds until it ends: the body, and the
// frame into which HTTP/2 copies it; of the query, the URL's text and the request line too.
func heldBytes(carried *payload) int64 {
	return 2*int64(cap(carried.body)) + 3*int64(len(carried.query))
}

// reservation is what an attempt has taken of its subscription's share of the budget of
// bodies. It is made when the attempt begins, from what the last bodies were like, and is
// raised when the body is there. A nil reservation allows everything.
type reservation struct {
	runner *runner
	// taken is what was taken of the share. body is what the attempt holds; 0 until it
	// is known.
	taken, body int64
	// trial: less was taken than the last bodies had, as there was no more; this one may
	// be smaller.
	trial bool
}

// allows reports whether the body may be made. It may not where bodies have turned out to be
// larger than was known when the attempt began, and there is no room for such a one.
func (v *reservation) allows() bool {
	if v == nil || v.trial || v.taken >= v.runner.bodySize.Load() {
		return true
	}
	return v.raise(v.runner.bodySize.Load())
}

// hold takes what a body that was made needs, and reports whether there was room for it.
func (v *reservation) hold(bytes int64) bool {
	if v == nil {
		return true
	}
	v.body = bytes
	return bytes <= v.taken || v.raise(bytes)
}

// raise takes more for a body of this size, or notes how large bodies are.
func (v *reservation) raise(bytes int64) bool {
	r := v.runner
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bodySize.Store(max(r.bodySize.Load(), bytes))
	if more := bytes - v.taken; !r.bodies.take(more) {
		return false
	}
	v.taken = bytes
	return true
}

// reserve takes what the next attempt is likely to need, if there is as much. Where a
// subscription has nothing in flight and less room than its last bodies had, it may try
// whether the next one fits into what each may always have, but not all the time: nobody
// knows without making the body. mu is held.
func (r *runner) reserve() (v reservation, ok bool) {
	v = reservation{runner: r, taken: r.bodySize.Load()}
	if r.bodies.take(v.taken) {
		return v, true
	}
	v.trial, v.taken = true, firstBody
	return v, r.mayTry() && r.bodies.take(v.taken)
}

// mayTry reports whether an attempt may begin without room for a body like the last ones.
// mu is held.
func (r *runner) mayTry() bool {
	return r.ledger.inFlight == 0 && !r.clock.Now().Before(r.bodyRetry)
}

// hasBodyRoom reports whether reserve could succeed. mu is held.
func (r *runner) hasBodyRoom() bool {
	return r.bodies.room() >= r.bodySize.Load() || r.mayTry()
}

// release gives back what an attempt has taken, and notes how large its body was: the
// largest of the last ones is what the next ones are expected to have. mu is held.
func (r *runner) release(v *reservation, o outcome) {
	r.bodies.give(v.taken)
	v.taken = 0
	if o.verdict == deferred {
		r.bodyRetry = r.clock.Now().Add(sharedCallRetry)
		return
	}
	if size := r.bodySize.Load(); v.body > 0 {
		r.bodySize.Store(max(firstBody, v.body, size-(size-v.body+15)/16))
	}
}

// renderTurns bound how many bodies are made at a time. Whoever waits for a turn holds
// no body.
type renderTurns struct {
	ofEach, ofAll chan struct{}
}

func newRenderTurns(ofAll chan struct{}) renderTurns {
	if ofAll == nil {
		ofAll = make(chan struct{}, renders)
	}
	return renderTurns{ofEach: make(chan struct{}, rendersOfEach), ofAll: ofAll}
}

// do runs what makes a body when it is its turn, unless the context ends before. Only one
// that has its subscription's turn waits for that of all, so a subscription whose bodies
// take long holds up no other's for longer than its turns last.
func (t *renderTurns) do(ctx context.Context, run func() error) error {
	if err := await(ctx, t.ofEach); err != nil {
		return err
	}
	defer func() { <-t.ofEach }()
	if err := await(ctx, t.ofAll); err != nil {
		return err
	}
	defer func() { <-t.ofAll }()
	return run()
}

// await takes a turn, unless the context ends before.
func await(ctx context.Context, turns chan struct{}) error {
	select {
	case turns <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
