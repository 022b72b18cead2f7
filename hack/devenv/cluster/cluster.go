package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"postbus.dev/postbus/hack/devenv/process"
)

// loopback is the only address that anything listens on.
const loopback = "127.0.0.1"

// startTimeout bounds the start of etcd and of kube-apiserver each, on a busy
// machine; an idle one needs three seconds for both.
const startTimeout = 2 * time.Minute

// stopGrace is how long each may take to end.
const stopGrace = 20 * time.Second

// Options say which programs to start and where.
type Options struct {
	// Programs is the folder that has etcd and kube-apiserver.
	Programs string
	// Dir is the folder for data and certificates. One cluster at a time can
	// use it.
	Dir string
	// Logs is the folder for the programs' logs.
	Logs string
	// Kubeconfig is the file that gets an administrator's access, readable by
	// the user alone.
	Kubeconfig string
}

// Cluster is a running etcd and kube-apiserver.
type Cluster struct {
	// Config is an administrator's access to the API server.
	Config *rest.Config

	etcd      *process.Process
	apiserver *process.Process
}

// Start starts a cluster and waits until its API server is ready. Its port is
// that of the last start where that is free, so a kubeconfig in use elsewhere
// stays right.
func Start(ctx context.Context, options Options) (*Cluster, error) {
	if err := os.MkdirAll(options.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the cluster's folder: %w", err)
	}
	access, err := loadOrMakeCredentials(options.Dir)
	if err != nil {
		return nil, err
	}
	c := &Cluster{}
	if err := c.start(ctx, options, access); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context, options Options, access credentials) error {
	etcdURL, err := c.startEtcd(ctx, options)
	if err != nil {
		return err
	}
	port, err := pickPort(lastPort(options.Kubeconfig))
	if err != nil {
		return err
	}
	if c.apiserver, err = process.Start(apiserverCommand(options, access, etcdURL, port)); err != nil {
		return err
	}
	address := net.JoinHostPort(loopback, strconv.Itoa(port))
	c.Config = &rest.Config{
		Host:            "https://" + address,
		BearerToken:     access.token,
		TLSClientConfig: rest.TLSClientConfig{CAFile: servingCertificate(options)},
	}
	if err := c.untilReady(ctx, c.apiserver, c.askAPIServer); err != nil {
		return fmt.Errorf("start kube-apiserver: %w", err)
	}
	return writeKubeconfig(options.Kubeconfig, c.Config)
}

// Stop stops what runs, the API server first.
func (c *Cluster) Stop() error {
	var errs []error
	for _, p := range []*process.Process{c.apiserver, c.etcd} {
		if p != nil {
			errs = append(errs, p.Stop(stopGrace))
		}
	}
	return errors.Join(errs...)
}

// Ended returns a channel that gets an error when a process of the cluster
// ends by itself.
func (c *Cluster) Ended() <-chan error {
	ended := make(chan error, 2)
	for _, p := range []*process.Process{c.apiserver, c.etcd} {
		go func() {
			<-p.Done()
			ended <- p.Exit()
		}()
	}
	return ended
}

func (c *Cluster) startEtcd(ctx context.Context, options Options) (string, error) {
	clientPort, err := pickPort(0)
	if err != nil {
		return "", err
	}
	clients := "http://" + net.JoinHostPort(loopback, strconv.Itoa(clientPort))
	peers := "http://" + net.JoinHostPort(loopback, "0")
	c.etcd, err = process.Start(process.Command{
		Name: "etcd", Path: filepath.Join(options.Programs, "etcd"), LogDir: options.Logs,
		Args: []string{
			"--name=postbus",
			"--data-dir=" + filepath.Join(options.Dir, "etcd"),
			"--listen-client-urls=" + clients,
			"--advertise-client-urls=" + clients,
			"--listen-peer-urls=" + peers,
			"--initial-advertise-peer-urls=" + peers,
			"--initial-cluster=postbus=" + peers,
			"--log-level=warn",
		},
	})
	if err != nil {
		return "", err
	}
	healthy := func(ctx context.Context) error { return ask(ctx, http.DefaultClient, clients+"/health") }
	if err := c.untilReady(ctx, c.etcd, healthy); err != nil {
		return "", fmt.Errorf("start etcd: %w", err)
	}
	return clients, nil
}

func apiserverCommand(options Options, access credentials, etcdURL string, port int) process.Command {
	return process.Command{
		Name: "kube-apiserver", Path: filepath.Join(options.Programs, "kube-apiserver"),
		LogDir: options.Logs,
		Args: []string{
			"--etcd-servers=" + etcdURL,
			"--cert-dir=" + filepath.Join(options.Dir, "certificates"),
			"--bind-address=" + loopback,
			"--advertise-address=" + loopback,
			"--secure-port=" + strconv.Itoa(port),
			"--token-auth-file=" + access.tokenFile,
			"--anonymous-auth=false",
			"--authorization-mode=RBAC",
			"--service-account-issuer=https://kubernetes.default.svc",
			"--service-account-key-file=" + access.serviceAccountKeyFile,
			"--service-account-signing-key-file=" + access.serviceAccountKeyFile,
			"--service-cluster-ip-range=10.0.0.0/24",
			// There are no endpoints to keep for an API server that comes and goes.
			"--endpoint-reconciler-type=none",
			"--disable-admission-plugins=ServiceAccount",
		},
	}
}

// servingCertificate is the certificate that kube-apiserver makes for itself.
func servingCertificate(options Options) string {
	return filepath.Join(options.Dir, "certificates", "apiserver.crt")
}

func (c *Cluster) askAPIServer(ctx context.Context) error {
	client, err := rest.HTTPClientFor(c.Config)
	if err != nil {
		return fmt.Errorf("make a client: %w", err) // the certificate is not written yet
	}
	return ask(ctx, client, c.Config.Host+"/readyz")
}

// untilReady asks until the answer is nil, the process has ended, or the time is up.
func (c *Cluster) untilReady(ctx context.Context, p *process.Process, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.Done():
			return p.Exit()
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", err)
		case <-tick.C:
		}
	}
}

func ask(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", request.URL.Path, answer.Status)
	}
	return nil
}

// pickPort returns the wanted port where it is free, and another free one
// where it is not or none is wanted.
func pickPort(wanted int) (int, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(loopback, strconv.Itoa(wanted))) //nolint:noctx // binds at once
	if err != nil {
		if listener, err = net.Listen("tcp", net.JoinHostPort(loopback, "0")); err != nil { //nolint:noctx // binds at once
			return 0, fmt.Errorf("find a free port: %w", err)
		}
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// lastPort returns the API server's port in a kubeconfig on this machine, and
// 0 where there is none.
func lastPort(kubeconfig string) int {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if kubeconfig == "" || err != nil {
		return 0
	}
	host, port, err := net.SplitHostPort(trimScheme(config.Host))
	if err != nil || host != loopback {
		return 0
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return 0
	}
	return number
}
