package postgres

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// daysInterval is how often it is read where days begin.
	daysInterval = 10 * time.Minute
	// partitionPrefix begins the names of partitions; the day follows.
	partitionPrefix = "events_"
	dayLayout       = "20060102"
)

// serverDay is the day by the server's clock, unless the argument says another.
const serverDay = `coalesce($1::date, ` + today + `)`

// days knows where in the log days begin. It may know less than there is.
type days struct {
	// clock says which day it is; nil is the server's.
	clock func() time.Time

	mu sync.Mutex
	// begins are the first positions of days, in order.
	begins []dayBegin
}

// dayBegin is the first position that was given on a day.
type dayBegin struct {
	day   time.Time
	first int64
}

// now returns the argument of serverDay.
func (d *days) now() *time.Time {
	if d.clock == nil {
		return nil
	}
	now := d.clock().UTC()
	return &now
}

func (d *days) setBegins(begins []dayBegin) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.begins = begins
}

// begin notes the first position of a day.
func (d *days) begin(day time.Time, first int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.begins = append(slices.Clip(d.begins), dayBegin{day: day, first: first})
}

// within returns the days that the events behind one position, up to another, can
// be of: since is the first of them, before the one after the last. Zero means
// that any can. upTo is 0 for the end of the log.
func (d *days) within(after, upTo int64) (since, before time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, begin := range d.begins {
		if begin.first <= after+1 {
			since = begin.day
		}
		if upTo > 0 && begin.first > upTo {
			return since, begin.day
		}
	}
	return since, before
}

// readDays reads where days begin.
func (s *Store) readDays(ctx context.Context) error {
	begins, err := readAll(ctx, s, func(row pgx.CollectableRow) (begin dayBegin, err error) {
		err = row.Scan(&begin.day, &begin.first)
		return begin, err
	}, `SELECT day, first_position FROM log_days ORDER BY day`)
	if err != nil {
		return fmt.Errorf("read where days begin in the log: %w", err)
	}
	s.days.setBegins(slices.Clip(begins))
	return nil
}

// keepDays reads days until the store is closed.
func (s *Store) keepDays() {
	s.every(daysInterval, func() {
		if err := s.readDays(s.lifetime); err != nil && s.lifetime.Err() == nil {
			logr.FromContextOrDiscard(s.lifetime).Error(err, "Failed to read the days of the log, retrying", "after", daysInterval.String())
		}
	})
}

func partitionOf(day time.Time) string { return partitionPrefix + day.Format(dayLayout) }

// makePartitions makes the partitions of a day, which is an argument of serverDay, and of the
// days after it. Only tests name a day, as the owner.
func makePartitions(ctx context.Context, db querier, day *time.Time) (made int, err error) {
	if day == nil {
		err = db.QueryRow(ctx, `SELECT make_partitions()`).Scan(&made)
		return made, err
	}
	err = db.QueryRow(ctx, `SELECT count(*) FILTER (WHERE _make_partition($1::date + n)) FROM generate_series(0, $2::int) AS n`, day, daysAhead).Scan(&made)
	return made, err
}

// PrepareLog implements store.Log.
func (s *Store) PrepareLog(ctx context.Context) error {
	err := s.session(ctx, patience, func(ctx context.Context, conn *pgxpool.Conn) error {
		_, err := makePartitions(ctx, conn, s.days.now())
		return err
	})
	if err != nil {
		return fmt.Errorf("make the log's next partitions: %w", err)
	}
	return nil
}
