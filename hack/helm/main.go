// Program helm answers: how is Postbus installed by Helm?
//
// It makes the chart from what config/default builds, so that there is one source: the
// same objects, with a few of their values left to values.yaml, and the objects of
// those components that add some and change none.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := command(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// options are what the flags say.
type options struct {
	// kubectl builds the kustomizations of the folder config.
	kubectl, config string
	// output is the chart's folder, version what it and the program are called.
	output, version string
}

func command(ctx context.Context, arguments []string) error {
	var o options
	flags := flag.NewFlagSet("helm", flag.ContinueOnError)
	flags.StringVar(&o.kubectl, "kubectl", "bin/kubectl", "`program` that builds kustomizations")
	flags.StringVar(&o.config, "config", "config", "`folder` of the kustomizations")
	flags.StringVar(&o.output, "output", "dist/helm/postbus", "`folder` of the chart, made anew")
	flags.StringVar(&o.version, "version", "0.0.0", "`version` of the chart and of the image, with or without a v before it")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	files, err := o.files(ctx)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(o.output); err != nil {
		return fmt.Errorf("remove the old chart: %w", err)
	}
	for name, text := range files {
		path := filepath.Join(o.output, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("make the chart's folder: %w", err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return fmt.Errorf("write the chart: %w", err)
		}
	}
	return nil
}

// build returns the text of what the kustomization in a folder builds.
func (o options) build(ctx context.Context, folder string) ([]byte, error) {
	text, err := exec.CommandContext(ctx, o.kubectl, "kustomize", folder).Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		return nil, fmt.Errorf("build %s: %w: %s", folder, err, failed.Stderr)
	}
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", folder, err)
	}
	return text, nil
}
