package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/postgres"
	"postbus.dev/postbus/internal/store/sqlite"
)

// migrate makes or updates the tables of a store in PostgreSQL, as their owner, and prints what it
// did, a line each.
func migrate(ctx context.Context, arguments []string, out io.Writer) error {
	flags := flag.NewFlagSet("postbus migrate", flag.ContinueOnError)
	flags.SetOutput(out)
	file := flags.String("store-dsn-file", "", "`file` with the connection string of the owner of the tables, in PostgreSQL 15 or newer")
	var roles postgres.Roles
	flags.StringVar(&roles.Controller, "controller-role", "", "`role` that the controller connects as; it is granted what the controller needs, and no more")
	flags.StringVar(&roles.Ingress, "ingress-role", "", "`role` that ingress connects as")
	flags.StringVar(&roles.Dispatcher, "dispatcher-role", "", "`role` that the dispatcher connects as")
	printGrants := flags.Bool("print-grants", false, "print the statements that grant the roles their rights, and do nothing")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	options := postgres.Options{DSNFile: *file}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case *printGrants && roles == postgres.Roles{}:
		return errors.New("--print-grants needs --controller-role, --ingress-role or --dispatcher-role")
	case *printGrants:
		statements, err := postgres.Grants(ctx, options, roles)
		return printLines(out, statements, ";", err)
	case *file == "":
		return errors.New("--store-dsn-file is missing: the file with the connection string of the tables' owner; a store in SQLite needs no migration")
	}
	ctx = withLogger(ctx, "info")
	var done []string
	err := waitForStore(ctx, func() (err error) {
		done, err = postgres.Migrate(ctx, options, roles)
		return err
	})
	return printLines(out, done, "", err)
}

// printLines prints lines with an end, unless there is an error.
func printLines(out io.Writer, lines []string, end string, err error) error {
	if err != nil || len(lines) == 0 {
		return err
	}
	if _, err := fmt.Fprintln(out, strings.Join(lines, end+"\n")+end); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// rotateLinkKey makes a new key for the links in mails, beside the processes that use the store.
func rotateLinkKey(ctx context.Context, arguments []string, out io.Writer) error {
	flags := flag.NewFlagSet("postbus rotate-link-key", flag.ContinueOnError)
	flags.SetOutput(out)
	var engine storeSettings
	engine.register(flags)
	overlap := flags.Duration("overlap", store.DefaultLinkKeyOverlap,
		"how long links that older keys have signed go on working; the default is as long as the link that works longest; 0 ends all of them at once, after a leak")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case *overlap < 0:
		return fmt.Errorf("--overlap is %s, it must be 0 or more", *overlap)
	}
	if err := engine.check(flags); err != nil {
		return err
	}
	id, err := engine.rotateLinkKey(ctx, *overlap)
	if err != nil {
		return err
	}
	message := fmt.Sprintf("made the link key %s, which signs in %s; links of older keys work for %s more\n", id, store.LinkKeyDelay, *overlap)
	if *overlap == 0 {
		message = fmt.Sprintf("made the link key %s, which signs now; links of older keys are revoked, in each process within %s\n", id, store.LinkKeysInterval)
	}
	if _, err := fmt.Fprint(out, message); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

func (s *storeSettings) rotateLinkKey(ctx context.Context, overlap time.Duration) (id string, err error) {
	if s.shared() {
		return postgres.RotateLinkKey(ctx, postgres.Options{DSNFile: s.dsnFile}, overlap)
	}
	made, err := sqlite.RotateLinkKey(ctx, s.file, overlap)
	return made.String(), err
}
