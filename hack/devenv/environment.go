package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/hack/devenv/cluster"
	"postbus.dev/postbus/hack/devenv/mailbox"
	"postbus.dev/postbus/hack/devenv/process"
	"postbus.dev/postbus/hack/devenv/receiver"
	"postbus.dev/postbus/internal/kube"
)

const (
	// readyTimeout bounds the first start of postbus.
	readyTimeout = time.Minute
	// stopGrace is how long postbus may take to end, with calls under way.
	stopGrace = 45 * time.Second
	// receiverGrace is how long answers that the receiver delays may take to end.
	receiverGrace = time.Second
)

// environment is everything that runs.
type environment struct {
	settings settings
	tell     func(line string)
	receiver *receiver.Receiver
	mailbox  *mailbox.Mailbox
	postbus  *process.Supervisor

	cluster *cluster.Cluster // nil with an existing cluster
	client  client.Client
}

// newEnvironment describes an environment that tells of its progress, of each
// call of the receiver and of each mail, in lines.
func newEnvironment(s settings, tell, tellOfCall, tellOfMail func(line string)) *environment {
	e := &environment{settings: s, tell: tell, receiver: receiver.New(tellOfCall), mailbox: mailbox.New(tellOfMail)}
	e.postbus = &process.Supervisor{
		Command:      postbusCommand(s),
		Ready:        e.ingressReady,
		ReadyTimeout: readyTimeout,
		Grace:        stopGrace,
		Tell:         tell,
	}
	return e
}

func postbusCommand(s settings) process.Command {
	return process.Command{
		Name: "postbus", Path: s.postbus, LogDir: s.logs(),
		Args: []string{
			"standalone",
			"--kubeconfig=" + s.kubeconfig,
			"--store=" + filepath.Join(s.dir, "postbus.db"),
			"--ingress-address=" + s.ingress,
			"--metrics-address=" + s.metrics,
			"--allow-plain-http",
			"--allow-http-callbacks",
			allowReceiver(dialable(s.receiver)),
			"--public-url=http://" + dialable(s.ingress),
			"--smtp-server=smtp+plain://" + dialable(s.mail),
			"--mail-from=Postbus <postbus@localhost>",
		},
	}
}

// allowReceiver returns the flag that lets callbacks point to the receiver, which
// no public address is.
func allowReceiver(address string) string {
	host, _, _ := net.SplitHostPort(address) // it was listened on
	if addr, err := netip.ParseAddr(host); err == nil {
		return "--allow-callback-networks=" + netip.PrefixFrom(addr, addr.BitLen()).String()
	}
	return "--allow-callback-hosts=" + host
}

// during starts everything, runs the story, and stops everything, whatever the
// story's outcome. It ends the story's context when a part dies for good.
func (e *environment) during(ctx context.Context, story func(context.Context) error) (err error) {
	claimed, err := e.claimAddresses(ctx)
	if err != nil {
		return err
	}
	defer claimed.close()
	if err := e.startCluster(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.stopCluster()) }()

	// Receiver, mailbox and cluster outlive the end of ctx, so that postbus can
	// finish the calls under way first.
	parts, stopParts := context.WithCancel(context.WithoutCancel(ctx))
	defer stopParts()
	group, parts := errgroup.WithContext(parts)
	group.Go(func() error { return e.serveReceiver(parts, claimed[receiverVariable]) })
	group.Go(func() error { return e.mailbox.Serve(parts, claimed[mailVariable]) })
	group.Go(func() error { return e.watchCluster(parts) })
	group.Go(func() error {
		defer stopParts()
		ctx, end := context.WithCancel(ctx)
		defer end()
		defer context.AfterFunc(parts, end)()
		return e.withPostbus(ctx, story)
	})
	return group.Wait()
}

