// Postbus: webhooks for mailing lists, declared in Kubernetes.
//
// This file answers: which process? Each subcommand runs one component, and
// standalone runs all three in one process. Others are what operators type; under
// the name kubectl-postbus these are a plugin of kubectl.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"postbus.dev/postbus/internal/command"
	"postbus.dev/postbus/internal/console"
)

// version and commit are stamped by the build.
var version, commit string

const usage = `Postbus: webhooks for mailing lists, declared in Kubernetes.

Usage: postbus COMMAND [FLAGS]

Commands:
  controller   keep the resources' status true
  ingress      take contacts
  dispatcher   call callbacks
  standalone   all three in one process
  contacts     look at contacts and change them, through ingress
  attempts     list the last calls of a subscription's callback
  test         call a callback once with a test event
  replay       send events of a subscription again
  reactivate   reactivate a subscription whose callback was deactivated
  migrate      make or update the tables in PostgreSQL, and grant roles their rights
  rotate-link-key
               sign links in mails with a new key
  backup       copy a SQLite store while it is in use
  version      print the version

postbus COMMAND --help lists a command's flags.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := runAs(ctx, filepath.Base(os.Args[0]), os.Args[1:])
	stop()
	os.Exit(code)
}

// runAs runs the program under the name that it was called by, and returns its
// exit code.
func runAs(ctx context.Context, name string, arguments []string) int {
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	switch {
	case name == command.PluginFile:
		return command.Run(ctx, command.PluginName, arguments, streams)
	case len(arguments) > 0 && command.Knows(arguments[0]):
		return command.Run(ctx, "postbus", arguments, streams)
	}
	if err := run(ctx, arguments, os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "postbus:", err)
		return 1
	}
	return 0
}

// run runs the command that the arguments name, until the context ends.
func run(ctx context.Context, arguments []string, out io.Writer) error {
	if len(arguments) == 0 {
		return errors.New("which command? controller, ingress, dispatcher, standalone, contacts, attempts, test, replay, reactivate, migrate, rotate-link-key, backup or version; --help tells more")
	}
	switch name := arguments[0]; name {
	case "version":
		_, err := fmt.Fprintln(out, programVersion()+fromCommit())
		return err
	case "help", "-h", "--help":
		_, err := fmt.Fprint(out, usage)
		return err
	case "migrate":
		return migrate(ctx, arguments[1:], out)
	case "rotate-link-key":
		return rotateLinkKey(ctx, arguments[1:], out)
	case "backup":
		return backUp(ctx, arguments[1:], out)
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

// fromCommit tells which commit the program was built from, where that is known.
func fromCommit() string {
	if commit == "" {
		return ""
	}
	return " (commit " + commit + ")"
}
