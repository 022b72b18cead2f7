package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// finding is one vulnerability in a module that is in use.
type finding struct {
	id, summary, module, version, fixed string
	// called is the path of calls that reaches the vulnerable symbol, outermost first; empty
	// if no path is known.
	called []string
}

// findings are the vulnerabilities by ID.
type findings map[string]*finding

// message is the part of govulncheck's output that matters here, see
// https://pkg.go.dev/golang.org/x/vuln/cmd/govulncheck.
type message struct {
	OSV *struct {
		ID, Summary string
	}
	Finding *struct {
		OSV   string
		Fixed string `json:"fixed_version"`
		Trace []struct{ Module, Version, Package, Function, Receiver string }
	}
}

func parseFindings(output io.Reader) (findings, error) {
	found, summaries := findings{}, map[string]string{}
	for decoder := json.NewDecoder(output); ; {
		var m message
		switch err := decoder.Decode(&m); {
		case errors.Is(err, io.EOF):
			for id, f := range found {
				f.summary = summaries[id]
			}
			return found, nil
		case err != nil:
			return nil, fmt.Errorf("parse the output of govulncheck: %w", err)
		case m.OSV != nil:
			summaries[m.OSV.ID] = m.OSV.Summary
		case m.Finding != nil && len(m.Finding.Trace) > 0:
			found.add(&m)
		}
	}
}

// add records a finding. govulncheck reports each vulnerability for the module, the package
// and the symbol; the one with the symbol says the most.
func (f findings) add(m *message) {
	trace := m.Finding.Trace
	known := f[m.Finding.OSV]
	if known == nil {
		known = &finding{id: m.Finding.OSV, module: trace[0].Module, version: trace[0].Version, fixed: m.Finding.Fixed}
		f[known.id] = known
	}
	if trace[0].Function == "" || len(known.called) > 0 {
		return
	}
	for _, frame := range slices.Backward(trace) {
		name := frame.Function
		if frame.Receiver != "" {
			name = strings.TrimPrefix(frame.Receiver, "*") + "." + name
		}
		known.called = append(known.called, frame.Package+"."+name)
	}
}

// acceptance is a vulnerability that is called and does no harm here.
type acceptance struct {
	// ID is that of the Go vulnerability database, such as GO-2026-6094.
	ID string `json:"id"`
	// Reason says why it does no harm.
	Reason string `json:"reason"`
	// Expires is the day, such as 2027-03-01, from which the reason must be looked at again.
	Expires string `json:"expires"`
}

// readAccepted reads a file of acceptances.
func readAccepted(file string) ([]acceptance, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var accepted []acceptance
	if err := yaml.UnmarshalStrict(text, &accepted); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for i, a := range accepted {
		if _, err := time.Parse(time.DateOnly, a.Expires); err != nil || a.ID == "" || a.Reason == "" {
			return nil, fmt.Errorf("%s: entry %d needs id, reason and expires (example: 2027-03-01)", file, i+1)
		}
	}
	return accepted, nil
}

// judge prints each finding and returns an error if one of them, or an acceptance, needs
// work.
func judge(out io.Writer, found findings, accepted []acceptance, now time.Time) error {
	var errs []error
	reasons := map[string]acceptance{}
	for _, a := range accepted {
		f := found[a.ID]
		switch {
		case f == nil || len(f.called) == 0:
			errs = append(errs, fmt.Errorf("%s is accepted but no longer found, remove it from the accepted vulnerabilities", a.ID))
		case now.Format(time.DateOnly) >= a.Expires:
			errs = append(errs, fmt.Errorf("%s is accepted until %s only, upgrade or look at its reason again", a.ID, a.Expires))
		default:
			reasons[a.ID] = a
		}
	}
	for _, id := range slices.Sorted(maps.Keys(found)) {
		f := found[id]
		a, isAccepted := reasons[id]
		switch {
		case len(f.called) == 0:
			fmt.Fprintf(out, "%s is not called: %s@%s, %s\n", id, f.module, f.version, f.summary)
		case isAccepted:
			fmt.Fprintf(out, "%s is accepted until %s: %s\n", id, a.Expires, a.Reason)
		default:
			errs = append(errs, errors.New(f.describe()))
		}
	}
	if len(errs) == 0 {
		fmt.Fprintln(out, "no known vulnerability is called")
	}
	return errors.Join(errs...)
}

func (f *finding) describe() string {
	fixed := "no fixed version"
	if f.fixed != "" {
		fixed = "fixed in " + f.fixed
	}
	return fmt.Sprintf("%s: %s\n  %s@%s, %s\n  https://pkg.go.dev/vuln/%s\n  called: %s",
		f.id, f.summary, f.module, f.version, fixed, f.id, strings.Join(f.called, "\n    → "))
}
