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
	// daysAhead is for how many days after today there are partitions already.
	daysAhead = 2
	// daysInterval is how often that is seen to.
	daysInterval = 10 * time.Minute
	// partitionPrefix begins the names of partitions; the day follows.
	partitionPrefix = "events_"
	dayLayout       = "20060102"
)

// serverDay is the day by the server's clock, unless the argument says another.
const serverDay = `coalesce($1::date, (clock_timestamp() AT TIME ZONE 'UTC')::date)`

// days knows where in the log days begin, and which partitions there are. It may
// know less than there is.
type days struct {
	// clock says which day it is; nil is the server's.
	clock func() time.Time

	mu sync.Mutex
	// begins are the first positions of days, in order.
	begins []dayBegin
	made   map[time.Time]bool
}

// dayBegin is the first position that was given on a day.
type dayBegin struct {
	day   time.Time
	first int64
}

func newDays(clock func() time.Time) *days {
	return &days{clock: clock, made: map[time.Time]bool{}}
}

// now returns the argument of serverDay.
func (d *days) now() *time.Time {
	if d.clock == nil {
		return nil
	}
	now := d.clock().UTC()
	return &now
}

// has tells whether a day is known to have its partition.
func (d *days) has(day time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.made[day]
}

func (d *days) note(day time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.made[day] = true
}

// forget has it asked again which partitions there are.
func (d *days) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.made)
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

// prepareDays makes the partitions of today and of the next days, and reads where
// days begin.
func (s *Store) prepareDays(ctx context.Context) error {
	var today time.Time
	if err := s.readRow(ctx, []any{&today}, "SELECT "+serverDay, s.days.now()); err != nil {
		return fmt.Errorf("ask which day it is: %w", err)
	}
	for n := range daysAhead + 1 {
		if day := today.AddDate(0, 0, n); !s.days.has(day) {
			if err := s.makePartition(ctx, day); err != nil {
				return err
			}
		}
	}
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

// keepDays prepares days until the store is closed.
func (s *Store) keepDays() {
	s.every(daysInterval, func() {
		if err := s.prepareDays(s.lifetime); err != nil && s.lifetime.Err() == nil {
			logr.FromContextOrDiscard(s.lifetime).Error(err, "preparing the log's next days has to wait", "next", daysInterval.String())
		}
	})
}

func partitionOf(day time.Time) string { return partitionPrefix + day.Format(dayLayout) }

// makePartition makes the partition of a day, where there is none. It is made
// beside the log and attached then, which holds up no writer and no reader.
func (s *Store) makePartition(ctx context.Context, day time.Time) error {
	err := s.session(ctx, patience, func(ctx context.Context, conn *pgxpool.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, s.partitionsLock()); err != nil {
				return err
			}
			return attachPartition(ctx, tx, day)
		})
	})
	if err != nil {
		return fmt.Errorf("make the log's partition of %s: %w", day.Format(time.DateOnly), err)
	}
	s.days.note(day)
	return nil
}

// partitionsLock names the lock of whoever makes partitions.
func (s *Store) partitionsLock() string { return s.schema + "/partitions" }

func attachPartition(ctx context.Context, tx pgx.Tx, day time.Time) error {
	name := partitionOf(day)
	var attached bool
	err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_inherits
		WHERE inhparent = 'events'::regclass AND inhrelid = to_regclass($1) AND NOT inhdetachpending)`, name).Scan(&attached)
	if err != nil || attached {
		return err
	}
	from, to := day.Format(time.DateOnly), day.AddDate(0, 0, 1).Format(time.DateOnly)
	for _, statement := range []string{
		`DROP TABLE IF EXISTS ` + name, // whoever pruned it was stopped half-way
		// With the constraint, attaching needs not look at rows.
		fmt.Sprintf(`CREATE TABLE %s (LIKE events INCLUDING ALL, CONSTRAINT %s_day CHECK (day >= '%s' AND day < '%s'))`, name, name, from, to),
		fmt.Sprintf(`ALTER TABLE events ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')`, name, from, to),
		fmt.Sprintf(`ALTER TABLE %s DROP CONSTRAINT %s_day`, name, name),
	} {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}
