package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// profileSeconds is for how long a profile is made: less than a round takes.
const profileSeconds = 2

// notOfFiles is what names of figures have and names of files better have not.
var notOfFiles = regexp.MustCompile(`[^A-Za-z0-9]+`)

// profile begins to make profiles of where the processor's time goes and what is
// allocated, if somebody wants them, and returns what waits for them. The last ones of
// a figure stay.
func (i *installation) profile(ctx context.Context, figure string) (wait func() error) {
	if i.plane.profiles == "" {
		return func() error { return nil }
	}
	done := make(chan error, 1)
	go func() { done <- i.profileTime(ctx, figure, profileSeconds*time.Second) }()
	return func() error {
		return errors.Join(<-done, i.writeProfile(ctx, "allocs", profileName(figure)+".allocs.pprof"))
	}
}

// profileTime makes a profile of where the processor's time goes for so long.
func (i *installation) profileTime(ctx context.Context, figure string, during time.Duration) error {
	return i.writeProfile(ctx, fmt.Sprintf("profile?seconds=%.0f", during.Seconds()), profileName(figure)+".cpu.pprof")
}

// profileName is what the files begin with that have a figure's profiles.
func profileName(figure string) string { return notOfFiles.ReplaceAllString(figure, "-") }

func (i *installation) writeProfile(ctx context.Context, kind, name string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, i.metrics+"/debug/pprof/"+kind, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("make a profile: %w", err)
	}
	defer response.Body.Close()
	if err := os.MkdirAll(i.plane.profiles, 0o755); err != nil {
		return fmt.Errorf("make the folder of profiles: %w", err)
	}
	file, err := os.Create(filepath.Join(i.plane.profiles, name))
	if err != nil {
		return fmt.Errorf("write a profile: %w", err)
	}
	defer file.Close()
	if _, err := io.Copy(file, response.Body); err != nil {
		return fmt.Errorf("write a profile: %w", err)
	}
	return nil
}