// withPostbus runs the story while postbus runs.
func (e *environment) withPostbus(ctx context.Context, story func(context.Context) error) error {
	e.tell("starting postbus")
	if err := e.postbus.Start(ctx); err != nil {
		return err
	}
	ctx, end := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return e.postbus.Run(ctx) })
	group.Go(func() error {
		defer end()
		return story(ctx)
	})
	return group.Wait()
}

// listeners are by the variable that names their address.
type listeners map[string]net.Listener

func (l listeners) close() {
	for _, listener := range l {
		listener.Close()
	}
}

// claimAddresses says which address is taken before anything is started. It
// keeps the receiver's and the mailbox's; postbus binds its own.
func (e *environment) claimAddresses(ctx context.Context) (listeners, error) {
	claimed := listeners{}
	for _, a := range e.settings.addresses() {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a.address)
		if err != nil {
			claimed.close()
			return nil, explain(a, err)
		}
		if a.variable == receiverVariable || a.variable == mailVariable {
			claimed[a.variable] = listener
			continue
		}
		listener.Close()
	}
	return claimed, nil
}

func explain(a namedAddress, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is in use by another process: end it, or choose another address with %s", a.address, a.variable)
	}
	return fmt.Errorf("listen on %s, which %s names: %w", a.address, a.variable, err)
}

func (e *environment) startCluster(ctx context.Context) error {
	config, err := e.connect(ctx)
	if err != nil {
		return err
	}
	e.client, err = client.New(config, client.Options{Scheme: kube.NewScheme()})
	if err == nil {
		e.tell("installing the custom resource definitions")
		err = cluster.InstallCRDs(ctx, e.client, filepath.Join(e.settings.config, "crd"))
	}
	if err != nil {
		return errors.Join(err, e.stopCluster())
	}
	return nil
}

// connect starts a cluster, or takes the existing one.
func (e *environment) connect(ctx context.Context) (*rest.Config, error) {
	s := e.settings
	if s.existing {
		config, err := cluster.UseExisting(s.existingKubeconfig, s.kubeconfig)
		if err == nil {
			e.tell("using the existing cluster " + config.Host)
		}
		return config, err
	}
	e.tell("starting etcd and kube-apiserver, with their data in " + s.dir)
	started, err := cluster.Start(ctx, cluster.Options{
		Programs: s.programs, Dir: filepath.Join(s.dir, "cluster"), Logs: s.logs(), Kubeconfig: s.kubeconfig,
	})
	if err != nil {
		return nil, err
	}
	e.cluster = started
	return started.Config, nil
}

func (e *environment) stopCluster() error {
	if e.cluster == nil {
		return nil
	}
	return e.cluster.Stop()
}

// watchCluster returns an error when a process of the cluster dies.
func (e *environment) watchCluster(ctx context.Context) error {
	if e.cluster == nil {
		return nil
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-e.cluster.Ended():
		return err
	}
}

func (e *environment) serveReceiver(ctx context.Context, listener net.Listener) error {
	server := &http.Server{Handler: e.receiver, ReadHeaderTimeout: 10 * time.Second}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), receiverGrace)
		defer cancel()
		if server.Shutdown(grace) != nil {
			stopped <- server.Close()
			return
		}
		stopped <- nil
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the receiver: %w", err)
	}
	return <-stopped
}

// ingressReady waits until ingress says that it is ready.
func (e *environment) ingressReady(ctx context.Context) error {
	return eventually(ctx, readyTimeout, func(ctx context.Context) error {
		return probe(ctx, e.ingressURL()+"/readyz")
	})
}

func (e *environment) ingressURL() string { return "http://" + dialable(e.settings.ingress) }

func (e *environment) receiverURL() string { return "http://" + dialable(e.settings.receiver) }

func probe(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, answer.Status)
	}
	return nil
}

// eventually asks until the answer is nil. When the time is up it returns the
// last answer.
func eventually(ctx context.Context, timeout time.Duration, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return fmt.Errorf("not within %s: %w", timeout, err)
		case <-tick.C:
		}
	}
}
