package dispatcher

import (
	"fmt"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// manyKeys are keys of rows such as a large installation has.
func manyKeys() (keys []store.SubscriptionKey) {
	for n := range 5000 {
		keys = append(keys, store.SubscriptionKey{Namespace: fmt.Sprint("team-", n%7), Name: fmt.Sprint("crm-", n)})
	}
	for n := range 100 {
		list := contact.ListKey{Namespace: fmt.Sprint("team-", n%7), Name: fmt.Sprint("newsletter-", n)}
		keys = append(keys, store.MailKey(list))
	}
	return keys
}

// shares returns who ought to own what.
func shares(keys []store.SubscriptionKey, candidates []string) map[string][]store.SubscriptionKey {
	owned := map[string][]store.SubscriptionKey{}
	for _, key := range keys {
		owner := ownerOf(key, candidates)
		owned[owner] = append(owned[owner], key)
	}
	return owned
}

func TestOwnersShareEvenly(t *testing.T) {
	for dispatchers := 1; dispatchers <= 10; dispatchers++ {
		t.Run(fmt.Sprint(dispatchers), func(t *testing.T) {
			g := NewWithT(t)
			var names []string
			for n := range dispatchers {
				names = append(names, fmt.Sprintf("postbus-dispatcher-7d9f-%d", n))
			}
			keys := manyKeys()
			owned := shares(keys, names)
			g.Expect(owned).To(HaveLen(dispatchers))
			for _, share := range owned {
				g.Expect(len(share)).To(BeNumerically("~", len(keys)/dispatchers, len(keys)/dispatchers/5))
			}
		})
	}
}

func TestFewRowsMove(t *testing.T) {
	g := NewWithT(t)
	keys := manyKeys()
	before, after := []string{"a", "b", "c"}, []string{"a", "b", "c", "d"}
	for _, key := range keys {
		g.Expect(ownerOf(key, after)).To(BeElementOf(ownerOf(key, before), "d"), "a row moves to the new one or stays")
		g.Expect(ownerOf(key, after)).To(Equal(ownerOf(key, []string{"d", "b", "c", "a"})), "whatever the order")
	}
	g.Expect(ownerOf(keys[0], nil)).To(BeEmpty())
}

func TestWhoMayOwn(t *testing.T) {
	for name, row := range map[string]struct{ living, want []string }{
		"all that live":               {[]string{"a", "b"}, []string{"a", "b"}},
		"but for one that ends":       {[]string{"a", "a" + leaving, "b"}, []string{"b"}},
		"that may be all":             {[]string{"a", "a" + leaving}, nil},
		"one has ended without order": {[]string{"a" + leaving, "b"}, []string{"b"}},
		"nobody":                      {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(candidatesOf(row.living)).To(Equal(row.want))
		})
	}
}

func TestLife(t *testing.T) {
	g := NewWithT(t)
	now := time.Now()
	g.Expect(newLife(now).lasts()).To(BeTrue())
	g.Expect(newLife(now.Add(-livesFor)).lasts()).To(BeFalse())
	short := newLife(now.Add(time.Second - livesFor))
	g.Expect(short.prolong(now)).To(BeTrue())
	g.Expect(*short.joined.Load()).To(Equal(now))
	over := newLife(now.Add(-livesFor))
	g.Expect(over.prolong(now)).To(BeFalse())
	g.Expect(over.lasts()).To(BeFalse(), "there is no second one")
	asleep := newLife(now.Round(0).Add(-livesFor)) // as the wall clock tells after a machine's sleep
	g.Expect(asleep.lasts()).To(BeFalse())
}

// What a join means to rows is a matter of what it tells.
func TestWhatAJoinMeans(t *testing.T) {
	g := NewWithT(t)
	key := store.SubscriptionKey{Namespace: "team", Name: "crm"}
	m := &membership{name: "a"}
	g.Expect(m.lifeFor(key)).To(BeNil(), "it has not joined yet")
	g.Expect(m.note(time.Now(), []string{"a"})).To(BeTrue())
	first := m.lifeFor(key)
	g.Expect(first).NotTo(BeNil())
	g.Expect(m.note(time.Now(), []string{"a"})).To(BeFalse(), "nothing is new")
	g.Expect(m.lifeFor(key)).To(BeIdenticalTo(first))

	other := "b"
	for n := 0; ownerOf(key, []string{"a", other}) == "a"; n++ {
		other = fmt.Sprint("b", n)
	}
	living := []string{"a", other}
	slices.Sort(living)
	g.Expect(m.note(time.Now(), living)).To(BeTrue())
	g.Expect(m.lifeFor(key)).To(BeNil())
	g.Expect(m.note(time.Now(), append(living, other+leaving))).To(BeTrue(), "the other one ends")
	g.Expect(m.lifeFor(key)).To(BeIdenticalTo(first))

	long := time.Now().Add(-livesFor)
	m.life.joined.Store(&long)
	g.Expect(m.lives()).To(BeFalse())
	g.Expect(m.lifeFor(key)).To(BeNil())
	g.Expect(m.note(time.Now(), append(living, other+leaving))).To(BeTrue(), "it was dead meanwhile")
	g.Expect(m.lifeFor(key)).NotTo(BeIdenticalTo(first))
	g.Expect(m.lives()).To(BeTrue())
	g.Expect(first.lasts()).To(BeFalse())
}
