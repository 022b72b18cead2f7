package dispatcher

import (
	"context"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"

	"postbus.dev/postbus/internal/store"
)

// What is in this file leaves rows to others; claim.go has the drawing.

// releases is how many rows are released at once, see followers.
const releases = followers

// handOver has a runner begin nothing any more, and its row released once the
// attempts under way have ended and that is written. Then the row is followed
// again: it may be this dispatcher's own once more.
func (g *registry) handOver(running *entry) { running.stopLoop() }

// cutOff is handOver that does not wait for the attempts under way.
func (g *registry) cutOff(running *entry) {
	running.stopLoop()
	running.stopAttempts()
}

// lost cuts off a runner whose checkpoint was refused, because its row has gone, or
// is another one now, or another dispatcher's.
func (g *registry) lost(key store.SubscriptionKey) {
	if running := g.get(key); running != nil {
		g.cutOff(running)
	}
}

// owned returns the runners that may be written, and of these which have ended.
// What one of those is written with afterwards is its last.
func (g *registry) owned() (all []*entry, ended map[*entry]struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	all, ended = make([]*entry, 0, len(g.runners)), map[*entry]struct{}{}
	for _, running := range g.runners {
		if !running.taken {
			continue
		}
		all = append(all, running)
		if running.ended.Load() {
			ended[running] = struct{}{}
		}
	}
	return all, ended
}

// release leaves the rows of runners that have ended, and are written, to whoever
// ought to own them. A row that can't be released now is tried again with the next
// checkpoint.
func (g *registry) release(ctx context.Context, ended map[*entry]struct{}) {
	if len(ended) == 0 {
		return
	}
	keys := make(map[store.SubscriptionKey]struct{}, len(ended))
	for running := range ended {
		keys[running.runner.key] = struct{}{}
	}
	g.recent.writeOf(ctx, keys) // with the token that the next owner replaces
	var all errgroup.Group
	all.SetLimit(releases)
	for key := range keys {
		all.Go(func() error {
			if err := g.options.Store.ReleaseDelivery(ctx, key, g.members.name); err != nil {
				return err
			}
			g.remove(key)
			g.queue.Add(key)
			return nil
		})
	}
	if err := all.Wait(); err != nil && ctx.Err() == nil {
		logr.FromContextOrDiscard(ctx).Error(err, "rows were not left to others, trying again", "subscriptions", len(keys))
	}
}

// remove drops a runner.
func (g *registry) remove(key store.SubscriptionKey) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.runners, key)
	g.metrics.owned.Set(float64(len(g.runners)))
}
