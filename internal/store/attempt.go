package store

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"postbus.dev/postbus/api/v1alpha1"
)

// MaxAttempts is how many attempts are kept of each subscription.
const MaxAttempts = 200

// Attempts keeps the last attempts of each subscription, for people to look at.
// Nothing is decided by them: a process that dies may leave out its last ones.
type Attempts interface {
	// AddAttempts puts attempts behind those that are kept of their
	// subscriptions, in one commit, and keeps the last MaxAttempts of each. They
	// are a change of the subscription's row. A row that is gone, or has another
	// Token, gets none. Each subscription has one writer at a time.
	AddAttempts(ctx context.Context, added []AttemptLog) error
	// LoadAttempts returns the last attempts of a subscription, oldest first. limit
	// is how many to return at most.
	LoadAttempts(ctx context.Context, key SubscriptionKey, limit int) ([]Attempt, error)
}

// AttemptLog are attempts of one subscription, oldest first.
type AttemptLog struct {
	Key SubscriptionKey
	// Token is that of the subscription's row.
	Token    int64
	Attempts []Attempt
}

// Attempt tells of one call of a callback. It has nothing of the person that the
// event is about, and nothing of the callback's address.
type Attempt struct {
	// Time is when it began.
	Time time.Time `json:"time"`
	// EventID and EventType are the event's; a test event is in no log.
	EventID   string             `json:"eventID"`
	EventType v1alpha1.EventType `json:"eventType"`
	// Number is 1 for the first attempt of an event, 2 for the first retry.
	Number int `json:"number"`
	// Outcome is the label of how it ended, as logs and metrics have it.
	Outcome string `json:"outcome"`
	// HTTPStatus is what the callback answered; 0 when it did not.
	HTTPStatus int           `json:"httpStatus,omitempty"`
	Duration   time.Duration `json:"duration"`
	// Replay: a replay sent the event. Test: it was made to try the callback.
	Replay bool `json:"replay,omitempty"`
	Test   bool `json:"test,omitempty"`
}

// LastAttempts returns the last n attempts, or all where there are fewer.
func LastAttempts(attempts []Attempt, n int) []Attempt {
	return attempts[max(0, len(attempts)-n):]
}

// Status returns the attempt as status has it.
func (a Attempt) Status() v1alpha1.Attempt {
	told := v1alpha1.Attempt{
		Time: metav1.NewMicroTime(a.Time), EventID: a.EventID, EventType: string(a.EventType), Attempt: int32(a.Number),
		Outcome: a.Outcome, Duration: &metav1.Duration{Duration: a.Duration.Round(100 * time.Microsecond)},
	}
	if IsHTTPStatus(a.HTTPStatus) {
		told.HTTPStatus = ptr.To(int32(a.HTTPStatus))
	}
	if a.Replay {
		told.Replay = &a.Replay
	}
	if a.Test {
		told.Test = &a.Test
	}
	return told
}

// IsHTTPStatus tells whether a status has the three digits that HTTP knows.
func IsHTTPStatus(status int) bool { return status >= 100 && status <= 999 }
