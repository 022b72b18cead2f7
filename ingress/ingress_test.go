package ingress_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/types"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/ingress"
	"postbus.dev/postbus/internal/apikey"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/kube"
	"postbus.dev/postbus/internal/link"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/sqlite"
	"postbus.dev/postbus/internal/testkit"
)

var (
	// plane is there once requirePlane has returned.
	plane      *testkit.ControlPlane
	startPlane = sync.OnceValue(func() (err error) {
		plane, err = testkit.StartControlPlane()
		return err
	})
)

// requirePlane starts the control plane for the first test that needs it.
// Fuzzing runs this package in several processes and needs none.
func requirePlane(t *testing.T) {
	t.Helper()
	NewWithT(t).Expect(startPlane()).To(Succeed())
}

func TestMain(m *testing.M) {
	// A second, which is what gomega waits for, is little for an API server and a
	// disk that other packages' tests use too.
	SetDefaultEventuallyTimeout(30 * time.Second)
	code := m.Run()
	if plane != nil {
		if err := plane.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// contactPath is where contacts are posted to.
const contactPath = "/webhooks/contacts/email"

// now is what the clock of every test says.
var now = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

// fixture is a running ingress with a list "newsletter" and a key for it.
type fixture struct {
	namespace string
	address   string
	secure    bool // it speaks TLS
	key       string
	store     *sqlite.Store
	keys      *link.Ring
	closing   sync.Once
	objects   client.Reader
	registry  *prometheus.Registry
	logs      *logBuffer
	// stop begins the shutdown; stopped then has what Run returned.
	stop    func()
	stopped chan error
}

// start runs ingress, which sees the objects of the test, until that ends.
func start(t *testing.T, change ...func(*ingress.Options)) *fixture {
	t.Helper()
	requirePlane(t)
	namespace := plane.Namespace(t)
	return startIn(t, namespace, startCache(t, namespace), change...)
}

// startEverywhere is start for tests that have lists in several namespaces.
func startEverywhere(t *testing.T, change ...func(*ingress.Options)) *fixture {
	t.Helper()
	requirePlane(t)
	return startIn(t, plane.Namespace(t), startCache(t, metav1.NamespaceAll), change...)
}

func startIn(t *testing.T, namespace string, objects client.Reader, change ...func(*ingress.Options)) *fixture {
	t.Helper()
	g := NewWithT(t)
	f := &fixture{
		namespace: namespace,
		objects:   objects,
		registry:  prometheus.NewRegistry(),
		logs:      &logBuffer{},
		stopped:   make(chan error, 1),
	}
	f.openStore(t)
	f.keys = testkit.LinkKeys(t, f.store)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	g.Expect(err).NotTo(HaveOccurred())
	f.address = listener.Addr().String()
	options := ingress.Options{
		Listener: listener, AllowPlainHTTP: true, Objects: f.objects, Contacts: f.store, Reader: f.store, Bindings: f.store, KeyUses: f.store,
		Texts: f.store, Callbacks: f.store, LinkKeys: f.keys, Registerer: f.registry, Now: func() time.Time { return now },
	}
	for _, apply := range change {
		apply(&options)
	}
	ctx, cancel := context.WithCancel(withLogs(t.Context(), f.logs))
	f.stop = cancel
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		f.stopped <- ingress.Run(ctx, options)
	}()
	t.Cleanup(func() {
		cancel()
		<-returned
	})
	f.declare(t, newsletter(f.namespace))
	f.key = f.issue(t, "website-form", nil)
	return f
}

// declare makes a list, as a user and the controller do, and waits until ingress sees it.
func (f *fixture) declare(t *testing.T, list *v1alpha1.ContactList) {
	t.Helper()
	testkit.CreateBound(t, plane.Client, f.store, list)
	NewWithT(t).Eventually(func() (bool, error) {
		seen := &v1alpha1.ContactList{}
		err := f.objects.Get(t.Context(), client.ObjectKeyFromObject(list), seen)
		return seen.IsBound(), client.IgnoreNotFound(err)
	}).WithTimeout(10 * time.Second).Should(BeTrue())
}

func (f *fixture) openStore(t *testing.T) {
	t.Helper()
	opened, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "postbus.db"))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	f.store = opened
	t.Cleanup(func() { f.closeStore(t) })
}

// closeStore closes the store, now or at the end of the test.
func (f *fixture) closeStore(t *testing.T) {
	t.Helper()
	f.closing.Do(func() { NewWithT(t).Expect(f.store.Close()).To(Succeed()) })
}

// startCache starts a cache of the objects of a namespace; of all if the name is empty.
func startCache(t *testing.T, namespace string) client.Reader {
	t.Helper()
	g := NewWithT(t)
	var namespaces []string
	if namespace != "" {
		namespaces = []string{namespace}
	}
	objects, err := kube.NewCacheOf(t.Context(), namespaces, plane.Config, &v1alpha1.ContactList{}, &v1alpha1.ApiKey{})
	g.Expect(err).NotTo(HaveOccurred())
	stopped := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { stopped <- objects.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		g.Expect(<-stopped).To(Succeed())
	})
	g.Expect(objects.WaitForCacheSync(t.Context())).To(BeTrue())
	return objects
}

