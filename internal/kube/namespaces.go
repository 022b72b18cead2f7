package kube

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// InNamespaces returns a function that makes a cache of the objects of some namespaces, or
// of all when none is given. It watches each namespace by itself, so a Role in each is all
// the right that it needs. An object of any other namespace is not found.
func InNamespaces(namespaces []string) cache.NewCacheFunc {
	if len(namespaces) == 0 { // one cache of all namespaces needs much less for each read
		return cache.New
	}
	return func(config *rest.Config, options cache.Options) (cache.Cache, error) {
		options.DefaultNamespaces = map[string]cache.Config{}
		for _, namespace := range namespaces {
			options.DefaultNamespaces[namespace] = cache.Config{}
		}
		objects, err := cache.New(config, options)
		if err != nil {
			return nil, fmt.Errorf("make a cache of namespaces: %w", err)
		}
		return scoped{Cache: objects, scheme: options.Scheme, namespaces: options.DefaultNamespaces}, nil
	}
}

// scoped is a cache of some namespaces. controller-runtime's own fails to read any other,
// but the store may hold rows of objects there.
type scoped struct {
	cache.Cache
	scheme     *runtime.Scheme
	namespaces map[string]cache.Config
}

// Get implements client.Reader.
func (s scoped) Get(ctx context.Context, name client.ObjectKey, into client.Object, options ...client.GetOption) error {
	if _, watched := s.namespaces[name.Namespace]; !watched {
		kind, err := apiutil.GVKForObject(into, s.scheme)
		if err != nil {
			return fmt.Errorf("read %T: %w", into, err)
		}
		return apierrors.NewNotFound(schema.GroupResource{Group: kind.Group, Resource: kind.Kind}, name.Name)
	}
	return s.Cache.Get(ctx, name, into, options...) //nolint:wrapcheck // it stands in for the cache
}
