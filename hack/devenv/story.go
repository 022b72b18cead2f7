package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/hack/devenv/mailbox"
	"postbus.dev/postbus/hack/devenv/receiver"
	"postbus.dev/postbus/internal/kube"
)

// installed is where Postbus is installed, and what its pods are labelled with.
const (
	installedIn    = "postbus-system"
	nameLabel      = "app.kubernetes.io/name"
	componentLabel = "app.kubernetes.io/component"
)

// tellInCluster tells the story from a pod: callbacks and mails come to it through a
// Service, and so do its calls to ingress.
func tellInCluster(ctx context.Context, s settings) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return fmt.Errorf("find the cluster that this pod is in: %w", err)
	}
	out := &console{}
	e := &environment{
		settings: s, tell: out.tell("      "),
		receiver: receiver.New(func(string) {}), mailbox: mailbox.New(func(string) {}),
	}
	if e.client, err = client.New(config, client.Options{Scheme: kube.NewScheme()}); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	calls, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.receiver)
	if err != nil {
		return fmt.Errorf("listen for callbacks: %w", err)
	}
	defer calls.Close()
	mails, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.mail)
	if err != nil {
		return fmt.Errorf("listen for mails: %w", err)
	}
	teller := &storyteller{environment: e}
	teller.kill = teller.killPods()

	ctx, end := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return e.serveReceiver(ctx, calls) })
	group.Go(func() error { return e.mailbox.Serve(ctx, mails) })
	group.Go(func() error {
		defer end()
		return teller.recite(ctx, out)
	})
	return group.Wait()
}

// killPods returns what takes a pod away at each call, of one component after the other.
func (t *storyteller) killPods() func(context.Context) error {
	var turn atomic.Int64
	return func(ctx context.Context) error {
		pods := &corev1.PodList{}
		if err := t.client.List(ctx, pods, client.InNamespace(installedIn), client.MatchingLabels{nameLabel: "postbus"}); err != nil {
			return fmt.Errorf("list the pods of postbus: %w", err)
		}
		if len(pods.Items) == 0 {
			return errors.New("list the pods of postbus: there are none in " + installedIn)
		}
		byComponent := func(a, b corev1.Pod) int { return cmp.Compare(a.Labels[componentLabel], b.Labels[componentLabel]) }
		slices.SortFunc(pods.Items, byComponent)
		one := slices.CompactFunc(pods.Items, func(a, b corev1.Pod) bool { return byComponent(a, b) == 0 })
		victim := &one[int(turn.Add(1)-1)%len(one)]
		t.tell("killing " + victim.Name)
		return client.IgnoreNotFound(t.client.Delete(ctx, victim, client.GracePeriodSeconds(0)))
	}
}
