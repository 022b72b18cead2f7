package dispatcher

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// callbackRules are those of a subscription whose events are retried after one and
// after two minutes.
var callbackRules = &rules{
	intervals: intervals, deactivation: v1alpha1.DeactivateOnUnreachable, window: time.Hour,
	replayGap: time.Second, maxReplayed: 2,
}

func minute(n int) time.Time { return start.Add(time.Duration(n) * time.Minute) }

// eventAt is event at a time.
func eventAt(position, contactID int64, at time.Time) *contact.Event {
	e := event(position, contactID)
	e.Time = at
	return e
}

// fail fails the only event that may be sent at a time.
func fail(t *testing.T, l *ledger, now time.Time, o outcome) {
	t.Helper()
	e := l.next(now, callbackRules)
	NewWithT(t).Expect(e).NotTo(BeNil())
	l.settle(e, o, now, callbackRules)
}

func kinds(l *ledger) (kinds []v1alpha1.EventType) {
	for _, e := range l.raised {
		kinds = append(kinds, e.Type)
	}
	return kinds
}

func TestUnreachableCallbackIsDeactivated(t *testing.T) {
	g := NewWithT(t)
	l := perContact()
	l.key = store.SubscriptionKey{Namespace: "marketing", Name: "crm"}
	l.take(event(1, 1), start)
	fail(t, l, start, bad)
	g.Expect(l.deactivationDue(callbackRules)).To(Equal(minute(3)))
	fail(t, l, minute(1), bad)
	g.Expect(l.deactivationDue(callbackRules)).To(Equal(minute(3)))
	l.take(event(2, 2), minute(2))
	g.Expect(l.life.Deactivation).To(BeNil())
	g.Expect(positions(sendAll2(l, minute(3)))).To(Equal([]int64{2, 1}))
	l.settle(l.open[1], bad, minute(3), callbackRules)
	g.Expect(l.life.Deactivation).To(Equal(&store.Deactivation{At: minute(3), Until: minute(63)}))
	g.Expect(l.deactivationDue(callbackRules)).To(BeZero())
	l.settle(l.open[2], bad, minute(4), callbackRules)

	g.Expect(l.next(minute(60), callbackRules)).To(BeNil(), "nothing is sent any more")
	g.Expect(l.nextDue(callbackRules)).To(BeZero())
	g.Expect(l.buffered()).To(Equal(int64(2)))
	g.Expect(kinds(l)).To(Equal([]v1alpha1.EventType{contact.EventFailing, contact.EventDeactivated}))
	g.Expect(l.raised[1]).To(And(
		HaveField("List", contact.ListKey{Namespace: "marketing"}), HaveField("Time", minute(3)),
		HaveField("Operation", HaveValue(Equal(contact.Operation{
			Kind: "WebhookSubscription", Name: "crm", Reason: v1alpha1.FailureHTTPStatus, HTTPStatus: 500,
			FailingSince: start, BufferedUntil: minute(63), Events: 2,
		})))))
}

// sendAll2 is sendAll by callbackRules.
func sendAll2(l *ledger, now time.Time) (sent []*openEvent) {
	for e := l.next(now, callbackRules); e != nil; e = l.next(now, callbackRules) {
		sent = append(sent, e)
	}
	return sent
}

func TestPoisonousEventIsSetAside(t *testing.T) {
	for name, row := range map[string]struct {
		policy    v1alpha1.DeactivationPolicy
		others    bool // succeed
		outcome   outcome
		attempts  int
		setAside  bool
		isRetried bool
	}{
		"others succeed":              {others: true, outcome: bad, attempts: 3, setAside: true},
		"others succeed, but for now": {others: true, outcome: bad, attempts: 2, isRetried: true},
		"nothing succeeds":            {outcome: bad, attempts: 3},
		"nothing succeeds, and the callback is never deactivated": {
			policy: v1alpha1.DeactivateNever, outcome: bad, attempts: 3, setAside: true,
		},
		"410, others succeed":       {others: true, outcome: outcome{verdict: gone, status: 410}, attempts: 1},
		"410, but never deactivate": {policy: v1alpha1.DeactivateNever, outcome: outcome{verdict: gone, status: 410}, attempts: 3, setAside: true},
		"no call can be made of it": {outcome: outcome{verdict: unsendable, reason: v1alpha1.FailureRender}, attempts: 1, setAside: true},
		"a Secret can't be read":    {outcome: outcome{verdict: hindered, reason: v1alpha1.FailureSigning}, attempts: 9, isRetried: true},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			by := *callbackRules
			if row.policy != "" {
				by.deactivation = row.policy
			}
			l := perContact()
			l.take(event(1, 1), start)
			now := start
			for n := range row.attempts {
				e := l.next(now, &by)
				g.Expect(e).NotTo(BeNil(), "attempt %d", n+1)
				l.settle(e, row.outcome, now, &by)
				if row.others && l.life.Deactivation == nil {
					l.take(event(int64(n)+2, 2), now)
					l.settle(l.next(now, &by), good, now.Add(time.Second), &by)
				}
				now = now.Add(2 * time.Minute)
			}
			g.Expect(l.aside).To(HaveLen(map[bool]int{true: 1}[row.setAside]))
			g.Expect(l.life.Deactivation != nil).To(Equal(!row.setAside && !row.isRetried))
			g.Expect(l.open).To(HaveLen(map[bool]int{false: 1}[row.setAside]))
		})
	}
}

