package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"postbus.dev/postbus/hack/devenv/cluster"
	"postbus.dev/postbus/hack/devenv/process"
	"postbus.dev/postbus/internal/kube"
	"postbus.dev/postbus/internal/testkit"
)

const (
	// startPatience is how long anything may take to be ready.
	startPatience = time.Minute
	// stopPatience is how long it may take to end: what Kubernetes gives a pod.
	stopPatience = 30 * time.Second
	// memoryFolder is where Linux keeps files in memory.
	memoryFolder = "/dev/shm"
	// firstPort and lastPort are where addresses are looked for.
	firstPort, lastPort = 20_000, 30_000
)

// plane is a control plane that installations of Postbus share, one after the other.
type plane struct {
	settings
	// folder is on the disk, memory is not where the system has such a place.
	folder, memory string

	cluster *cluster.Cluster
	client  client.WithWatch
	// server is started when it is needed first.
	server *testkit.PostgreSQL
	// port is the last one that was looked at.
	port int
	// installations and stores count, so that each has a name of its own.
	installations, stores int
	// accepted is how many contacts a second were accepted from 64 callers.
	accepted map[engine]float64
}

func startPlane(ctx context.Context, s settings) (*plane, error) {
	log.SetLogger(logr.Discard()) // what clients of the API server have to say
	p := &plane{settings: s, port: firstPort, accepted: map[engine]float64{}}
	var err error
	if p.folder, err = os.MkdirTemp("", "postbus-bench-"); err != nil {
		return nil, fmt.Errorf("make a folder for everything: %w", err)
	}
	if p.memory, err = os.MkdirTemp(memoryFolder, "postbus-bench-"); errors.Is(err, fs.ErrNotExist) {
		p.memory, err = p.folder, nil
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a folder in memory: %w", err), p.stop())
	}
	if err := p.start(ctx); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

func (p *plane) start(ctx context.Context) (err error) {
	p.cluster, err = cluster.Start(ctx, cluster.Options{
		Programs: p.programs, Dir: p.clusterFolder(), Logs: filepath.Join(p.folder, "logs"), Kubeconfig: p.kubeconfig(),
	})
	if err != nil {
		return err
	}
	access := rest.CopyConfig(p.cluster.Config)
	access.QPS = -1 // thousands of objects are made
	if p.client, err = client.NewWithWatch(access, client.Options{Scheme: kube.NewScheme()}); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	return cluster.InstallCRDs(ctx, p.client, p.crds)
}

// renewCluster replaces the cluster by an empty one, with the same certificates.
func (p *plane) renewCluster(ctx context.Context) error {
	if err := p.cluster.Stop(); err != nil {
		return err
	}
	p.cluster = nil
	if err := os.RemoveAll(filepath.Join(p.clusterFolder(), "etcd")); err != nil {
		return fmt.Errorf("remove what the cluster has: %w", err)
	}
	return p.start(ctx)
}

func (p *plane) clusterFolder() string { return filepath.Join(p.folder, "cluster") }

func (p *plane) kubeconfig() string { return filepath.Join(p.folder, "kubeconfig") }

func (p *plane) stop() error {
	var errs []error
	if p.cluster != nil {
		errs = append(errs, p.cluster.Stop())
	}
	if p.server != nil {
		errs = append(errs, p.server.Remove())
	}
	return errors.Join(append(errs, os.RemoveAll(p.folder), os.RemoveAll(p.memory))...)
}

// run starts a program and returns once a URL of it answers 200.
func (p *plane) run(ctx context.Context, command process.Command, url string) (*process.Process, error) {
	command.LogDir = filepath.Join(p.folder, "logs")
	started, err := process.Start(command)
	if err != nil {
		return nil, err
	}
	if err := awaitOK(ctx, http.MethodGet, url); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", command.Name, err), started.Stop(stopPatience))
	}
	return started, nil
}

// awaitOK returns once a request is answered with 200.
func awaitOK(ctx context.Context, method, url string) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, method, url, http.NoBody)
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", linesType)
		if response, err := http.DefaultClient.Do(request); err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer 200: %w", url, ctx.Err())
		}
	}
}

// freeAddress returns an address of loopback that nobody listens on. It is below those
// that the system gives to connections, of which there are thousands.
func (p *plane) freeAddress(ctx context.Context) (string, error) {
	for p.port < lastPort {
		p.port++
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)))
		if err == nil {
			return listener.Addr().String(), listener.Close()
		}
	}
	return "", errors.New("find a free port: there is none")
}

// nextNamespace returns the name of a namespace that nothing was in.
func (p *plane) nextNamespace() string {
	p.installations++
	return "bench-" + strconv.Itoa(p.installations)
}
