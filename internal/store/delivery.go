package store

import (
	"context"
	"time"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
)

// Deliveries keeps how far each subscription is. The controller opens and
// drops a subscription's row, the dispatcher that delivers for it writes it.
type Deliveries interface {
	// OpenDelivery makes the row of a new subscription, at the end of the log,
	// so that it gets every event committed afterwards. It does nothing when
	// there is one.
	OpenDelivery(ctx context.Context, key SubscriptionKey) error
	// DropDelivery removes the row, what was set aside, what was asked for and the
	// attempts; it does nothing when there is no row.
	DropDelivery(ctx context.Context, key SubscriptionKey) error
	// LoadDelivery returns the row, or ErrNotFound.
	LoadDelivery(ctx context.Context, key SubscriptionKey) (Delivery, error)
	// Checkpoint writes rows together with what belongs to them, in one commit. One
	// that may have been written already does no harm when it is written again.
	// It never makes a row, and it leaves a row alone that has another Token,
	// with all that belongs to it: such keys are returned.
	Checkpoint(ctx context.Context, progress []Progress) (gone []SubscriptionKey, err error)
	// DeliveriesSince returns the rows of subscriptions written after this
	// revision, oldest write first. 0 returns all. Rows of mails are not among
	// them.
	DeliveriesSince(ctx context.Context, revision int64) ([]Delivery, error)
	// SetAsideEvents returns the positions of events that were set aside, in
	// order, beginning behind this one. limit is how many to return at most.
	SetAsideEvents(ctx context.Context, key SubscriptionKey, after int64, limit int) ([]int64, error)
}

// Delivery is how far one subscription is.
//
// Every matching event of the log up to Cursor is in one of five places: it is
// delivered, it is in Open, it lies in a span of Owed, it is set aside, or it is
// lost because it came after the buffer of a deactivated subscription had ended.
type Delivery struct {
	Key SubscriptionKey
	// Token fences: whoever writes the row must know the token that the store
	// gave it. A row that was claimed by another owner, or dropped and opened
	// again, has another one.
	Token int64
	// Cursor is the position up to which the log was looked at.
	Cursor int64
	// Open are the events that were taken and are not delivered yet, by position.
	Open []OpenEvent
	// Behind is how many matching events there were after Cursor when that was
	// last counted.
	Behind int64
	// Health is how the callback is.
	Health Health
	// Life is where the subscription stands beside that.
	Life Life
	// Operations is how many operational events and notices the row has raised so
	// far.
	Operations int64
	// SetAside is how many events are set aside. The store counts them.
	SetAside int64
	// Revision rises with each write of any row. The store sets it.
	Revision int64
}

// Progress is what a checkpoint writes of one subscription.
type Progress struct {
	Delivery
	// Aside are events to be set aside, those alone that the log still has.
	Aside []int64
	// Taken are events to be set aside no more; it does no harm to name others.
	Taken []int64
	// Raised are operational events to be appended to the log: the last of those
	// that Operations counts. Those that the row in the store counts already are in
	// the log and are left out: an earlier checkpoint was written, though its caller
	// was not told.
	Raised []contact.Event
}

// NotRaised returns the events of Raised that a row in the store, which counts so
// many operations, has not raised yet.
func (p *Progress) NotRaised(operations int64) []contact.Event {
	missing := min(max(p.Operations-operations, 0), int64(len(p.Raised)))
	return p.Raised[int64(len(p.Raised))-missing:]
}

// OpenEvent is an event that was taken from the log and is not delivered yet.
type OpenEvent struct {
	Position int64
	// Attempts is how many attempts have failed.
	Attempts int
	// Retries is how many of the waits before retries have begun.
	Retries int
	// FirstAttempt is when the first attempt began, once that has failed.
	FirstAttempt time.Time
	// NextAttempt is when the next attempt is due; zero means now.
	NextAttempt time.Time
	// WaitEnds is when the wait ends that has begun last. It is after NextAttempt
	// where the callback asked to be called sooner.
	WaitEnds time.Time
	// Replayed: the event is sent by a replay.
	Replayed bool
	// Held, of a notice that had to wait, is how many deactivations it tells of.
	Held int
}