// newsletter is a list with a custom field of each type and two mailings.
func newsletter(namespace string) *v1alpha1.ContactList {
	list := testkit.List(namespace, "newsletter")
	list.Spec.CustomFields = []v1alpha1.CustomField{
		{Name: "special date", Type: v1alpha1.CustomFieldDate},
		{Name: "nickname", Type: v1alpha1.CustomFieldString},
		{Name: "100%+", Type: v1alpha1.CustomFieldString},
		{Name: "children", Type: v1alpha1.CustomFieldInteger},
		{Name: "height", Type: v1alpha1.CustomFieldFloat},
		{Name: "vegan", Type: v1alpha1.CustomFieldBoolean},
	}
	list.Spec.OptIn.ResendInterval = &metav1.Duration{} // the clock stands still
	list.Spec.OptIn.Mailings = []v1alpha1.OptInMailing{{Key: "dh6hdjk9", Default: new(true)}, {Key: "fair"}}
	return list
}

// issue makes an ApiKey with a fresh key, as the controller does, and waits
// until ingress can see it.
func (f *fixture) issue(t *testing.T, name string, change func(*v1alpha1.ApiKey)) string {
	t.Helper()
	g := NewWithT(t)
	presented := apikey.Generate()
	object := testkit.ApiKey(f.namespace, name, "newsletter")
	object.Status.Keys = []v1alpha1.ApiKeyDigest{{Prefix: apikey.Prefix(presented), SHA256: apikey.Digest(presented)}}
	if change != nil {
		change(object)
	}
	status := object.Status
	g.Expect(plane.Client.Create(t.Context(), object)).To(Succeed())
	object.Status = status
	g.Expect(plane.Client.Status().Update(t.Context(), object)).To(Succeed())
	f.awaitKeys(t, presented, HaveLen(1))
	return presented
}

// awaitKeys waits until ingress sees such ApiKeys for a presented key.
func (f *fixture) awaitKeys(t *testing.T, presented string, matcher types.GomegaMatcher) {
	t.Helper()
	NewWithT(t).Eventually(func() ([]v1alpha1.ApiKey, error) {
		var found v1alpha1.ApiKeyList
		err := f.objects.List(t.Context(), &found, client.MatchingFields{kube.DigestField: apikey.Digest(presented)})
		return found.Items, err
	}).WithTimeout(10 * time.Second).Should(matcher)
}

// request is what is sent. The zero request is a POST without a body.
type request struct {
	method      string
	path        string
	query       string
	contentType string
	body        string
	chunked     bool
	header      map[string]string
}

// answer is what came back.
type answer struct {
	status int
	body   string
	header http.Header
}

func (f *fixture) send(t *testing.T, r request) answer {
	t.Helper()
	got, err := f.exchange(t, r)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return got
}

// exchange is a send that may break off: ingress answers what it refuses before
// it has read all of it, and net/http may lose that answer.
func (f *fixture) exchange(t *testing.T, r request) (answer, error) {
	t.Helper()
	g := NewWithT(t)
	method, path := http.MethodPost, contactPath
	if r.method != "" {
		method = r.method
	}
	if r.path != "" {
		path = r.path
	}
	var body io.Reader = strings.NewReader(r.body)
	if r.chunked {
		body = io.MultiReader(body) // net/http doesn't know its length
	}
	sent, err := http.NewRequestWithContext(t.Context(), method, "http://"+f.address+path, body)
	g.Expect(err).NotTo(HaveOccurred())
	sent.URL.RawQuery = r.query
	if r.contentType != "" {
		sent.Header.Set("Content-Type", r.contentType)
	}
	for name, value := range r.header {
		sent.Header.Set(name, value)
	}
	response, err := http.DefaultTransport.RoundTrip(sent)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return answer{status: response.StatusCode, body: string(text), header: response.Header}, err
}

// contact returns what is stored for an address, nil when nothing is.
func (f *fixture) contact(t *testing.T, address string) *contact.Contact {
	t.Helper()
	var found *contact.Contact
	_, err := f.store.Change(t.Context(), store.Change{
		List:    f.list(),
		Address: address,
		Apply: func(current *contact.Contact) contact.Decision {
			found = current
			return contact.Decision{}
		},
	})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return found
}

func (f *fixture) list() contact.ListKey {
	return contact.ListKey{Namespace: f.namespace, Name: "newsletter"}
}

// events returns what happened so far to an address, as "Type Source [changed]".
func (f *fixture) events(t *testing.T, email string) (texts []string) {
	t.Helper()
	events, err := f.store.Read(t.Context(), store.Query{})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	for _, event := range events {
		if event.Contact.Email == email {
			texts = append(texts, strings.TrimSuffix(fmt.Sprintf("%s %s %v", event.Type, event.Source, event.Changed), " []"))
		}
	}
	return texts
}

// logBuffer keeps what is logged, at every verbosity.
type logBuffer struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (b *logBuffer) logger() logr.Logger {
	return funcr.New(func(prefix, arguments string) {
		b.mutex.Lock()
		defer b.mutex.Unlock()
		fmt.Fprintln(&b.text, prefix, arguments)
	}, funcr.Options{Verbosity: 10})
}

func (b *logBuffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.text.String()
}

func at(offset time.Duration) *metav1.Time { return new(metav1.NewTime(now.Add(offset))) }

func withLogs(ctx context.Context, logs *logBuffer) context.Context {
	return logr.NewContext(ctx, logs.logger())
}

// metrics returns what a scrape would.
func (f *fixture) metrics(t *testing.T) string {
	t.Helper()
	recorder := httptest.NewRecorder()
	scrape := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody)
	promhttp.HandlerFor(f.registry, promhttp.HandlerOpts{}).ServeHTTP(recorder, scrape)
	return recorder.Body.String()
}
