package postgres

import "github.com/jackc/pgx/v5"

const (
	// failoverGap is by how much a counter rises when another server goes on with it.
	failoverGap = 1_000_000

	// thisServer names the server that a session is on: another one, or one that was
	// started again, began at another time.
	thisServer = `(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint`

	// A standby that follows its primary at a distance lacks the last commits when it
	// takes over. What they had counted must not be given again: whoever has read it,
	// and asks for what comes after, would miss what is new, and the link in a mail to
	// somebody whose contact is lost would open another's. Nobody can tell how much
	// that is, so every change of the server leaves a gap.
	leaveGap = `UPDATE counters SET server = ` + thisServer + `, value = value + CASE server WHEN 0 THEN 0 ELSE $2::bigint END
		WHERE name = $1 AND server <> ` + thisServer

	// behindGap is what a counter has once it has left its gap. What is read so is
	// written by setCounter, under the lock of another counter.
	behindGap = `value + CASE WHEN server IN (0, ` + thisServer + `) THEN 0 ELSE $2::bigint END`

	selectCounter = `SELECT value FROM counters WHERE name = $1 FOR UPDATE`

	setCounter = `UPDATE counters SET value = $2, server = ` + thisServer + ` WHERE name = $1`
)

// lockCounter locks a counter until the commit. The last statement that it adds, which
// it returns, tells its value.
func lockCounter(batch *pgx.Batch, name string) *pgx.QueuedQuery {
	batch.Queue(leaveGap, name, failoverGap)
	return batch.Queue(selectCounter, name)
}
