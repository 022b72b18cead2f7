// Postbus: webhooks for mailing lists, declared in Kubernetes.
//
// This file answers: which process? Each subcommand runs one component, and
// standalone runs all three in one process.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// version is stamped by the build.
var version string

const usage = `Postbus: webhooks for mailing lists, declared in Kubernetes.

Usage: postbus COMMAND [FLAGS]

Commands:
  controller   keep the resources' status true
  ingress      take contacts
  dispatcher   call callbacks
  standalone   all three in one process
  version      print the version

postbus COMMAND --help lists a command's flags.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "postbus:", err)
		os.Exit(1)
	}
}

// run runs the command that the arguments name, until the context ends.
func run(ctx context.Context, arguments []string, out io.Writer) error {
	if len(arguments) == 0 {
		return errors.New("which command? controller, ingress, dispatcher, standalone or version; --help tells more")
	}
	switch name := arguments[0]; name {
	case "version":
		_, err := fmt.Fprintln(out, programVersion())
		return err
	case "help", "-h", "--help":
		_, err := fmt.Fprint(out, usage)
		return err
	case "controller", "ingress", "dispatcher", "standalone":
		settings, err := parseSettings(name, arguments[1:], out)
		if err != nil {
			return err
		}
		return runProcess(ctx, settings)
	default:
		return fmt.Errorf("there is no command %q; --help lists them", name)
	}
}

// settings are what the flags say.
type settings struct {
	command        string
	kubeconfig     string
	store          string
	metricsAddress string
	logLevel       string
	leaseNamespace string
	ingressAddress string
	allowPlainHTTP bool
}

func parseSettings(command string, arguments []string, out io.Writer) (settings, error) {
	s := settings{command: command}
	flags := flag.NewFlagSet("postbus "+command, flag.ContinueOnError)
	flags.SetOutput(out)
	flags.StringVar(&s.kubeconfig, "kubeconfig", "", "`file` with the access to the API server; without it KUBECONFIG, ~/.kube/config or the pod's own")
	flags.StringVar(&s.store, "store", "postbus.db", "`file` of the SQLite store, made when there is none; one process at a time")
	flags.StringVar(&s.metricsAddress, "metrics-address", ":8081", "`address` of /healthz, /readyz and /metrics")
	flags.StringVar(&s.logLevel, "log-level", "info", "info, or debug for a line on each request and attempt")
	if s.runs("controller") {
		flags.StringVar(&s.leaseNamespace, "lease-namespace", "", "`namespace` of the controllers' Lease; without it the pod's own, or default")
	}
	if s.runs("ingress") {
		flags.StringVar(&s.ingressAddress, "ingress-address", ":8080", "`address` that contacts are posted to")
		flags.BoolVar(&s.allowPlainHTTP, "allow-plain-http", false, "take contacts without TLS; for local runs only, because API keys are readable on the way")
	}
	if err := flags.Parse(arguments); err != nil {
		return s, err
	}
	if flags.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if s.logLevel != "info" && s.logLevel != "debug" {
		return s, fmt.Errorf("--log-level is %q, it must be info or debug", s.logLevel)
	}
	return s, nil
}

// runs tells whether the command runs this component.
func (s settings) runs(component string) bool {
	return s.command == component || s.command == "standalone"
}

func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(unknown)"
}
