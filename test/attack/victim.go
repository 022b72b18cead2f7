package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/hack/devenv/cluster"
	"postbus.dev/postbus/hack/devenv/process"
	"postbus.dev/postbus/internal/apikey"
	"postbus.dev/postbus/internal/kube"
)

const (
	namespace    = "attack"
	startTimeout = time.Minute
	stopPatience = 10 * time.Second
	// postTimeout is how long the good caller waits, and postInterval how long
	// between its posts.
	postTimeout   = 10 * time.Second
	postInterval  = 20 * time.Millisecond
	watchInterval = 50 * time.Millisecond
)

// victim is a postbus standalone with TLS and a Kubernetes API of its own.
type victim struct {
	folder  string
	address string
	key     string
	cluster *cluster.Cluster
	postbus *process.Process
	client  *http.Client
}

func startVictim(ctx context.Context, s settings) (v *victim, err error) {
	v = &victim{key: apikey.Generate(), client: &http.Client{Timeout: postTimeout, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // it is ours, on loopback
	}}}
	if v.folder, err = os.MkdirTemp("", "postbus-attack-"); err != nil {
		return nil, fmt.Errorf("make a folder for everything: %w", err)
	}
	for _, step := range []func(context.Context, settings) error{v.startCluster, v.startPostbus, v.declare} {
		if err := step(ctx, s); err != nil {
			return nil, errors.Join(err, v.stop())
		}
	}
	return v, nil
}

func (v *victim) path(name string) string { return filepath.Join(v.folder, name) }

func (v *victim) startCluster(ctx context.Context, s settings) (err error) {
	v.cluster, err = cluster.Start(ctx, cluster.Options{
		Programs: s.programs, Dir: v.path("cluster"), Logs: v.path("logs"), Kubeconfig: v.path("kubeconfig"),
	})
	if err != nil {
		return err
	}
	api, err := client.New(v.cluster.Config, client.Options{Scheme: kube.NewScheme()})
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	return cluster.InstallCRDs(ctx, api, s.crds)
}

func (v *victim) startPostbus(ctx context.Context, s settings) (err error) {
	if err := v.writeCertificate(); err != nil {
		return err
	}
	if v.address, err = freeAddress(ctx); err != nil {
		return err
	}
	metrics, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	v.postbus, err = process.Start(process.Command{Name: "postbus", Path: s.postbus, LogDir: v.path("logs"), Args: []string{
		"standalone", "--kubeconfig=" + v.path("kubeconfig"), "--store=" + v.path("postbus.db"), "--lease-namespace=default",
		"--ingress-address=" + v.address, "--metrics-address=" + metrics,
		"--tls-cert-file=" + v.path("tls.crt"), "--tls-key-file=" + v.path("tls.key"),
	}})
	if err != nil {
		return err
	}
	return eventually(ctx, func() bool { return v.get(ctx, "/readyz") })
}

// declare applies a list and a key, and returns once the key works.
func (v *victim) declare(ctx context.Context, _ settings) error {
	api, err := client.New(v.cluster.Config, client.Options{Scheme: kube.NewScheme()})
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	named := metav1.ObjectMeta{Namespace: namespace, Name: "good"}
	for _, object := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}},
		&corev1.Secret{ObjectMeta: named, StringData: map[string]string{apikey.SecretKey: v.key}},
		&v1alpha1.ContactList{ObjectMeta: named},
		&v1alpha1.ApiKey{ObjectMeta: named, Spec: v1alpha1.ApiKeySpec{
			ListRef: v1alpha1.ListReference{Name: named.Name}, Scopes: []v1alpha1.ApiKeyScope{v1alpha1.ScopeContactsWrite},
		}},
	} {
		if err := api.Create(ctx, object); err != nil {
			return fmt.Errorf("create %T %s: %w", object, object.GetName(), err)
		}
	}
	return eventually(ctx, func() bool { return v.post(ctx, "first@example.com") })
}

// eventually returns nil once done holds.
func eventually(ctx context.Context, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	ticker := time.NewTicker(postInterval)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("postbus is not ready: %w", ctx.Err())
		}
	}
	return nil
}

func (v *victim) get(ctx context.Context, path string) bool {
	return v.answered(ctx, http.MethodGet, path, http.NoBody)
}

func (v *victim) post(ctx context.Context, email string) bool {
	form := url.Values{"key": {v.key}, "email": {email}}
	return v.answered(ctx, http.MethodPost, "/webhooks/contacts/email", strings.NewReader(form.Encode()))
}

// answered reports whether a request is answered with 200.
func (v *victim) answered(ctx context.Context, method, path string, body io.Reader) bool {
	request, err := http.NewRequestWithContext(ctx, method, "https://"+v.address+path, body)
	if err != nil {
		return false
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := v.client.Do(request)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, response.Body)
	return errors.Join(err, response.Body.Close()) == nil && response.StatusCode == http.StatusOK
}

// postUntil posts contacts as a good caller does until the context ends. It returns
// how long those took that were answered, and how many were not.
func (v *victim) postUntil(ctx context.Context) (took []time.Duration, faults int64) {
	ticker := time.NewTicker(postInterval)
	defer ticker.Stop()
	posting := context.WithoutCancel(ctx)
	for n := 0; ; n++ {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return took, faults
		}
		began := time.Now()
		if v.post(posting, fmt.Sprintf("good.%d@example.com", n)) {
			took = append(took, time.Since(began))
		} else {
			faults++
		}
	}
}

// watch records the most memory that postbus has until the context ends.
func (v *victim) watch(ctx context.Context, most *atomic.Int64) {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		if resident, err := v.residentBytes(); err == nil {
			most.Store(max(most.Load(), resident))
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// residentBytes reads how much memory postbus has, from /proc.
func (v *victim) residentBytes() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.postbus.PID()))
	if err != nil {
		return 0, fmt.Errorf("read the memory of postbus: %w", err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	var kilobytes int64
	if _, err := fmt.Sscan(rest, &kilobytes); err != nil {
		return 0, fmt.Errorf("read the memory of postbus: %w", err)
	}
	return kilobytes << 10, nil
}

// ended reports whether postbus has ended by itself.
func (v *victim) ended() bool {
	select {
	case <-v.postbus.Done():
		return true
	default:
		return false
	}
}

func (v *victim) stop() error {
	var errs []error
	if v.postbus != nil {
		errs = append(errs, v.postbus.Stop(stopPatience))
	}
	if v.cluster != nil {
		errs = append(errs, v.cluster.Stop())
	}
	return errors.Join(append(errs, os.RemoveAll(v.folder))...)
}

// writeCertificate writes a certificate for 127.0.0.1 and its key.
func (v *victim) writeCertificate() error {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: now, NotAfter: now.Add(24 * time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(v.path("tls.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), 0o600),
		os.WriteFile(v.path("tls.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600),
	)
}

func freeAddress(ctx context.Context) (string, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}
