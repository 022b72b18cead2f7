package testkit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"postbus.dev/postbus/internal/kube"
)

// ErrNoControlPlane tells that the programs of the control plane are not there.
var ErrNoControlPlane = errors.New("no programs of a control plane")

// startTimeout bounds the start and the stop of etcd and of kube-apiserver
// each. On two busy cores a start takes some ten seconds.
const startTimeout = 2 * time.Minute

// ControlPlane is a running etcd and kube-apiserver that serves our kinds, or
// the existing cluster that USE_EXISTING_CLUSTER=true and KUBECONFIG name.
type ControlPlane struct {
	// Config is an administrator's access to the API server.
	Config *rest.Config
	// Client reads and writes the API server directly, without a cache.
	Client client.Client

	environment *envtest.Environment
}

// Run is the whole of a TestMain: it starts a control plane, hands it to use,
// runs the package's tests, stops it, and returns the exit code. It writes why
// it could not start to standard error.
func Run(m *testing.M, use func(*ControlPlane)) int {
	plane, err := StartControlPlane()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	use(plane)
	code := m.Run()
	if err := plane.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// StartControlPlane starts a control plane from the programs in the folder
// that KUBEBUILDER_ASSETS names, by default the module's bin, and installs
// config/crd. One serves all tests of a package. The error wraps
// ErrNoControlPlane when the programs are missing.
func StartControlPlane() (*ControlPlane, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	// controller-runtime complains on its global logger until one is set. What
	// is tested gets its logger by its context.
	log.SetLogger(logr.Discard())
	environment := &envtest.Environment{
		CRDDirectoryPaths:        []string{filepath.Join(root, "config", "crd")},
		ErrorIfCRDPathMissing:    true,
		ControlPlaneStartTimeout: startTimeout,
		ControlPlaneStopTimeout:  startTimeout,
	}
	if !existingCluster() {
		environment.BinaryAssetsDirectory = assets(root)
		if err := checkAssets(environment.BinaryAssetsDirectory); err != nil {
			return nil, err
		}
	}
	config, err := environment.Start()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the control plane: %w", err), environment.Stop())
	}
	direct, err := client.New(config, client.Options{Scheme: kube.NewScheme()})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a client: %w", err), environment.Stop())
	}
	return &ControlPlane{Config: config, Client: direct, environment: environment}, nil
}

// Stop stops the control plane and removes what it stored.
func (p *ControlPlane) Stop() error {
	if err := p.environment.Stop(); err != nil {
		return fmt.Errorf("stop the control plane: %w", err)
	}
	return nil
}

// Namespace makes a namespace for one test and returns its name. On an
// existing cluster it is deleted after the test; the test control plane has no
// controller that could finish that, and ends with the package.
func (p *ControlPlane) Namespace(t testing.TB) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	if err := p.Client.Create(t.Context(), namespace); err != nil {
		t.Fatalf("create a namespace: %v", err)
	}
	if existingCluster() {
		ctx := context.WithoutCancel(t.Context())
		t.Cleanup(func() {
			if err := p.Client.Delete(ctx, namespace); err != nil {
				t.Errorf("delete namespace %s: %v", namespace.Name, err)
			}
		})
	}
	return namespace.Name
}

func existingCluster() bool { return os.Getenv("USE_EXISTING_CLUSTER") == "true" }

func assets(root string) string {
	if folder := os.Getenv("KUBEBUILDER_ASSETS"); folder != "" {
		return folder
	}
	return filepath.Join(root, "bin")
}

func checkAssets(folder string) error {
	for _, program := range []string{"etcd", "kube-apiserver"} {
		if _, err := os.Stat(filepath.Join(folder, program)); err != nil {
			return fmt.Errorf("%w: %s is not in %s; `make controlplane` builds it there",
				ErrNoControlPlane, program, folder)
		}
	}
	return nil
}

// moduleRoot returns the folder of the module that the test belongs to: go
// test runs each package's tests in the package's folder.
func moduleRoot() (string, error) {
	folder, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the working folder: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(folder, "go.mod")); err == nil {
			return folder, nil
		}
		parent := filepath.Dir(folder)
		if parent == folder {
			return "", errors.New("find the module root: no go.mod above the working folder")
		}
		folder = parent
	}
}
