package dispatcher

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// countingReader counts how many reads are under way at most.
type countingReader struct {
	client.Reader
	now, most atomic.Int64
}

func (r *countingReader) Get(ctx context.Context, name client.ObjectKey, object client.Object, options ...client.GetOption) error {
	now := r.now.Add(1)
	defer r.now.Add(-1)
	for most := r.most.Load(); now > most && !r.most.CompareAndSwap(most, now); most = r.most.Load() {
	}
	return r.Reader.Get(ctx, name, object, options...)
}

// However many Secrets are wanted at once, the API server is asked for a few at a time.
func TestSecretsAreReadByTurns(t *testing.T) {
	g := NewWithT(t)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: plane.Namespace(t), Name: "wanted"}}
	g.Expect(plane.Client.Create(t.Context(), secret)).To(Succeed())
	counting := &countingReader{Reader: plane.Client}
	reader := newSecretReader(counting)
	var reads sync.WaitGroup
	for range 20 * secretReads {
		reads.Go(func() {
			g.Expect(reader.Get(t.Context(), client.ObjectKeyFromObject(secret), &corev1.Secret{})).To(Succeed())
		})
	}
	reads.Wait()
	g.Expect(counting.most.Load()).To(BeNumerically("<=", secretReads))

	for range secretReads { // all turns are taken, and whoever waits is told to end
		reader.turns <- struct{}{}
	}
	ended, end := context.WithCancel(t.Context())
	end()
	g.Expect(reader.Get(ended, client.ObjectKeyFromObject(secret), &corev1.Secret{})).To(MatchError(context.Canceled))
}

// checked returns a subscription of a test as if the controller had just checked its Secrets: each
// place names the version that the API server has. The first attempt reads them.
func checked(t *testing.T, s *subscription) *subscription {
	t.Helper()
	same := *s
	version := func(place *secretPlace) {
		var secret corev1.Secret
		err := plane.Client.Get(t.Context(), client.ObjectKey{Namespace: s.key.Namespace, Name: place.name}, &secret)
		if place.version = secret.ResourceVersion; err != nil { // it was deleted since
			place.version = "1"
		}
	}
	for _, place := range []*secretPlace{&same.signingSecret, &same.urlSecret, &same.encryptionKey, &same.tls.ca, &same.tls.clientCert} {
		if place.name != "" {
			version(place)
		}
	}
	same.headers = slices.Clone(s.headers)
	for i := range same.headers {
		if same.headers[i].secret.name != "" {
			version(&same.headers[i].secret)
		}
	}
	if s.grant != nil {
		grant := *s.grant
		version(&grant.client)
		same.grant = &grant
	}
	return &same
}