// Health is how a callback is.
type Health struct {
	// LastSuccess is when a call last succeeded; zero when none has.
	LastSuccess time.Time `json:"lastSuccess,omitzero"`
	// FailingSince is when the first attempt failed after the last success;
	// zero while the last call succeeded or none was made.
	FailingSince time.Time `json:"failingSince,omitzero"`
	// DeactivationDue is when the callback will be deactivated if no call
	// succeeds; zero when it is well, or is never deactivated.
	DeactivationDue time.Time `json:"deactivationDue,omitzero"`
	// LastFailure is the last attempt that failed, nil when none has.
	LastFailure *Failure `json:"lastFailure,omitempty"`
}

// Failure is an attempt that failed.
type Failure struct {
	Time   time.Time              `json:"time"`
	Reason v1alpha1.FailureReason `json:"reason"`
	// HTTPStatus is what the callback answered; 0 when it did not.
	HTTPStatus int `json:"httpStatus,omitempty"`
	// Attempts is how many attempts the event had, this one included.
	Attempts int `json:"attempts"`
}

// Life is where a subscription stands between its deactivation and the end of
// the replay after it.
type Life struct {
	// Deactivation tells of the callback's deactivation; nil while it is active.
	Deactivation *Deactivation `json:"deactivation,omitempty"`
	// Owed are events up to the cursor that are still to be sent: the buffer
	// while the callback is deactivated, what is left of a replay while one runs.
	Owed Owed `json:"owed,omitzero"`
	// Replay is the last replay, nil when there was none.
	Replay *Replay `json:"replay,omitempty"`
	// Answers are the answers to the last request of each type.
	Answers map[RequestType]Answer `json:"answers,omitempty"`
	// Notices, in the delivery of a namespace's notices, are those that were mailed
	// within the last hour.
	Notices []SentNotice `json:"notices,omitempty"`
}

// SentNotice is a notice that was mailed.
type SentNotice struct {
	// Subject is a digest of the subscription and the address, Recipient one of the
	// address alone.
	Subject   string `json:"subject"`
	Recipient string `json:"recipient"`
	// At is when the mail server took it.
	At time.Time `json:"at"`
}

// Span is a part of the log: the events behind After, up to UpTo.
type Span struct {
	After int64 `json:"after"`
	UpTo  int64 `json:"upTo"`
}

// Owed are events that were not taken when the log was looked at, or shall be
// taken again.
type Owed struct {
	// Spans are where in the log they lie, in order. Those that don't match the
	// subscription are not owed.
	Spans []Span `json:"spans,omitempty"`
	// Aside, when not empty, are the events in it that are set aside.
	Aside Span `json:"aside,omitzero"`
	// Events is how many there are. Events of people that are forgotten meanwhile
	// count on.
	Events int64 `json:"events,omitempty"`
}

// Deactivation tells of a callback that is called no more.
type Deactivation struct {
	At time.Time `json:"at"`
	// Until is when the buffer ends: later events are lost to the subscription.
	Until time.Time `json:"until"`
	// Ended: an event after the buffer's end was seen. All that follow are lost.
	Ended bool `json:"ended,omitempty"`
	// Lost is how many events were lost so far, LostFrom and LostTo when the
	// first and the last of them happened.
	Lost     int64     `json:"lost,omitempty"`
	LostFrom time.Time `json:"lostFrom,omitzero"`
	LostTo   time.Time `json:"lostTo,omitzero"`
}

// Replay is how far a replay is.
type Replay struct {
	Of v1alpha1.ReplayContent `json:"of"`
	// Total is how many events it has. Sent of them were delivered, Failed set
	// aside.
	Total  int64 `json:"total"`
	Sent   int64 `json:"sent,omitempty"`
	Failed int64 `json:"failed,omitempty"`
	// StartedAt is when it began, FinishedAt when it ended; zero while it runs.
	StartedAt  time.Time `json:"startedAt"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	// Interrupted: it ended because the callback was deactivated.
	Interrupted bool `json:"interrupted,omitempty"`
}

// Running tells whether there is a replay that has not ended.
func (r *Replay) Running() bool { return r != nil && r.FinishedAt.IsZero() }
