package main

import (
	"errors"
	"flag"
	"fmt"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"

	"postbus.dev/postbus/dispatcher"
	"postbus.dev/postbus/internal/guard"
)

// callbackSettings are what the flags about callbacks say.
type callbackSettings struct {
	policies guard.Policies
	// proxy is as it was given. It is read by check, because the flag package
	// shows a value that it can't read, and people write passwords into URLs.
	proxy       string
	egressProxy *url.URL
	maxCalls    int
	// The budgets of bytes of a dispatcher.
	maxBodyBytes, maxSubscriptionBodyBytes, maxPendingBytes int64
}

func (s *callbackSettings) register(flags *flag.FlagSet) {
	flags.Func("allow-callback-networks",
		"`CIDRs`, separated by commas, that callbacks may point to although they are not public; NAMESPACE/CIDR allows one to the callbacks of a namespace alone; "+
			"may be repeated; give controller and dispatcher the same",
		func(text string) error { return s.allow(text, allowNetwork) })
	flags.Func("allow-callback-hosts",
		"`names`, separated by commas, that callbacks may point to whatever they resolve to, such as crm.marketing.svc, or *.svc for all below; "+
			"NAMESPACE/NAME allows one to the callbacks of a namespace alone; may be repeated; give controller and dispatcher the same",
		func(text string) error { return s.allow(text, allowHost) })
	flags.BoolVar(&s.policies.Everywhere.AllowHTTP, "allow-http-callbacks", false,
		"call http URLs too, where everybody on the way can read the contacts; give controller and dispatcher the same")
}

// registerCalls registers the flags about how callbacks are called.
func (s *callbackSettings) registerCalls(flags *flag.FlagSet) {
	flags.StringVar(&s.proxy, "egress-proxy", "",
		"`URL` of the HTTP proxy that callbacks are called through, such as http://proxy.example.com:3128; those that the environment names are not used")
	flags.IntVar(&s.maxCalls, "max-calls", dispatcher.DefaultMaxCalls,
		"how many calls of callbacks one dispatcher has under way at a time, beside 4 of each subscription that it always may")
	registerBytes(flags, &s.maxBodyBytes, "max-body-bytes", dispatcher.DefaultMaxBodyBytes,
		"how many `bytes` the bodies of attempts in flight hold together in one dispatcher, such as 128Mi, beside 64Ki of each subscription")
	registerBytes(flags, &s.maxSubscriptionBodyBytes, "max-subscription-body-bytes", dispatcher.DefaultMaxSubscriptionBodyBytes,
		"how many `bytes` of them those of one subscription hold, such as 16Mi; never more than half of --max-body-bytes")
	registerBytes(flags, &s.maxPendingBytes, "max-pending-bytes", dispatcher.DefaultMaxPendingBytes,
		"how many `bytes` the pending events of all subscriptions hold in the memory of one dispatcher, such as 64Mi, beside 32Ki of each; further events wait in the log")
}

// registerBytes registers a flag of a number of bytes, as Kubernetes writes quantities.
func registerBytes(flags *flag.FlagSet, value *int64, name string, usual int64, usage string) {
	*value = usual
	usage += fmt.Sprintf(" (default %s)", resource.NewQuantity(usual, resource.BinarySI))
	flags.Func(name, usage, func(text string) error {
		quantity, err := resource.ParseQuantity(text)
		if err != nil {
			return errors.New("it must be a number of bytes, such as 134217728 or 128Mi")
		}
		*value = quantity.Value()
		return nil
	})
}

// checkBudgets returns what is wrong with the budgets of bytes.
func (s *callbackSettings) checkBudgets() error {
	switch {
	case s.maxSubscriptionBodyBytes < dispatcher.MinSubscriptionBodyBytes:
		return fmt.Errorf("--max-subscription-body-bytes is %d, it must be at least %d (%s), which the largest body takes",
			s.maxSubscriptionBodyBytes, dispatcher.MinSubscriptionBodyBytes, resource.NewQuantity(dispatcher.MinSubscriptionBodyBytes, resource.BinarySI))
	case s.maxBodyBytes < 2*s.maxSubscriptionBodyBytes:
		return fmt.Errorf("--max-body-bytes is %d, it must be at least twice --max-subscription-body-bytes (%d)", s.maxBodyBytes, s.maxSubscriptionBodyBytes)
	case s.maxPendingBytes < dispatcher.MinPendingBytes:
		return fmt.Errorf("--max-pending-bytes is %d, it must be at least %d (%s)", s.maxPendingBytes, dispatcher.MinPendingBytes,
			resource.NewQuantity(dispatcher.MinPendingBytes, resource.BinarySI))
	}
	return nil
}

// check reads the values that register could not.
func (s *callbackSettings) check() error {
	if s.proxy == "" {
		return nil
	}
	proxy, err := url.Parse(s.proxy)
	if err != nil || proxy.Scheme != "http" || proxy.Hostname() == "" || proxy.Port() == "" {
		return errors.New("--egress-proxy must be an http URL with host and port, such as http://proxy.example.com:3128")
	}
	if bare := (url.URL{Scheme: proxy.Scheme, Host: proxy.Host}); bare.String() != strings.TrimSuffix(s.proxy, "/") {
		return errors.New("--egress-proxy must have nothing but scheme, host and port")
	}
	s.egressProxy = proxy
	return nil
}

// allow adds the entries of a flag's value, each by add.
func (s *callbackSettings) allow(text string, add func(to *guard.Allowance, entry string) error) error {
	for entry := range strings.SplitSeq(text, ",") {
		namespace, allowed, err := splitNamespace(strings.TrimSpace(entry))
		if err != nil {
			return err
		}
		everywhere := &s.policies.Everywhere
		own := guard.Allowance{Networks: everywhere.AllowedNetworks, Hosts: everywhere.AllowedHosts}
		if namespace != "" {
			own = s.policies.Namespaces[namespace]
		}
		if err := add(&own, allowed); err != nil {
			return err
		}
		if namespace == "" {
			everywhere.AllowedNetworks, everywhere.AllowedHosts = own.Networks, own.Hosts
			continue
		}
		if s.policies.Namespaces == nil {
			s.policies.Namespaces = map[string]guard.Allowance{}
		}
		s.policies.Namespaces[namespace] = own
	}
	return nil
}

func allowNetwork(to *guard.Allowance, entry string) error {
	networks, err := parseNetworks(entry)
	to.Networks = append(to.Networks, networks...)
	return err
}

func allowHost(to *guard.Allowance, entry string) error {
	host, err := guard.ParseHost(entry)
	to.Hosts = append(to.Hosts, host)
	return err
}

// splitNamespace returns the namespace that an entry such as marketing/crm.marketing.svc begins
// with, and the rest; no namespace where the entry is a network, whose slash has another meaning.
func splitNamespace(entry string) (namespace, rest string, err error) {
	namespace, rest, has := strings.Cut(entry, "/")
	if !has || strings.ContainsAny(namespace, ".:") {
		return "", entry, nil
	}
	if problems := validation.IsDNS1123Label(namespace); len(problems) > 0 {
		return "", "", fmt.Errorf("%q does not begin with a valid namespace (example: marketing/crm.marketing.svc): %s", entry, problems[0])
	}
	return namespace, rest, nil
}
