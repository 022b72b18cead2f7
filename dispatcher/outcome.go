package dispatcher

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/guard"
)

// verdict is what an attempt means for its event.
type verdict int

const (
	// delivered: the callback has the event.
	delivered verdict = iota
	// failed: the event is tried again.
	failed
	// givenUp: the event is closed although nobody has it, because no other
	// attempt could change that.
	givenUp
	// gone: the callback says that it is there no more, so it is not called again
	// (Standard Webhooks, for 410).
	gone
	// unsendable: no call can be made of the event, which is set aside. It says
	// nothing about the callback.
	unsendable
	// hindered: the call could not be made for a reason on our side. The event is
	// tried again, and uses up no retry.
	hindered
	// postponed: the call could not be made, because the controller has not checked what it needs.
	// The event is tried again soon, and nothing is counted.
	postponed
	// aborted: this process gave up for reasons of its own, so the attempt
	// says nothing about the callback.
	aborted
	// deferred: no attempt was made, because there was no room for its body. The event
	// is due again at once, and the next attempt begins when there is room.
	deferred
)

// outcome is what one attempt yields.
type outcome struct {
	verdict verdict
	// reason says why an attempt failed or was the last; empty otherwise.
	reason v1alpha1.FailureReason
	// status is the status of the answer, of HTTP or of SMTP; 0 when there was
	// none.
	status int
	// retryAfter is after what time the callback asks to be called again: 0 when
	// it does not say, otherwise at least a second.
	retryAfter time.Duration
}

// The outcomes that have no reason have these names.
const (
	outcomeDelivered = "Delivered"
	outcomeAborted   = "Aborted"
	outcomePostponed = "Postponed"
	outcomeDeferred  = "Deferred"
)

// label names the outcome in logs and metrics.
func (o outcome) label() string {
	switch o.verdict {
	case delivered:
		return outcomeDelivered
	case aborted:
		return outcomeAborted
	case postponed:
		return outcomePostponed
	case deferred:
		return outcomeDeferred
	default:
		return string(o.reason)
	}
}

// ofAnswer is the outcome of an answer that came now.
func ofAnswer(answer *http.Response, now time.Time) outcome {
	o := ofStatus(answer.StatusCode)
	if o.status == http.StatusTooManyRequests || o.status == http.StatusServiceUnavailable {
		o.retryAfter = retryAfter(answer.Header.Get("Retry-After"), now)
	}
	return o
}

// ofStatus is the outcome of an answer by its status: success is any 2xx, and 410
// ends the subscription's calls, as Standard Webhooks advises.
func ofStatus(status int) outcome {
	switch {
	case status >= 200 && status <= 299:
		return outcome{verdict: delivered, status: status}
	case status >= 300 && status <= 399 && status != http.StatusNotModified:
		return outcome{verdict: failed, reason: v1alpha1.FailureRedirect, status: status}
	case status == http.StatusGone:
		return outcome{verdict: gone, reason: v1alpha1.FailureHTTPStatus, status: status}
	default:
		return outcome{verdict: failed, reason: v1alpha1.FailureHTTPStatus, status: status}
	}
}

// The bounds of what an answer can ask for by Retry-After. More than the longest
// of retry.intervals makes no difference.
const (
	minRetryAfter = time.Second
	maxRetryAfter = 24 * time.Hour
)

// retryAfter reads a Retry-After header (RFC 9110, 10.2.3), which is a number of
// seconds or a date. It returns 0 for what is neither.
func retryAfter(text string, now time.Time) time.Duration {
	wait := maxRetryAfter
	if isNumber := text != "" && strings.Trim(text, "0123456789") == ""; isNumber {
		// A number that is too large to be read is one that is beyond the bound.
		if seconds, err := strconv.Atoi(text); err == nil && seconds < int(maxRetryAfter/time.Second) {
			wait = time.Duration(seconds) * time.Second
		}
	} else {
		date, err := http.ParseTime(text)
		if err != nil {
			return 0
		}
		wait = date.Sub(now)
	}
	return min(max(wait, minRetryAfter), maxRetryAfter)
}

// ofError is the outcome of a call without an answer.
func ofError(err error) outcome {
	if errors.Is(err, context.Canceled) {
		return outcome{verdict: aborted}
	}
	return outcome{verdict: failed, reason: reasonOf(err)}
}

func reasonOf(err error) v1alpha1.FailureReason {
	var (
		refusal   *guard.RefusedError
		dnsError  *net.DNSError
		timeout   net.Error
		broken    = []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed}
		isTimeout = errors.As(err, &timeout) && timeout.Timeout()
	)
	switch {
	case errors.As(err, &refusal):
		return v1alpha1.FailureAddressForbidden
	case errors.As(err, &dnsError):
		return v1alpha1.FailureDNS
	case errors.Is(err, context.DeadlineExceeded) || isTimeout:
		return v1alpha1.FailureTimeout
	case errors.Is(err, syscall.ECONNREFUSED):
		return v1alpha1.FailureConnectionRefused
	case isTLS(err):
		return v1alpha1.FailureTLS
	case isOneOf(err, broken):
		return v1alpha1.FailureConnectionBroken
	default:
		return v1alpha1.FailureNetwork
	}
}

// errGarbledAnswer: what the callback's end sent is no HTTP, or breaks its rules.
var errGarbledAnswer = errors.New("the answer is no HTTP, or breaks its rules")

// unquoted returns the error of a call without what came in answer to it. net/http quotes
// what it can't read, and that may repeat the call: its path, its headers, its body.
func unquoted(err error) error {
	var ofSystem *net.OpError
	if reasonOf(err) != v1alpha1.FailureNetwork || errors.As(err, &ofSystem) {
		return err
	}
	return errGarbledAnswer
}

func isTLS(err error) bool {
	var (
		record    tls.RecordHeaderError
		verify    *tls.CertificateVerificationError
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		operation *net.OpError
	)
	// An alert comes as an operation with one of these names, see crypto/tls.
	isAlert := errors.As(err, &operation) && (operation.Op == "remote error" || operation.Op == "local error")
	return isAlert || errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &record) || errors.As(err, &verify) ||
		errors.As(err, &authority) || errors.As(err, &hostname) || errors.As(err, &invalid)
}

func isOneOf(err error, targets []error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
