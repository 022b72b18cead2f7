package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"

	"postbus.dev/postbus/controllers"
	"postbus.dev/postbus/ingress"
)

// settings are what the flags say.
type settings struct {
	command        string
	kubeconfig     string
	store          storeSettings
	metricsAddress string
	profiling      bool
	logLevel       string
	leaseNamespace string
	// namespaces are those whose objects are watched, all when empty.
	namespaces []string
	// retention is for how long events are kept in the log.
	retention time.Duration
	// publicURL is what links to recipients begin with, nil when the flag says
	// nothing.
	publicURL *url.URL
	ingress   ingressSettings
	mail      mailSettings
	callbacks callbackSettings
	// subscriptionMetrics: the dispatcher has metrics of each subscription.
	subscriptionMetrics bool
}

// ingressSettings are what the flags of ingress say.
type ingressSettings struct {
	address        string
	certificate    ingress.CertificateFiles
	trustedProxies []netip.Prefix
	allowPlainHTTP bool
	maxConnections int
	maxRequests    int
	// maxLogBytes is 0 where there is no limit.
	maxLogBytes int64
}

func parseSettings(command string, arguments []string, out io.Writer) (settings, error) {
	s := settings{command: command}
	flags := flag.NewFlagSet("postbus "+command, flag.ContinueOnError)
	flags.SetOutput(out)
	flags.StringVar(&s.kubeconfig, "kubeconfig", "", "`file` with the access to the API server; without it KUBECONFIG, ~/.kube/config or the pod's own")
	s.store.register(flags)
	flags.StringVar(&s.metricsAddress, "metrics-address", ":8081", "`address` of /healthz, /readyz and /metrics")
	flags.BoolVar(&s.profiling, "profiling", false, "serve Go's profiles there too, under /debug/pprof/")
	flags.StringVar(&s.logLevel, "log-level", "info", "info, or debug for a line on each request and attempt")
	flags.Func("namespaces",
		"`names`, separated by commas, of the only namespaces whose objects are watched; give all processes over one store the same",
		func(text string) (err error) {
			s.namespaces, err = parseNamespaces(text)
			return err
		})
	if s.runs("controller") {
		flags.StringVar(&s.leaseNamespace, "lease-namespace", "", "`namespace` of the controllers' Lease; without it the pod's own, or default")
		flags.DurationVar(&s.retention, "retention", controllers.DefaultRetention,
			"how long events are kept in the log, whoever has them still to be sent; at least 144h")
	}
	if s.runs("ingress") {
		s.ingress.register(flags)
	}
	if s.runs("controller") || s.runs("dispatcher") {
		s.callbacks.register(flags)
		s.mail.registerPolicy(flags)
	}
	if s.runs("dispatcher") {
		s.mail.register(flags)
		s.callbacks.registerCalls(flags)
		flags.BoolVar(&s.subscriptionMetrics, "subscription-metrics", true,
			"have metrics of each subscription, some 15 series for each; alerts that name a subscription need them")
	}
	if s.runs("ingress") || s.runs("dispatcher") {
		flags.Func("public-url", "`URL` of ingress as recipients reach it, such as https://lists.example.com: what links in mails begin with",
			func(text string) (err error) {
				s.publicURL, err = parsePublicURL(text)
				return err
			})
	}
	if err := flags.Parse(arguments); err != nil {
		return s, err
	}
	if flags.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	err := s.check(flags) // it reads some values, too
	return s, err
}

// check finds what the parser of a single flag can't.
func (s *settings) check(flags *flag.FlagSet) error {
	if s.logLevel != "info" && s.logLevel != "debug" {
		return fmt.Errorf("--log-level is %q, it must be info or debug", s.logLevel)
	}
	if s.runs("controller") && s.retention < controllers.MinRetention {
		return fmt.Errorf("--retention is %s, it must be at least %s (6 days), for a callback that is deactivated has its events of 5 days kept",
			s.retention, controllers.MinRetention)
	}
	if s.runs("dispatcher") && s.callbacks.maxCalls < 1 {
		return fmt.Errorf("--max-calls is %d, it must be at least 1", s.callbacks.maxCalls)
	}
	if s.runs("dispatcher") {
		if err := s.callbacks.checkBudgets(); err != nil {
			return err
		}
	}
	if err := errors.Join(s.store.check(flags), s.mail.check(s.publicURL), s.callbacks.check()); err != nil {
		return err
	}
	if s.runs("ingress") {
		return s.ingress.check()
	}
	return nil
}

