package dispatcher

import (
	"context"
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
