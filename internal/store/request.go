package store

import (
	"context"
	"time"

	"postbus.dev/postbus/api/v1alpha1"
)

// Requests keeps what people ask of a subscription: the last request of each
// type. The controller and ingress put them, the dispatcher answers them in
// Life.Answers.
type Requests interface {
	// PutRequest takes the place of the earlier request of this type. It does
	// nothing when that has the same value. ErrNotFound: the subscription has no
	// row.
	PutRequest(ctx context.Context, request Request) error
	// LoadRequests returns the requests of one subscription, in the order in
	// which they were put.
	LoadRequests(ctx context.Context, key SubscriptionKey) ([]Request, error)
	// RequestsSince returns the requests of all subscriptions that were put after
	// this revision, in that order. 0 returns all.
	RequestsSince(ctx context.Context, revision int64) ([]Request, error)
}

// RequestType is what is asked for: a v1alpha1.RequestType, or the following.
type RequestType = v1alpha1.RequestType

// RequestReactivateByLink is a reactivation by the link in a mail. It is a type of
// its own so that it takes no annotation's place.
const RequestReactivateByLink RequestType = "ReactivateByLink"

// Request is one thing that somebody asks of a subscription.
type Request struct {
	Key  SubscriptionKey `json:"-"`
	Type RequestType     `json:"-"`
	// Value names the request: another value is another request.
	Value string `json:"-"`
	// Replay: a reactivation is to send the buffered events.
	Replay bool `json:"replay,omitempty"`
	// DeactivatedAt is the deactivation that a link was made for. It reactivates
	// from no other.
	DeactivatedAt time.Time `json:"deactivatedAt,omitzero"`
	// Since and Until are the range of a replay; Until is included.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
	// EventID names the event of a replay.
	EventID string `json:"eventID,omitempty"`
	// Revision rises with each write of any row. The store sets it.
	Revision int64 `json:"-"`
}

// Answer is what became of a request.
type Answer struct {
	// Value is that of the request.
	Value  string                 `json:"value"`
	Result v1alpha1.RequestResult `json:"result"`
	// Message says it in words.
	Message string    `json:"message,omitempty"`
	Time    time.Time `json:"time"`
}
