package ingress

import (
	"maps"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/types"

	"postbus.dev/postbus/api/v1alpha1"
)

// rateLimits holds each ApiKey to its rate, in this process alone. Only keys that
// work get a bucket, and idle ones lose theirs, so what it holds is bounded by the
// number of ApiKeys that are in use.
type rateLimits struct {
	mutex   sync.Mutex
	buckets map[types.UID]*bucket
}

// bucket is the token bucket of one ApiKey. It holds a second's requests.
type bucket struct {
	limiter *rate.Limiter
	// asked is when a request last came.
	asked time.Time
}

// refillTime is how long an empty bucket takes to be full, whatever its rate.
const refillTime = time.Second

// take counts one request, or returns a problem when the key is over its rate.
func (l *rateLimits) take(key *v1alpha1.ApiKey, now time.Time) error {
	perSecond := key.RequestsPerSecond()
	l.mutex.Lock()
	defer l.mutex.Unlock()
	limiter := l.limiter(key.UID, perSecond, now)
	if limiter.AllowN(now, 1) {
		return nil
	}
	missing := (1 - limiter.TokensAt(now)) / float64(perSecond)
	return overRate(perSecond, max(1, int(math.Ceil(missing))))
}

// limiter returns the ApiKey's, with the rate that its spec has now.
func (l *rateLimits) limiter(uid types.UID, perSecond int, now time.Time) *rate.Limiter {
	found := l.buckets[uid]
	if found == nil {
		found = &bucket{limiter: rate.NewLimiter(rate.Limit(perSecond), perSecond)}
		if l.buckets == nil {
			l.buckets = map[types.UID]*bucket{}
		}
		l.buckets[uid] = found
	}
	if found.limiter.Burst() != perSecond {
		found.limiter.SetLimitAt(now, rate.Limit(perSecond))
		found.limiter.SetBurstAt(now, perSecond)
	}
	found.asked = now
	return found.limiter
}

// dropIdle drops the buckets that are full again, as a new one is.
func (l *rateLimits) dropIdle(now time.Time) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	maps.DeleteFunc(l.buckets, func(_ types.UID, b *bucket) bool { return now.Sub(b.asked) >= refillTime })
}
