package dispatcher

import (
	"time"

	"golang.org/x/time/rate"
)

// pace holds the calls of a subscription to rateLimit.requestsPerSecond. It has no
// clock: its owner tells it when a call begins and asks when the next one may. The
// zero value holds nothing.
type pace struct {
	perSecond int
	limiter   *rate.Limiter
}

// set changes the rate; 0 is no limit. Calls are spread evenly, but where that would
// be closer than 10 ms those of 10 ms may go together, as no timer is finer than a
// millisecond on a busy machine.
func (p *pace) set(perSecond int, now time.Time) {
	switch {
	case perSecond == p.perSecond:
		return
	case perSecond == 0:
		p.limiter = nil
	case p.limiter == nil:
		p.limiter = rate.NewLimiter(rate.Limit(perSecond), burst(perSecond))
	default: // what was called before counts
		p.limiter.SetLimitAt(now, rate.Limit(perSecond))
		p.limiter.SetBurstAt(now, burst(perSecond))
	}
	p.perSecond = perSecond
}

func burst(perSecond int) int { return max(1, perSecond/100) }

// allows tells whether a call may begin now.
func (p *pace) allows(now time.Time) bool { return !p.next(now).After(now) }

// next returns when a call may begin, at the earliest now.
func (p *pace) next(now time.Time) time.Time {
	if p.limiter == nil {
		return now
	}
	missing := 1 - p.limiter.TokensAt(now)
	return now.Add(time.Duration(max(0, missing) / float64(p.limiter.Limit()) * float64(time.Second)))
}

// begin notes that a call begins, which was allowed.
func (p *pace) begin(now time.Time) {
	if p.limiter != nil {
		p.limiter.AllowN(now, 1)
	}
}