// runs tells whether the command runs this component.
func (s settings) runs(component string) bool {
	return s.command == component || s.command == "standalone"
}

func (s *ingressSettings) register(flags *flag.FlagSet) {
	flags.StringVar(&s.address, "ingress-address", ":8080", "`address` that contacts are posted to")
	flags.StringVar(&s.certificate.Certificate, "tls-cert-file", "",
		"`file` of the certificate that ingress serves TLS with, and its chain, in PEM; read again when it changes")
	flags.StringVar(&s.certificate.Key, "tls-key-file", "", "`file` of the certificate's private key, in PEM")
	flags.Func("trusted-proxies",
		"`CIDRs`, separated by commas, of proxies in front of ingress whose \"X-Forwarded-Proto: https\" is believed",
		func(text string) (err error) {
			s.trustedProxies, err = parseNetworks(text)
			return err
		})
	flags.BoolVar(&s.allowPlainHTTP, "allow-plain-http", false,
		"take contacts without TLS; for local runs only, because API keys are readable on the way")
	flags.IntVar(&s.maxConnections, "max-connections", ingress.DefaultMaxConnections,
		"how many connections ingress has open at a time; beyond that the slowest is closed")
	flags.IntVar(&s.maxRequests, "max-requests", ingress.DefaultMaxRequests,
		"how many calls ingress reads or answers at a time; beyond that the slowest, or the next, gets 503")
	flags.Func("max-log-bytes-per-namespace-per-day",
		"how much the requests of one namespace may append to the event log in a day (UTC), as a `quantity` such as 500Mi; 0, the default, is no limit. "+
			"Beyond that writes get 429; unsubscribing, deleting and forgetting are never refused",
		func(text string) (err error) {
			s.maxLogBytes, err = parseBytes(text)
			return err
		})
}

// parseBytes reads a number of bytes such as 500Mi, 1G or 1000000.
func parseBytes(text string) (int64, error) {
	quantity, err := resource.ParseQuantity(text)
	if err != nil || quantity.Sign() < 0 || quantity.CmpInt64(math.MaxInt64) > 0 {
		return 0, fmt.Errorf("invalid quantity %q (example: 500Mi)", text)
	}
	return quantity.Value(), nil
}

// check finds what one flag alone can't tell.
func (s *ingressSettings) check() error {
	switch {
	case s.certificate.Certificate != "" && s.certificate.Key == "":
		return errors.New("--tls-cert-file needs --tls-key-file, the certificate's private key")
	case s.certificate.Certificate == "" && s.certificate.Key != "":
		return errors.New("--tls-key-file needs --tls-cert-file, the key's certificate")
	case s.maxConnections < 1:
		return fmt.Errorf("--max-connections is %d, it must be at least 1", s.maxConnections)
	case s.maxRequests < 1:
		return fmt.Errorf("--max-requests is %d, it must be at least 1", s.maxRequests)
	}
	return nil
}

// parsePublicURL reads what links to recipients begin with.
func parsePublicURL(text string) (*url.URL, error) {
	base, err := url.Parse(text)
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") || base.Hostname() == "" {
		return nil, errors.New("it must be an http or https URL with a host, such as https://lists.example.com")
	}
	if base.User != nil || base.RawQuery != "" || base.ForceQuery || base.Fragment != "" {
		return nil, errors.New("it must have nothing but scheme, host, port and path")
	}
	return base, nil
}

// parseNamespaces reads names of namespaces such as "marketing,sales".
func parseNamespaces(text string) ([]string, error) {
	names := strings.Split(text, ",")
	for i, name := range names {
		names[i] = strings.TrimSpace(name)
		if problems := validation.IsDNS1123Label(names[i]); len(problems) > 0 {
			return nil, fmt.Errorf("invalid namespace %q (example: marketing,sales): %s", names[i], problems[0])
		}
	}
	return names, nil
}

// parseNetworks reads networks such as "10.0.0.0/8,fd00::/8". It refuses what
// would never match, or match more than it seems to.
func parseNetworks(text string) ([]netip.Prefix, error) {
	var networks []netip.Prefix
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		network, err := netip.ParsePrefix(part)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%q is no CIDR such as 10.0.0.0/8 or fd00::/8", part)
		case network.Addr().Is4In6():
			return nil, fmt.Errorf("%q is an IPv4 network in IPv6 form, write it as IPv4", part)
		case network != network.Masked():
			return nil, fmt.Errorf("%q has bits behind its mask, the network is %s", part, network.Masked())
		}
		networks = append(networks, network)
	}
	return networks, nil
}
