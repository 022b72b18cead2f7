// Package kube answers: how does a process see the resources?
//
// Ingress and dispatcher read them through an informer cache and have hardly any
// other right; this package makes it, with the index that finds an ApiKey by the
// digest of a presented key, and checks first that the cluster serves the
// version of the kinds that this program was built for.
package kube

import (
	"context"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/discovery"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
)

// DigestField is the cache index that finds an ApiKey by the digest of one of
// the keys in its status.
const DigestField = "status.keys.sha256"

// ErrCRDMissing: the cluster does not serve the version of the kinds that this
// program was built for.
var ErrCRDMissing = errors.New("custom resource definitions do not fit")

// NewScheme returns a scheme that knows our kinds and Kubernetes' own.
func NewScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	return scheme
}

// NewCache returns an informer cache of these kinds of ours, with the index of
// ApiKeys if they are among them. It asks for no right but to read them. The
// caller starts it.
func NewCache(ctx context.Context, config *rest.Config, kinds ...client.Object) (cache.Cache, error) {
	return NewCacheOf(ctx, nil, config, kinds...)
}

// NewCacheOf is NewCache for the objects of some namespaces, all when none is given.
func NewCacheOf(ctx context.Context, namespaces []string, config *rest.Config, kinds ...client.Object) (cache.Cache, error) {
	options := cache.Options{Scheme: NewScheme(), DefaultTransform: cache.TransformStripManagedFields()}
	objects, err := InNamespaces(namespaces)(config, options)
	if err != nil {
		return nil, fmt.Errorf("make the informer cache: %w", err)
	}
	for _, kind := range kinds {
		if _, err := objects.GetInformer(ctx, kind, cache.BlockUntilSynced(false)); err != nil {
			return nil, fmt.Errorf("make the informer of %T: %w", kind, err)
		}
		if _, isKey := kind.(*v1alpha1.ApiKey); !isKey {
			continue
		}
		if err := objects.IndexField(ctx, kind, DigestField, digestsOf); err != nil {
			return nil, fmt.Errorf("index api keys by digest: %w", err)
		}
	}
	return objects, nil
}

func digestsOf(object client.Object) []string {
	var digests []string
	for _, key := range object.(*v1alpha1.ApiKey).Status.Keys {
		digests = append(digests, key.SHA256)
	}
	return digests
}

// kinds are the plural names that the cluster must serve.
var kinds = []string{"contactlists", "apikeys", "webhooksubscriptions"}

// CheckVersion returns an error that wraps ErrCRDMissing unless the cluster
// serves all our kinds in the version that this program was built for.
func CheckVersion(config *rest.Config) error {
	client, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return fmt.Errorf("make the discovery client: %w", err)
	}
	groups, err := client.ServerGroups()
	if err != nil {
		return fmt.Errorf("ask the API server for its groups: %w", err)
	}
	group := findGroup(groups, v1alpha1.GroupVersion.Group)
	if group == nil {
		return fmt.Errorf("%w: the cluster does not know the group %s; apply config/crd first",
			ErrCRDMissing, v1alpha1.GroupVersion.Group)
	}
	resources, err := client.ServerResourcesForGroupVersion(v1alpha1.GroupVersion.String())
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%w: the cluster serves %s, this program needs %s; apply the config/crd of this version",
			ErrCRDMissing, strings.Join(versionsOf(group), ", "), v1alpha1.GroupVersion)
	case err != nil:
		return fmt.Errorf("ask the API server for the kinds of %s: %w", v1alpha1.GroupVersion, err)
	}
	for _, kind := range kinds {
		if !serves(resources, kind) {
			return fmt.Errorf("%w: the cluster does not serve %s in %s; apply the config/crd of this version",
				ErrCRDMissing, kind, v1alpha1.GroupVersion)
		}
	}
	return nil
}

func findGroup(groups *metav1.APIGroupList, name string) *metav1.APIGroup {
	for i := range groups.Groups {
		if groups.Groups[i].Name == name {
			return &groups.Groups[i]
		}
	}
	return nil
}

func versionsOf(group *metav1.APIGroup) []string {
	var versions []string
	for _, version := range group.Versions {
		versions = append(versions, version.GroupVersion)
	}
	return versions
}

func serves(resources *metav1.APIResourceList, plural string) bool {
	for _, resource := range resources.APIResources {
		if resource.Name == plural {
			return true
		}
	}
	return false
}
