// Program vuln reports known vulnerabilities in the code that a module's packages call.
//
// It runs govulncheck over a database that is downloaded as the Go module
// golang.org/x/vulndb, so it works wherever modules can be downloaded, and offline once the
// module is in the module cache. GOVULNDB names another database by URL.
//
// The exit code is 1 for a vulnerability that is called and not accepted in -accepted, for an
// acceptance that has expired or that nothing needs any more, and for a scan that failed. A
// missing database fails the scan if CI=true, and is a warning otherwise.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"golang.org/x/vuln/scan"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	check := check{out: os.Stdout, now: time.Now(), ci: os.Getenv("CI") == "true", database: os.Getenv("GOVULNDB")}
	flag.StringVar(&check.directory, "C", ".", "`folder` of the module")
	flag.StringVar(&check.accepted, "accepted", "", "`file` with the accepted vulnerabilities")
	flag.Parse()
	if err := check.run(ctx, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// check is one scan.
type check struct {
	out io.Writer
	// directory is the folder of the module, accepted the file of acceptances; empty for none.
	directory, accepted string
	// database is the URL of the database; empty for the module golang.org/x/vulndb.
	database string
	// ci: a scan without a database is an error.
	ci  bool
	now time.Time
}

// errNoDatabase is returned if there is no database to scan with.
var errNoDatabase = errors.New("vulnerabilities were NOT checked: no database")

// run scans the packages that match the patterns.
func (c *check) run(ctx context.Context, patterns []string) error {
	accepted, err := readAccepted(c.accepted)
	if err != nil {
		return err
	}
	database := c.database
	if database == "" {
		var version string
		database, version, err = findDatabase(ctx)
		if err == nil {
			fmt.Fprintln(c.out, "database: golang.org/x/vulndb", version)
		}
	}
	if err == nil {
		err = reachable(database)
	}
	switch {
	case errors.Is(err, errNoDatabase) && !c.ci:
		fmt.Fprintln(c.out, "WARNING:", err)
		return nil
	case err != nil:
		return err
	}
	found, err := c.scan(ctx, database, patterns)
	if err != nil {
		return err
	}
	return judge(c.out, found, accepted, c.now)
}

// scan returns what govulncheck finds.
func (c *check) scan(ctx context.Context, database string, patterns []string) (findings, error) {
	var output, problems bytes.Buffer
	command := scan.Command(ctx, append([]string{"-C", c.directory, "-db", database, "-format", "json"}, patterns...)...)
	command.Stdout, command.Stderr = &output, &problems
	if err := command.Start(); err != nil {
		return findings{}, err
	}
	if err := command.Wait(); err != nil {
		return findings{}, fmt.Errorf("run govulncheck with the database %s: %w\n%s", database, err, problems.String())
	}
	return parseFindings(&output)
}
