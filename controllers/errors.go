package controllers

import (
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// conflictDelay is how long to wait for the cache after a write was refused
// because the object that it started from was out of date.
const conflictDelay = 100 * time.Millisecond

// refusal is what a step finds wrong with an object. It becomes the reason and
// message of a False condition and is never retried: only a change of
// something that the controller watches can mend it.
type refusal struct {
	reason  string
	message string
}

// Error returns the message.
func (r *refusal) Error() string { return r.message }

// refuse returns a refusal. The message is a sentence for people.
func refuse(reason, format string, arguments ...any) error {
	return &refusal{reason: reason, message: fmt.Sprintf(format, arguments...)}
}

// wait is a step's wish to be run again later. It is no failure.
type wait struct {
	after time.Duration
}

// Error says how long the wait is.
func (w wait) Error() string { return fmt.Sprintf("wait %s", w.after) }

// refusalIn returns the refusal that err wraps, or nil.
func refusalIn(err error) *refusal {
	var refused *refusal
	if errors.As(err, &refused) {
		return refused
	}
	return nil
}

// failed tells whether a step's error is one to try again for, rather than a
// finding.
func failed(err error) bool {
	var waiting wait
	return err != nil && refusalIn(err) == nil && !errors.As(err, &waiting)
}

// outcome translates a step's error for controller-runtime.
func outcome(err error) (reconcile.Result, error) {
	var waiting wait
	switch {
	case errors.As(err, &waiting):
		return reconcile.Result{RequeueAfter: waiting.after}, nil
	case apierrors.IsConflict(err):
		return reconcile.Result{RequeueAfter: conflictDelay}, nil
	case failed(err):
		return reconcile.Result{}, err
	default:
		return reconcile.Result{}, nil
	}
}
