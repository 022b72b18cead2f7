package dispatcher

import (
	"fmt"
	"slices"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/store"
)

// TestOwnershipAtScale has 50 dispatchers share 100,000 subscriptions. docs/scaling.md
// tells of it.
func TestOwnershipAtScale(t *testing.T) {
	const replicas, subscriptions = 50, 100_000
	g := NewWithT(t)
	keys := make([]store.SubscriptionKey, subscriptions)
	for n := range keys {
		keys[n] = store.SubscriptionKey{Namespace: fmt.Sprint("team-", n%300), Name: fmt.Sprint("hook-", n)}
	}
	var living []string
	for n := range replicas { // named as pods of a deployment are
		living = append(living, fmt.Sprintf("postbus-dispatcher-5c7df64fb9-%05x-%08x", n*7919, n*104729))
	}
	before := ownersOf(keys, living)
	g.Expect(before).To(HaveLen(subscriptions))

	parts := map[string]int{}
	for _, owner := range before {
		parts[owner]++
	}
	g.Expect(parts).To(HaveLen(replicas))
	for _, part := range parts {
		g.Expect(part).To(BeNumerically("~", subscriptions/replicas, subscriptions/replicas/10), "an even part, within a tenth")
	}

	gone := living[17]
	after := ownersOf(keys, slices.DeleteFunc(slices.Clone(living), func(name string) bool { return name == gone }))
	taken, moved := map[string]int{}, 0
	for key, owner := range before {
		switch {
		case owner == gone:
			taken[after[key]]++
		case after[key] != owner:
			moved++
		}
	}
	g.Expect(moved).To(BeZero(), "what the others own stays where it is")
	g.Expect(taken).To(HaveLen(replicas-1), "all others take part of what one leaves")
	for _, part := range taken {
		g.Expect(part).To(BeNumerically("<", 100), "none of them is overrun: 41 would be even")
	}
}

func ownersOf(keys []store.SubscriptionKey, living []string) map[store.SubscriptionKey]string {
	owners, candidates := make(map[store.SubscriptionKey]string, len(keys)), candidatesOf(living)
	for _, key := range keys {
		owners[key] = ownerOf(key, candidates)
	}
	return owners
}
