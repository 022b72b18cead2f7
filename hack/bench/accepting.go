package main

import (
	"context"
	"errors"
	"fmt"

	"postbus.dev/postbus/hack/devenv/process"
)

// acceptedCalls is how many contacts a round posts.
const acceptedCalls = 10_000

// The formats of calls.
const (
	formFormat = "form"
	jsonFormat = "JSON"
)

// contactPath takes contacts, as ingress does.
const contactPath = "/webhooks/contacts/email"

// acceptingCase is how contacts are posted.
type acceptingCase struct {
	engine  engine
	callers int
	format  string
	// known posts the same addresses in each round, which changes nothing.
	known bool
}

// accepting is how many contacts a second are accepted and on the disk. Its limit is
// a server that does nothing but commit the same rows.
func accepting(c acceptingCase) figure {
	f := figure{name: c.name(), unit: "contacts/s"}
	if c.usual() {
		f.bar = 0.5
	}
	f.prepare = func(ctx context.Context, p *plane) (subject, error) {
		installed, err := p.install(ctx, c.engine, 1)
		if err != nil {
			return nil, err
		}
		s := &acceptingSubject{acceptingCase: c, installed: installed}
		if err := s.startBare(ctx); err != nil {
			return nil, errors.Join(err, installed.close())
		}
		return s, nil
	}
	return f
}

// usual tells whether this is the case that others are compared with.
func (c acceptingCase) usual() bool { return c.callers == 64 && c.format == formFormat && !c.known }

func (c acceptingCase) name() string {
	addresses := "new addresses"
	if c.known {
		addresses = "known addresses"
	}
	return fmt.Sprintf("accepting, %s: %d callers, %s, %s", c.engine, c.callers, addresses, c.format)
}

// acceptingSubject is Postbus, and a bare server beside it.
type acceptingSubject struct {
	acceptingCase
	installed *installation
	bare      *process.Process
	bareURL   string
	// posted counts what was posted, so that addresses are new.
	posted int
}

func (s *acceptingSubject) startBare(ctx context.Context) error {
	address, err := s.installed.plane.freeAddress(ctx)
	if err != nil {
		return err
	}
	store, err := s.installed.plane.newStore(ctx, s.engine, "bare")
	if err != nil {
		return err
	}
	s.bareURL = "http://" + address
	s.bare, err = s.installed.plane.run(ctx, process.Command{
		Name: "bare-server-" + s.installed.namespace, Path: "/proc/self/exe",
		Args: []string{bareServerCommand, "--address=" + address, store.bareFlag()},
	}, s.bareURL)
	return err
}

func (s *acceptingSubject) measure(ctx context.Context) (measurement, error) {
	m, err := s.installed.measured(ctx, s.name(), acceptedCalls, func() (float64, error) { return s.load(ctx, s.installed.ingress) })
	if s.usual() {
		s.installed.plane.accepted[s.engine] = m.perSecond
	}
	return m, err
}

func (s *acceptingSubject) limit(ctx context.Context) (float64, error) {
	return s.load(ctx, s.bareURL)
}

func (s *acceptingSubject) load(ctx context.Context, server string) (float64, error) {
	first := s.posted
	if !s.known {
		s.posted += acceptedCalls
	}
	return load(ctx, s.callers, acceptedCalls, func(n int) posted {
		email := fmt.Sprintf("contact-%d@example.com", first+n)
		if s.format == jsonFormat {
			return posted{
				url: server + contactPath + "?key=" + s.installed.keys[0], contentType: "application/json",
				body: fmt.Sprintf(`{"email":%q,"permission":2,"FIRSTNAME":"Ada","LASTNAME":"Lovelace"}`, email),
			}
		}
		return posted{
			url: server + contactPath, contentType: "application/x-www-form-urlencoded",
			body: "key=" + s.installed.keys[0] + "&email=" + email + "&permission=2&FIRSTNAME=Ada&LASTNAME=Lovelace",
		}
	})
}

func (s *acceptingSubject) close() error {
	return errors.Join(s.bare.Stop(stopPatience), s.installed.close())
}
