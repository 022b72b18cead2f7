package controllers

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/store"
)

// use notes a use of the key, as ingress does.
func (b *bench) use(key *v1alpha1.ApiKey, at time.Time) {
	b.t.Helper()
	b.Expect(b.store.NoteKeyUse(b.t.Context(), map[store.KeyName]time.Time{keyName(key): at})).To(Succeed())
}

func TestLastUseReachesStatus(t *testing.T) {
	b := newBench(t)
	key := b.newKey()
	changed := make(changes, 10)
	watch := &keyUseWatch{store: b.store, uses: &b.uses, changed: changed}
	b.Expect(watch.look(t.Context())).To(Succeed())
	b.Expect(changed).To(BeEmpty())
	b.pass(key)
	b.Expect(key.Status.LastUsedTime).To(BeNil())

	used := key.CreationTimestamp.Add(time.Hour)
	b.use(key, used.Add(300*time.Millisecond))
	b.Expect(watch.look(t.Context())).To(Succeed())
	b.Expect(changed).To(HaveLen(1))
	sent := (<-changed).Object
	b.Expect([]string{sent.GetNamespace(), sent.GetName()}).To(Equal([]string{b.namespace, "form"}))
	b.pass(key)
	b.Expect(key.Status.LastUsedTime.Time).To(BeTemporally("==", used))

	b.Expect(watch.look(t.Context())).To(Succeed())
	b.Expect(changed).To(BeEmpty(), "it was not used since")
	version := key.ResourceVersion
	b.pass(key)
	b.Expect(key.ResourceVersion).To(Equal(version), "nothing is written")

	b.use(key, used.Add(time.Minute))
	b.pass(key)
	b.Expect(key.Status.LastUsedTime.Time).To(BeTemporally("==", used), "no more often than the store is asked")
}

func TestUseOfAPredecessorIsNotTheKeys(t *testing.T) {
	b := newBench(t)
	key := b.newKey()
	b.use(key, key.CreationTimestamp.Add(-time.Second))
	watch := &keyUseWatch{store: b.store, uses: &b.uses, changed: make(changes, 10)}
	b.Expect(watch.look(t.Context())).To(Succeed())
	b.pass(key)
	b.Expect(key.Status.LastUsedTime).To(BeNil())
}

func TestLastUseOfASuspendedKeyIsShown(t *testing.T) {
	b := newBench(t)
	key := b.newKey()
	suspend := true
	key.Spec.Suspend = &suspend
	b.update(key)
	b.use(key, key.CreationTimestamp.Time)
	watch := &keyUseWatch{store: b.store, uses: &b.uses, changed: make(changes, 10)}
	b.Expect(watch.look(t.Context())).To(Succeed())
	b.pass(key)
	b.Expect(key.Status.LastUsedTime).NotTo(BeNil())
}
