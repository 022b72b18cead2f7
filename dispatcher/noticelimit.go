package dispatcher

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"
	"time"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// noticeLimits bound how many notices are mailed. A notice goes to whatever address a
// subscription names, and nobody there has asked for it.
type noticeLimits struct {
	// window is the time after a notice in which there is no other one to its address
	// about its subscription. The other limits are within a window too.
	window time.Duration
	// perAddress and perNamespace are how many notices of the namespace are mailed to
	// one address, and in all. The latter also bounds what the delivery's row holds.
	perAddress, perNamespace int
}

// defaultNoticeLimits are documented in docs/mails.md.
var defaultNoticeLimits = &noticeLimits{window: time.Hour, perAddress: 10, perNamespace: 100}

// hold reports whether an event that is due must not be sent now. It then either waits,
// or its deactivation is told by another notice, which waits. The notices that were
// mailed are in the delivery's row, which outlives subscriptions: deleting one and making
// it again under its name evades no limit.
func (l *ledger) hold(e *openEvent, now time.Time, limits *noticeLimits) bool {
	switch {
	case limits == nil:
		return false
	case l.open[e.event.Position] != e: // another notice tells of it
		return true
	case l.merge(e, now, limits):
		return true
	}
	due := l.noticeDue(e.event, now, limits)
	if due.After(now) {
		l.holdUntil(e, due)
		return true
	}
	return false
}

// holdUntil has a notice wait.
func (l *ledger) holdUntil(e *openEvent, due time.Time) {
	e.held = max(e.held, 1)
	e.dueAt = due
	l.queue(e)
	l.unsaved = true
}

// merge reports whether a notice is told by, or has to wait for, another open one about
// the same subscription to the same address.
func (l *ledger) merge(e *openEvent, now time.Time, limits *noticeLimits) bool {
	for _, other := range l.open {
		if other == e || !sameNotice(e.event, other.event) {
			continue
		}
		if other.inFlight {
			l.holdUntil(e, now.Add(limits.window))
			return true
		}
		first, last := e, other
		if other.event.Position < e.event.Position {
			first, last = other, e
		}
		first.held = max(first.held, 1) + max(last.held, 1)
		l.close(last)
		l.unsaved = true
		if last == e {
			return true
		}
	}
	return false
}

// noticeDue returns when the limits allow a notice, which is not after now where they
// allow it now.
func (l *ledger) noticeDue(event *contact.Event, now time.Time, limits *noticeLimits) (due time.Time) {
	subject, recipient := noticeDigests(event)
	toAddress, all := 0, 0
	var oldestToAddress, oldest time.Time
	for _, sent := range l.recentNotices(now, limits) {
		if sent.Subject == subject {
			due = later(due, sent.At.Add(limits.window))
		}
		if sent.Recipient == recipient {
			toAddress++
			oldestToAddress = earliest(oldestToAddress, sent.At)
		}
		all++
		oldest = earliest(oldest, sent.At)
	}
	for _, e := range l.open {
		if !e.inFlight {
			continue
		}
		all++
		if _, other := noticeDigests(e.event); other == recipient {
			toAddress++
		}
	}
	if toAddress >= limits.perAddress {
		due = later(due, waitFor(oldestToAddress, now, limits))
	}
	if all >= limits.perNamespace {
		due = later(due, waitFor(oldest, now, limits))
	}
	return due
}

// inFlightPause is how long a notice waits for others that are in flight.
const inFlightPause = time.Minute

// waitFor returns when the oldest of the notices that use up a limit does not count any
// more; it is zero where all of them are in flight.
func waitFor(oldest, now time.Time, limits *noticeLimits) time.Time {
	if oldest.IsZero() {
		return now.Add(inFlightPause)
	}
	return oldest.Add(limits.window)
}

// noteNotice notes that a notice was mailed.
func (l *ledger) noteNotice(event *contact.Event, now time.Time, limits *noticeLimits) {
	if limits == nil {
		return
	}
	subject, recipient := noticeDigests(event)
	l.life.Notices = append(l.recentNotices(now, limits), store.SentNotice{Subject: subject, Recipient: recipient, At: now})
}

// recentNotices returns the notices that count now. One from the future is of a clock
// that was wrong; it counts for a window.
func (l *ledger) recentNotices(now time.Time, limits *noticeLimits) []store.SentNotice {
	return slices.DeleteFunc(slices.Clone(l.life.Notices), func(sent store.SentNotice) bool {
		return now.Sub(sent.At).Abs() >= limits.window
	})
}

// sameNotice reports whether two notices are about one subscription, to one address.
func sameNotice(a, b *contact.Event) bool {
	return a.Operation.Name == b.Operation.Name && strings.EqualFold(a.Operation.Recipient, b.Operation.Recipient)
}

// noticeDigests returns digests of the subscription and the address of a notice, and of
// the mailbox that it goes to: the row needs no names. What is after a plus sign is left
// out of the mailbox, because providers deliver all such addresses to one.
func noticeDigests(event *contact.Event) (subject, recipient string) {
	address := strings.ToLower(mailbox(event.Operation.Recipient))
	at := max(0, strings.LastIndex(address, "@"))
	local, _, _ := strings.Cut(address[:at], "+")
	return noticeDigest(event.Operation.Name + " " + address), noticeDigest(local + address[at:])
}

// noticeDigest returns 96 bits of a SHA-256 in 16 characters.
func noticeDigest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// earliest returns the earlier of two times, leaving out a zero one.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
