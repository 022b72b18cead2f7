// Program devenv answers: how is the whole of Postbus tried out on one machine?
//
// "devenv run" is what make run starts: a Kubernetes API, a receiver of
// callbacks, a mailbox and postbus itself, with the samples applied, until Ctrl-C. It
// leaves nothing but its folder. "devenv demo" is make demo: the same, and the
// story of a contact told in steps, each of them checked. "devenv story" tells it in a
// pod, of a Postbus that is installed in the pod's cluster.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	// controller-runtime complains on its global logger until one is set.
	log.SetLogger(logr.Discard())
	if len(args) == 0 {
		return errors.New("say run, demo or story")
	}
	settings, err := parse(args[0], args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	}
	switch args[0] {
	case "run":
		return run(ctx, settings)
	case "demo":
		return demo(ctx, settings)
	case "story":
		return tellInCluster(ctx, settings)
	}
	return fmt.Errorf("unknown subcommand %q: say run, demo or story", args[0])
}
