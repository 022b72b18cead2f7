package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/internal/secretowner"
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
	// version is the Secret's resourceVersion that the controller checked; empty when it found
	// none that is good.
	version string
}

// errNotChecked is the error of a Secret that is not there in the version that the controller
// checked. The controller is about to check it, and to say in status what it found.
var errNotChecked = errors.New("the controller has not checked this version of it")

// errOtherOwner is the error of a Secret that was generated for another object of Postbus.
var errOtherOwner = errors.New("it was generated for another object")

// keptSecret is a secret value of a subscription, parsed, or several of one kind. A value is used
// only in the version of its Secret that the controller checked. It is read when it is first
// needed, and again when status names another version: the dispatcher may get Secrets, not list or
// watch them.
type keptSecret[T any] struct {
	// title is what errors call it.
	title  string
	reader client.Reader
	// parse is given all that the Secret holds, and the data key. It returns
	// errors that don't show a value.
	parse func(data map[string][]byte, key string) (T, error)

	// reads lets attempts that need the same value share one read of the API server.
	reads singleflight.Group
	// mu guards kept. It is never held while the API server is asked.
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

// errReaderLeft is the error of a shared read that ended because the attempt that began it ended.
var errReaderLeft = errors.New("the attempt that read it has ended")

// get returns what is kept in a place. The error wraps errNotChecked where the Secret is not there
// in the version that status names, or status names none.
func (k *keptSecret[T]) get(ctx context.Context, s *subscription, place secretPlace) (value T, err error) {
	if known, has := k.lookup(place); has {
		return known, nil
	}
	return k.share(ctx, s, place)
}

// share reads a value, together with the other attempts that need it now.
func (k *keptSecret[T]) share(ctx context.Context, s *subscription, place secretPlace) (value T, err error) {
	name := types.NamespacedName{Namespace: s.key.Namespace, Name: place.name}
	if place.version == "" {
		return value, fmt.Errorf("read the %s %s: %w", k.title, name, errNotChecked)
	}
	for {
		read := k.reads.DoChan(place.name+" "+place.key+" "+place.version, func() (any, error) {
			read, err := k.read(ctx, name, s.uid, place)
			if err != nil && ctx.Err() != nil {
				return nil, errReaderLeft
			}
			return read, err
		})
		select {
		case <-ctx.Done():
			return value, ctx.Err()
		case result := <-read:
			switch {
			case result.Err == nil:
				return result.Val.(T), nil
			case !errors.Is(result.Err, errReaderLeft):
				return value, result.Err
			case ctx.Err() != nil:
				return value, ctx.Err()
			}
		}
	}
}

// lookup returns the kept value of a place, if it is of the version that is wanted.
func (k *keptSecret[T]) lookup(place secretPlace) (value T, has bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	known, has := k.kept[secretPlace{name: place.name, key: place.key}]
	return known.value, has && place.version != "" && known.version == place.version
}

// read reads a value from the API server, and keeps it.
func (k *keptSecret[T]) read(ctx context.Context, name types.NamespacedName, uid types.UID, place secretPlace) (value T, err error) {
	var object corev1.Secret
	if err := k.reader.Get(ctx, name, &object); err != nil {
		return value, fmt.Errorf("read the %s %s: %w", k.title, name, err)
	}
	if secretowner.Other(&object, uid) != nil {
		return value, fmt.Errorf("read the %s %s: %w", k.title, name, errOtherOwner)
	}
	if object.ResourceVersion != place.version {
		return value, fmt.Errorf("read the %s %s: %w", k.title, name, errNotChecked)
	}
	value, err = k.parse(object.Data, place.key)
	if err != nil {
		return value, fmt.Errorf("parse the %s %s: %w", k.title, name, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kept == nil || len(k.kept) >= maxKept {
		k.kept = map[secretPlace]keptValue[T]{}
	}
	k.kept[secretPlace{name: place.name, key: place.key}] = keptValue[T]{version: place.version, value: value}
	return value, nil
}

// ofOneKey returns how a secret is parsed that is under one data key.
func ofOneKey[T any](parse func(value []byte) (T, error)) func(data map[string][]byte, key string) (T, error) {
	return func(data map[string][]byte, key string) (T, error) { return parse(data[key]) }
}
