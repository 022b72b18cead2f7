package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// databaseModule is the module whose folder data/osv holds the Go vulnerability database, one
// file for each vulnerability.
const databaseModule = "golang.org/x/vulndb"

// downloadTimeout bounds how long the download of the database may take.
const downloadTimeout = 5 * time.Minute

// findDatabase returns the URL and the version of the newest database that can be downloaded,
// or that the module cache holds if none can be. The error wraps errNoDatabase.
func findDatabase(ctx context.Context) (database, version string, err error) {
	folder, version, err := download(ctx, databaseModule+"@latest")
	if err != nil {
		folder, version = newestCached(ctx)
	}
	if folder == "" {
		return "", "", fmt.Errorf("%w: %s can't be downloaded and is not in the module cache: %w", errNoDatabase, databaseModule, err)
	}
	return fileURL(filepath.Join(folder, "data", "osv")), version, nil
}

// download returns the folder and the version of a module.
func download(ctx context.Context, query string) (folder, version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, downloadTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, "go", "mod", "download", "-json", query)
	command.Dir = os.TempDir() // outside of any module: no go.mod changes
	var problems bytes.Buffer
	command.Stderr = &problems
	output, err := command.Output()
	var downloaded struct{ Dir, Version, Error string }
	if json.Unmarshal(output, &downloaded) == nil && downloaded.Dir != "" {
		return downloaded.Dir, downloaded.Version, nil
	}
	return "", "", fmt.Errorf("go mod download %s: %w: %s%s", query, err, downloaded.Error, strings.TrimSpace(problems.String()))
}

// newestCached returns the folder and the version of the newest database in the module cache;
// empty if it has none.
func newestCached(ctx context.Context) (folder, version string) {
	cache, err := exec.CommandContext(ctx, "go", "env", "GOMODCACHE").Output()
	if err != nil {
		return "", ""
	}
	path, err := module.EscapePath(databaseModule)
	if err != nil {
		return "", ""
	}
	prefix := filepath.Join(strings.TrimSpace(string(cache)), filepath.FromSlash(path)) + "@"
	folders, err := filepath.Glob(prefix + "*")
	if err != nil || len(folders) == 0 {
		return "", ""
	}
	newest := slices.MaxFunc(folders, func(a, b string) int {
		return semver.Compare(strings.TrimPrefix(a, prefix), strings.TrimPrefix(b, prefix))
	})
	return newest, strings.TrimPrefix(newest, prefix)
}

// reachable returns an error that wraps errNoDatabase if a database on this machine does not
// exist. govulncheck itself reports others.
func reachable(database string) error {
	location, err := url.Parse(database)
	if err != nil || location.Scheme != "file" {
		return err
	}
	if entries, err := os.ReadDir(filepath.FromSlash(location.Path)); err != nil || len(entries) == 0 {
		return fmt.Errorf("%w: %s has no files", errNoDatabase, database)
	}
	return nil
}

func fileURL(folder string) string {
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(folder)}).String()
}
