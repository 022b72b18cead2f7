package ingress

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/types"

	"postbus.dev/postbus/api/v1alpha1"
)

func limited(uid types.UID, perSecond int32) *v1alpha1.ApiKey {
	key := &v1alpha1.ApiKey{Spec: v1alpha1.ApiKeySpec{RateLimit: v1alpha1.KeyRateLimit{RequestsPerSecond: perSecond}}}
	key.UID = uid
	return key
}

// burst takes until the key is over its rate, and returns how often that went.
func (l *rateLimits) burst(key *v1alpha1.ApiKey, now time.Time) (taken int) {
	for l.take(key, now) == nil {
		taken++
	}
	return taken
}

func TestBucketsRefill(t *testing.T) {
	g := NewWithT(t)
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	var limits rateLimits
	key := limited("a", 50)
	g.Expect(limits.burst(key, now)).To(Equal(50), "a second's requests at once")
	g.Expect(limits.burst(limited("b", 1), now)).To(Equal(1), "another key has its own")
	g.Expect(limits.burst(key, now.Add(100*time.Millisecond))).To(Equal(5))
	g.Expect(limits.burst(key, now.Add(time.Hour))).To(Equal(50), "no more than a second's are saved up")

	key = limited("a", 10)
	g.Expect(limits.burst(key, now.Add(time.Hour+time.Second))).To(Equal(10), "the spec has changed")
	key = limited("a", 10000)
	g.Expect(limits.burst(key, now.Add(time.Hour+2*time.Second))).To(Equal(10), "what was saved up at the rate before")
	g.Expect(limits.burst(key, now.Add(time.Hour+3*time.Second))).To(Equal(10000))
}

func TestKeysWithoutARateLimitHaveTheDefault(t *testing.T) {
	var limits rateLimits
	NewWithT(t).Expect(limits.burst(limited("a", 0), time.Time{})).To(Equal(100))
}

// A bucket is dropped once it is full again, so the drop changes nothing.
func TestIdleBucketsAreDropped(t *testing.T) {
	g := NewWithT(t)
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	var limits rateLimits
	limits.burst(limited("quiet", 3), now)
	limits.burst(limited("busy", 3), now.Add(time.Millisecond))
	limits.dropIdle(now.Add(time.Second))
	g.Expect(limits.buckets).To(HaveLen(1))
	g.Expect(limits.buckets).To(HaveKey(types.UID("busy")))
	limits.dropIdle(now.Add(time.Second + time.Millisecond))
	g.Expect(limits.buckets).To(BeEmpty())
}
