package controllers

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sync/singleflight"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/guard"
	"postbus.dev/postbus/internal/mailpolicy"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/sqlite"
	"postbus.dev/postbus/internal/testkit"
)

// goodKey and goodSecret are valid, and in no test generated.
const (
	goodKey    = "Zk3vQ9sLx0Rt7YpWm2NcUe"
	goodSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
)

var plane *testkit.ControlPlane

func TestMain(m *testing.M) {
	os.Exit(testkit.Run(m, func(p *testkit.ControlPlane) { plane = p }))
}

// bench runs the loops by hand, one pass at a time, against a real API server
// and a real store, so that a test sees exactly what a pass does.
type bench struct {
	*WithT
	t         *testing.T
	namespace string
	store     store.Store
	now       time.Time
	events    *events.FakeRecorder
	guard     guard.Policies
	mail      mailpolicy.Policy
	uses      keyUses
	inspected verdicts
}

func newBench(t *testing.T) *bench {
	t.Helper()
	return &bench{
		WithT:     NewWithT(t),
		t:         t,
		namespace: plane.Namespace(t),
		store:     openStore(t),
		now:       time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC),
		events:    events.NewFakeRecorder(100),
	}
}

func openStore(t *testing.T) store.Store {
	t.Helper()
	opened, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := opened.Close(); err != nil {
			t.Error(err)
		}
	})
	return opened
}

func (b *bench) platform() platform {
	return platform{client: plane.Client, recorder: b.events, now: func() time.Time { return b.now }}
}

func (b *bench) secrets() secrets { return secrets{client: plane.Client, reader: plane.Client} }

func (b *bench) namespaces() namespaces {
	return namespaces{
		reader: plane.Client, store: b.store, flights: &singleflight.Group{}, now: func() time.Time { return b.now },
	}
}

func (b *bench) lists() contactLists {
	return contactLists{
		platform: b.platform(), reader: plane.Client, store: b.store, namespaces: b.namespaces(), operations: b.store,
		inspected: &b.inspected, mail: b.mail,
	}
}

func (b *bench) keys() apiKeys {
	return apiKeys{platform: b.platform(), secrets: b.secrets(), store: b.store, operations: b.store, uses: &b.uses}
}

func (b *bench) subscriptions() webhookSubscriptions {
	return webhookSubscriptions{
		platform: b.platform(), secrets: b.secrets(), store: b.store, namespaces: b.namespaces(), guard: b.guard,
		mail: b.mail,
	}
}

func (b *bench) create(objects ...client.Object) {
	b.t.Helper()
	for _, object := range objects {
		b.Expect(plane.Client.Create(b.t.Context(), object)).To(Succeed())
	}
}

func (b *bench) update(object client.Object) {
	b.t.Helper()
	b.Expect(plane.Client.Update(b.t.Context(), object)).To(Succeed())
}

func (b *bench) delete(object client.Object) {
	b.t.Helper()
	b.Expect(plane.Client.Delete(b.t.Context(), object)).To(Succeed())
}

func (b *bench) read(object client.Object) {
	b.t.Helper()
	b.Expect(plane.Client.Get(b.t.Context(), client.ObjectKeyFromObject(object), object)).To(Succeed())
}

// pass runs one pass of the loop of the object's kind and reads the object.
func (b *bench) pass(object client.Object) reconcile.Result {
	b.t.Helper()
	var loop reconcile.Reconciler
	switch object.(type) {
	case *v1alpha1.ContactList:
		loop = b.lists().loop()
	case *v1alpha1.ApiKey:
		loop = b.keys().loop()
	case *v1alpha1.WebhookSubscription:
		loop = b.subscriptions().loop()
	}
	result, err := loop.Reconcile(b.t.Context(), requestFor(object))
	b.Expect(err).NotTo(HaveOccurred())
	b.Expect(client.IgnoreNotFound(plane.Client.Get(b.t.Context(), client.ObjectKeyFromObject(object), object))).To(Succeed())
	return result
}

// secret makes a Secret with one data key.
func (b *bench) secret(name, key, value string) *corev1.Secret {
	b.t.Helper()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: name},
		StringData: map[string]string{key: value},
	}
	b.create(secret)
	return secret
}

// value reads a data key of a Secret.
func (b *bench) value(name, key string) string {
	b.t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: name}}
	b.read(secret)
	return string(secret.Data[key])
}

func (b *bench) expectNoSecret(name string) {
	b.t.Helper()
	err := plane.Client.Get(b.t.Context(), client.ObjectKey{Namespace: b.namespace, Name: name}, &corev1.Secret{})
	b.Expect(err).To(HaveOccurred())
	b.Expect(client.IgnoreNotFound(err)).To(Succeed())
}

// expect checks a condition's status and reason, and returns its message.
func (b *bench) expect(object client.Object, condition string, status metav1.ConditionStatus, reason string) string {
	b.t.Helper()
	found := meta.FindStatusCondition(*statusOf(object).conditions, condition)
	b.Expect(found).NotTo(BeNil(), condition)
	b.Expect(found.Status).To(Equal(status), "%s: %s %s", condition, found.Reason, found.Message)
	b.Expect(found.Reason).To(Equal(reason), "%s: %s", condition, found.Message)
	b.Expect(found.ObservedGeneration).To(Equal(object.GetGeneration()))
	return found.Message
}

// deliver writes a subscription's row as the dispatcher does.
func (b *bench) deliver(subscription *v1alpha1.WebhookSubscription, change func(*store.Delivery)) {
	b.t.Helper()
	checkpoint(b.t, b.store, keyOf(subscription), change)
}

func checkpoint(t *testing.T, s store.Store, key store.SubscriptionKey, change func(*store.Delivery)) {
	t.Helper()
	g := NewWithT(t)
	row, err := s.LoadDelivery(t.Context(), key)
	g.Expect(err).NotTo(HaveOccurred())
	change(&row)
	gone, err := s.Checkpoint(t.Context(), []store.Progress{{Delivery: row}})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(gone).To(BeEmpty())
}

// addContact stores a contact as ingress does.
func addContact(t *testing.T, s store.Store, list contact.ListKey, email string, permission contact.Permission) {
	t.Helper()
	_, err := s.Change(t.Context(), store.Change{
		List:    list,
		Address: email,
		Apply: func(*contact.Contact) contact.Decision {
			return contact.Decision{
				Contact: contact.Contact{Email: email, Permission: permission, Revision: 1},
				Changed: true,
				Created: true,
				Events:  []contact.Event{{Type: contact.EventCreate, Source: contact.SourceAPI, Time: time.Now()}},
			}
		},
	})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
}
