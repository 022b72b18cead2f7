package main

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

	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/hack/devenv/cluster"
	"postbus.dev/postbus/hack/devenv/process"
	"postbus.dev/postbus/internal/kube"
	"postbus.dev/postbus/internal/testkit"
)

const (
	// startPatience is how long anything may take to be ready.
	startPatience = time.Minute
	// stopPatience is how long it may take to end.
	stopPatience = 20 * time.Second
)

// plane is a control plane that installations of Postbus share, one after the other.
type plane struct {
	settings
	folder  string
	cluster *cluster.Cluster
	client  client.Client
	// server is started when it is needed first.
	server *testkit.PostgreSQL
	// installations and stores count, so that each has a name of its own.
	installations, stores int
}

func startPlane(ctx context.Context, s settings) (*plane, error) {
	p := &plane{settings: s}
	var err error
	if p.folder, err = os.MkdirTemp("", "postbus-bench-"); err != nil {
		return nil, fmt.Errorf("make a folder for everything: %w", err)
	}
	if err := p.start(ctx); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

func (p *plane) start(ctx context.Context) (err error) {
	p.cluster, err = cluster.Start(ctx, cluster.Options{
		Programs: p.programs, Dir: filepath.Join(p.folder, "cluster"), Logs: filepath.Join(p.folder, "logs"), Kubeconfig: p.kubeconfig(),
	})
	if err != nil {
		return err
	}
	if p.client, err = client.New(p.cluster.Config, client.Options{Scheme: kube.NewScheme()}); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	return cluster.InstallCRDs(ctx, p.client, p.crds)
}

func (p *plane) kubeconfig() string { return filepath.Join(p.folder, "kubeconfig") }

func (p *plane) stop() error {
	var errs []error
	if p.cluster != nil {
		errs = append(errs, p.cluster.Stop())
	}
	if p.server != nil {
		errs = append(errs, p.server.Remove())
	}
	return errors.Join(append(errs, os.RemoveAll(p.folder))...)
}

// run starts a program and returns once a URL of it answers 200.
func (p *plane) run(ctx context.Context, command process.Command, url string) (*process.Process, error) {
	command.LogDir = filepath.Join(p.folder, "logs")
	started, err := process.Start(command)
	if err != nil {
		return nil, err
	}
	if err := awaitOK(ctx, url); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", command.Name, err), started.Stop(stopPatience))
	}
	return started, nil
}

func awaitOK(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
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

// freeAddress returns an address of loopback that nobody listens on.
func freeAddress(ctx context.Context) (string, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return listener.Addr().String(), listener.Close()
}

// nextNamespace returns the name of a namespace that nothing was in.
func (p *plane) nextNamespace() string {
	p.installations++
	return "bench-" + strconv.Itoa(p.installations)
}