// A callback that answers by turns is never deactivated, and raises no flood of
// events.
func TestAlternatingAnswersNeverDeactivate(t *testing.T) {
	g := NewWithT(t)
	l := newLedger(store.Delivery{}, nil, v1alpha1.OrderingNone)
	now, position := start, int64(0)
	for n := range 2000 {
		now = now.Add(7 * time.Second)
		position++
		l.take(event(position, position), now)
		for _, e := range sendAll2(l, now) {
			l.settle(e, []outcome{good, bad}[n%2], now.Add(time.Second), callbackRules)
		}
		g.Expect(l.life.Deactivation).To(BeNil())
	}
	g.Expect(len(l.raised)).To(BeNumerically("<=", 2000*7/60+1))
}

func TestSoonerRetriesUseUpNone(t *testing.T) {
	g := NewWithT(t)
	l := perContact()
	l.take(event(1, 1), start)
	soon := bad
	soon.retryAfter = 20 * time.Second
	fail(t, l, start, soon)
	g.Expect(l.nextDue(callbackRules)).To(Equal(start.Add(20 * time.Second)))
	fail(t, l, start.Add(20*time.Second), soon)
	fail(t, l, start.Add(40*time.Second), soon)
	g.Expect(l.nextDue(callbackRules)).To(Equal(minute(1)), "not later than the interval")
	far := bad
	far.retryAfter = 24 * time.Hour
	fail(t, l, minute(1), far)
	g.Expect(l.nextDue(callbackRules)).To(Equal(minute(3)))
	g.Expect(l.life.Deactivation).To(BeNil(), "calls that the callback asked for use up no retry")
	fail(t, l, minute(3), soon)
	g.Expect(l.life.Deactivation.At).To(Equal(minute(3)), "nor do they put off the deactivation")
}

func TestBufferEndsWithItsWindow(t *testing.T) {
	g := NewWithT(t)
	l := perContact()
	l.take(event(1, 1), start)
	fail(t, l, start, outcome{verdict: gone, status: 410})
	for _, e := range []*contact.Event{
		eventAt(3, 1, minute(1)), eventAt(4, 2, minute(60)), // until the end, that included
		eventAt(5, 3, minute(61)), eventAt(7, 4, minute(99)),
		eventAt(8, 5, minute(59)), // of a clock that was behind
	} {
		l.take(e, e.Time)
	}
	g.Expect(l.cursor).To(Equal(int64(8)))
	g.Expect(l.room()).To(Equal(maxOpen), "the log is looked at on and on")
	g.Expect(l.life.Owed).To(Equal(store.Owed{Spans: []store.Span{{After: 1, UpTo: 4}}, Events: 2}))
	g.Expect(l.buffered()).To(Equal(int64(3)))
	d := l.life.Deactivation
	g.Expect(*d).To(Equal(store.Deactivation{
		At: start, Until: minute(60), Ended: true, Lost: 3, LostFrom: minute(59), LostTo: minute(99),
	}))
}

func TestReactivationWithoutReplayDropsTheBuffer(t *testing.T) {
	g := NewWithT(t)
	l := perContact()
	l.take(event(1, 1), start)
	l.take(event(2, 2), start)
	l.take(event(3, 3), start)
	sent := sendAll2(l, start)
	l.settle(sent[0], outcome{verdict: gone, status: 410}, start, callbackRules)
	l.take(eventAt(4, 1, minute(1)), minute(1))
	l.answerReactivation(store.Request{Type: v1alpha1.RequestReactivate, Value: "now"}, minute(2))
	g.Expect(l.life.Answers[v1alpha1.RequestReactivate]).To(Equal(store.Answer{
		Value: "now", Result: v1alpha1.RequestDone, Message: "Reactivated, 4 buffered events are dropped.", Time: minute(2),
	}))
	g.Expect(l.life.Owed).To(BeZero())
	g.Expect(l.life.Replay).To(BeNil())
	l.settle(sent[1], bad, minute(2), callbackRules)
	l.settle(sent[2], good, minute(2), callbackRules)
	g.Expect(l.open).To(BeEmpty(), "what was in flight is dropped too")
	g.Expect(l.aside).To(BeEmpty())
	g.Expect(l.life.Deactivation).To(BeNil())
	l.take(eventAt(5, 1, minute(3)), minute(3))
	g.Expect(positions(sendAll2(l, minute(3)))).To(Equal([]int64{5}))
	g.Expect(kinds(l)).To(Equal([]v1alpha1.EventType{contact.EventDeactivated, contact.EventReactivated}))
}

func TestReactivationsThatCannotBe(t *testing.T) {
	for name, row := range map[string]struct {
		deactivated bool
		request     store.Request
		message     string
	}{
		"an active subscription": {
			request: store.Request{Type: v1alpha1.RequestReactivate, Value: "a", Replay: true},
			message: "The subscription is not deactivated: there is nothing to reactivate.",
		},
		"a link of another deactivation": {
			deactivated: true,
			request:     store.Request{Type: store.RequestReactivateByLink, Value: "a", DeactivatedAt: minute(5)},
			message:     "The link was of an earlier deactivation.",
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			l := perContact()
			l.take(event(1, 1), start)
			if row.deactivated {
				fail(t, l, start, outcome{verdict: gone, status: 410})
			}
			l.answerReactivation(row.request, minute(9))
			g.Expect(l.life.Answers[row.request.Type]).To(Equal(store.Answer{
				Value: "a", Result: v1alpha1.RequestRefused, Message: row.message, Time: minute(9),
			}))
			g.Expect(l.answered(row.request)).To(BeTrue())
			g.Expect(l.life.Deactivation != nil).To(Equal(row.deactivated))
			g.Expect(l.open).To(HaveLen(1))
		})
	}
}
