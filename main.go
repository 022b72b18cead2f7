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

	"postbus.dev/postbus/internal/console"
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
  contacts     look at contacts and change them, through ingress
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
		return errors.New("which command? controller, ingress, dispatcher, standalone, contacts or version; --help tells more")
	}
	switch name := arguments[0]; name {
	case "version":
		_, err := fmt.Fprintln(out, programVersion())
		return err
	case "help", "-h", "--help":
		_, err := fmt.Fprint(out, usage)
		return err
	case "contacts":
		return console.Run(ctx, arguments[1:], console.IO{Environment: os.Getenv, Out: out})
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

func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(unknown)"
}
