package dispatcher

import (
	"math"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// The defaults of the budgets, see Options. Together with --max-calls they keep a dispatcher
// below 700 MiB, so that it lives in the 1 GiB that it is shipped with.
const (
	// DefaultMaxBodyBytes is 128 MiB.
	DefaultMaxBodyBytes = 128 << 20
	// DefaultMaxSubscriptionBodyBytes is 16 MiB.
	DefaultMaxSubscriptionBodyBytes = 16 << 20
	// DefaultMaxPendingBytes is 64 MiB.
	DefaultMaxPendingBytes = 64 << 20
	// MinSubscriptionBodyBytes and MinPendingBytes are the least that makes sense: room for
	// the largest body, and for a page of events.
	MinSubscriptionBodyBytes = 8 << 20
	MinPendingBytes          = 8 << 20
	// ownBodyBytes and ownPendingBytes are what each subscription may always have: 4
	// attempts with bodies of 8 KiB, and some 40 small events.
	ownBodyBytes    = 64 << 10
	ownPendingBytes = 32 << 10
)

// budget bounds how many bytes of one kind the subscriptions of a dispatcher hold at a time.
// Each may always hold own bytes, whatever the others do. Beyond that they share most bytes,
// and a subscription may have no more of these than are still free, nor than each together
// with its own. So one that takes all it can get leaves as much for the next one. Of n that
// do so each ends up with a part in n+1 as what they hold comes back, whoever was first, and
// one part stays free for the next (dynamic thresholds, as switches share their buffers).
type budget struct {
	own, each, most int64
	// used is what is taken of most.
	used atomic.Int64
	// told, when not nil, is the metric of used.
	told prometheus.Gauge
}

// share is what one subscription holds of a budget. Its owner's lock guards it. The share of
// no budget, which is the zero value, only counts.
type share struct {
	of   *budget
	used int64
}

// take takes bytes if the budget has them for this subscription.
func (s *share) take(bytes int64) bool {
	if s.of == nil {
		s.used += bytes
		return true
	}
	shared := s.of.shared(s.used + bytes)
	more := shared - s.of.shared(s.used)
	for more > 0 {
		used := s.of.used.Load()
		if s.used+bytes > s.of.each || shared > s.of.most-used {
			return false
		}
		if s.of.used.CompareAndSwap(used, used+more) {
			break
		}
	}
	s.used += bytes
	s.of.tell(more)
	return true
}

// force takes bytes that are held already, whatever the budget has.
func (s *share) force(bytes int64) {
	if s.of != nil {
		more := s.of.shared(s.used+bytes) - s.of.shared(s.used)
		s.of.used.Add(more)
		s.of.tell(more)
	}
	s.used += bytes
}

// give gives bytes back.
func (s *share) give(bytes int64) { s.force(-bytes) }

// move has what is held count in another budget from now on.
func (s *share) move(to *budget) {
	held := s.used
	s.give(held)
	s.of = to
	s.force(held)
}

// room returns how many bytes could be taken now.
func (s *share) room() int64 {
	if s.of == nil {
		return math.MaxInt64
	}
	free := s.of.own + s.of.most - s.of.used.Load() - s.used
	return max(0, s.of.own-s.used, min(free, s.of.each-s.used))
}

// shared returns how many of a subscription's bytes are not its own.
func (b *budget) shared(bytes int64) int64 { return max(0, bytes-b.own) }

// tell tells the metric of a change.
func (b *budget) tell(change int64) {
	if change != 0 && b.told != nil {
		b.told.Set(float64(b.used.Load()))
	}
}
