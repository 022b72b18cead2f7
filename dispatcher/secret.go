package dispatcher

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// secretTimeout bounds reading a Secret, from when it is its turn.
	secretTimeout = 5 * time.Second
	// secretReads is how many Secrets are read at a time.
	secretReads = 32
)

// secretReader reads Secrets, some at a time. When a dispatcher starts, the next event
// has each of its subscriptions read its own; an API server that is asked for thousands
// at once answers none of them in time, and their events would wait for a retry.
type secretReader struct {
	client.Reader
	turns chan struct{}
}

func newSecretReader(reader client.Reader) *secretReader {
	return &secretReader{Reader: reader, turns: make(chan struct{}, secretReads)}
}

// Get reads a Secret when it is its turn. The wait has no bound of its own: an attempt
// that waits has not begun.
func (r *secretReader) Get(ctx context.Context, name client.ObjectKey, object client.Object, options ...client.GetOption) error {
	select {
	case r.turns <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-r.turns }()
	ctx, cancel := context.WithTimeout(ctx, secretTimeout)
	defer cancel()
	return r.Reader.Get(ctx, name, object, options...)
}

// secretPlace tells where a secret value is, and when it has to be read again.
type secretPlace struct {
	// name is that of a Secret in the subscription's namespace, key its data key
	// where one is needed.
	name, key string
	// version is the Secret's resourceVersion that the controller last saw.
	version string
}

// keptSecret is a secret value of a subscription, parsed, or several of one kind. A
// value is read when it is first needed, and again when the controller has seen its
// Secret change: the dispatcher may get Secrets, not list or watch them.
type keptSecret[T any] struct {
	// title is what errors call it.
	title  string
	reader client.Reader
	// parse is given all that the Secret holds, and the data key. It returns
	// errors that don't show a value.
	parse func(data map[string][]byte, key string) (T, error)

	mu sync.Mutex
	// kept has the values by the Secret's name and data key.
	kept map[secretPlace]keptValue[T]
}

type keptValue[T any] struct {
	version string // of the Secret that it was read from
	value   T
}

// maxKept is how many values are kept. More than a spec can name are of names that
// it had before.
const maxKept = 32

// get returns what is kept in a place.
func (k *keptSecret[T]) get(ctx context.Context, namespace string, place secretPlace) (value T, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	named := secretPlace{name: place.name, key: place.key}
	if known, has := k.kept[named]; has && known.version == place.version {
		return known.value, nil
	}
	var object corev1.Secret
	name := types.NamespacedName{Namespace: namespace, Name: place.name}
	if err := k.reader.Get(ctx, name, &object); err != nil {
		return value, fmt.Errorf("read the %s %s: %w", k.title, name, err)
	}
	value, err = k.parse(object.Data, place.key)
	if err != nil {
		return value, fmt.Errorf("parse the %s %s: %w", k.title, name, err)
	}
	if k.kept == nil || len(k.kept) >= maxKept {
		k.kept = map[secretPlace]keptValue[T]{}
	}
	k.kept[named] = keptValue[T]{version: place.version, value: value}
	return value, nil
}

// ofOneKey returns how a secret is parsed that is under one data key.
func ofOneKey[T any](parse func(value []byte) (T, error)) func(data map[string][]byte, key string) (T, error) {
	return func(data map[string][]byte, key string) (T, error) { return parse(data[key]) }
}
