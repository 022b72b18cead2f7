package controllers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// The namespace is that of config/default; each kustomization puts its own in its place.
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=postbus-system,resources=leases,verbs=create
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=postbus-system,resources=leases,resourceNames=controller.postbus.dev,verbs=get;update

// leaseName names the Lease that the acting controller holds.
const leaseName = "controller.postbus.dev"

// Lease says where controllers agree on which of them acts.
type Lease struct {
	// Namespace is where the Lease named controller.postbus.dev is. It must
	// exist.
	Namespace string
	// Identity names this controller. A process that starts again under the
	// identity of its predecessor has the lease at once; two that run at the
	// same time must differ. Random when empty.
	Identity string
	// Duration is how long a lease holds that is not renewed, 15s by default;
	// RenewDeadline how long its holder tries to renew it, 10s by default;
	// RetryPeriod how often each tries, 2s by default.
	Duration, RenewDeadline, RetryPeriod time.Duration
}

func (l Lease) withDefaults() Lease {
	if l.Identity == "" {
		host, _ := os.Hostname() // only for people to read
		l.Identity = host + "_" + string(uuid.NewUUID())
	}
	l.Duration = positive(l.Duration, 15*time.Second)
	l.RenewDeadline = positive(l.RenewDeadline, 10*time.Second)
	l.RetryPeriod = positive(l.RetryPeriod, 2*time.Second)
	return l
}

// lock returns the lock that the lease is. controller-runtime's own has a new
// identity in each process.
func (l Lease) lock(access *rest.Config) (resourcelock.Interface, error) {
	if l.Namespace == "" {
		return nil, errors.New("take the controller's lease: its namespace is not set")
	}
	access = rest.AddUserAgent(access, "leader-election")
	// One request that hangs must not cost the lease.
	access.Timeout = l.RenewDeadline / 2
	leases, err := coordinationclient.NewForConfig(access)
	if err != nil {
		return nil, fmt.Errorf("make a client of leases: %w", err)
	}
	return &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: l.Namespace, Name: leaseName},
		Client:     leases,
		LockConfig: resourcelock.ResourceLockConfig{Identity: l.Identity},
	}, nil
}

// leaseReport tells an operator which controller acts.
type leaseReport struct {
	lease   Lease
	reader  client.Reader
	elected <-chan struct{}
}

// NeedLeaderElection is false: waiting for the lease is what it tells about.
func (*leaseReport) NeedLeaderElection() bool { return false }

// Start tells that this controller waits, if it does not get the lease at the
// first try, and that it acts once it has it.
func (r *leaseReport) Start(ctx context.Context) error {
	logger := log.FromContext(ctx).WithValues("lease", r.lease.Namespace+"/"+leaseName)
	first := time.NewTimer(r.lease.RetryPeriod)
	defer first.Stop()
	for {
		select {
		case <-first.C:
			if holder := r.holder(ctx); holder != r.lease.Identity { // else it takes long to take it again
				logger.Info("Waiting for the lease: another controller holds it", "holder", holder)
			}
		case <-r.elected:
			logger.Info("Controller acts", "identity", r.lease.Identity)
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// holder names the holder of the lease as far as that can be told.
func (r *leaseReport) holder(ctx context.Context) string {
	lease := &coordinationv1.Lease{}
	err := r.reader.Get(ctx, client.ObjectKey{Namespace: r.lease.Namespace, Name: leaseName}, lease)
	switch {
	case err != nil:
		return "unknown: " + err.Error()
	case lease.Spec.HolderIdentity == nil:
		return ""
	}
	return *lease.Spec.HolderIdentity
}
