package postgres

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	"github.com/jackc/pgx/v5"
)

// WaitForEvents implements store.Log.
func (s *Store) WaitForEvents(ctx context.Context, after int64) error {
	_, err := s.log.Wait(ctx, after)
	return err
}

// WaitForOwners implements store.Owners.
func (s *Store) WaitForOwners(ctx context.Context, after int64) (int64, error) {
	return s.owners.Wait(ctx, after)
}

// The channels that processes notify each other on. They are the database's, so
// the schema is in their names.
func (s *Store) eventsChannel() string { return s.schema + "_events" }
func (s *Store) ownersChannel() string { return s.schema + "_owners" }

// linksChannel is what rotate_link_key notifies on.
func (s *Store) linksChannel() string { return s.schema + "_links" }

const notify = `SELECT pg_notify($1, $2)`

// pollInterval is how long a notification that got lost is waited for.
const pollInterval = time.Second

// listen hears of the commits of other processes, until the store is closed.
func (s *Store) listen() {
	for s.lifetime.Err() == nil {
		err := s.hear(s.lifetime)
		s.listening.Store(false)
		logr.FromContextOrDiscard(s.lifetime).V(1).Info("listening to the store ended", "reason", fmt.Sprint(err))
		select {
		case <-time.After(pollInterval):
		case <-s.lifetime.Done():
		}
	}
}

// hear listens on a connection of its own until that breaks.
func (s *Store) hear(ctx context.Context) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }() // nothing is open on it
	for _, channel := range []string{s.eventsChannel(), s.ownersChannel(), s.linksChannel()} {
		if _, err := conn.Exec(ctx, "LISTEN "+quote(channel)); err != nil {
			return err
		}
	}
	s.listening.Store(true)
	s.owners.Rise() // something may have been missed
	s.linkKeys.Changed()
	for {
		notification, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		switch notification.Channel {
		case s.eventsChannel():
			if head, err := strconv.ParseInt(notification.Payload, 10, 64); err == nil {
				s.log.Reach(head)
			}
		case s.ownersChannel():
			s.owners.Rise()
		case s.linksChannel():
			s.linkKeys.Changed()
		}
	}
}

// connect makes a connection that is in no pool.
func (s *Store) connect(ctx context.Context) (*pgx.Conn, error) {
	conn, _, err := connectFor(ctx, s.lifetime, s.file, s.schema)
	return conn, err
}

// connectOnce makes a connection for a command.
func connectOnce(ctx context.Context, file string) (conn *pgx.Conn, schema string, err error) {
	conn, schema, err = connectFor(ctx, ctx, file, "")
	return conn, schema, explain(ctx, err)
}

// connectFor makes a connection in a lifetime. Its schema is this one, or that of the connection
// string where it is empty.
func connectFor(ctx, lifetime context.Context, file, schema string) (*pgx.Conn, string, error) {
	config, named, err := readConfig(lifetime, file)
	if err != nil {
		return nil, "", err
	}
	schema = cmp.Or(schema, named)
	config.ConnConfig.RuntimeParams["search_path"] = quote(schema)
	timed, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := pgx.ConnectConfig(timed, config.ConnConfig)
	if err != nil {
		return nil, "", unreachable{err}
	}
	return conn, schema, nil
}

// poll asks for what notifications have not told, and logs when the server goes
// away and when it comes back.
func (s *Store) poll() {
	logger := logr.FromContextOrDiscard(s.lifetime)
	away := false
	s.every(pollInterval, func() {
		head, err := s.Head(s.lifetime)
		if err == nil {
			s.log.Reach(head)
		}
		if !s.listening.Load() {
			s.owners.Rise() // it may be for nothing
		}
		switch {
		case err != nil && !away && s.lifetime.Err() == nil:
			logger.Error(err, "store is not available")
		case err == nil && away:
			logger.Info("store is available again")
		}
		away = err != nil
	})
}

// every has work done at an interval until the store is closed, for the first time
// after one.
func (s *Store) every(interval time.Duration, work func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			work()
		case <-s.lifetime.Done():
			return
		}
	}
}
