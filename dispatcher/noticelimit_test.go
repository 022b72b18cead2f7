package dispatcher

import (
	"fmt"
	"mime"
	"net/http"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	clocktesting "k8s.io/utils/clock/testing"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/recipient"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/testkit"
)

var noticeRules = &rules{intervals: mailIntervals, notices: defaultNoticeLimits}

// noticeEvent is the event of a notice about a subscription.
func noticeEvent(position int64, name, recipient string, at time.Time) *contact.Event {
	return &contact.Event{
		Position: position, Type: contact.EventNotice, Time: at, List: contact.ListKey{Namespace: "marketing"},
		Operation: &contact.Operation{Kind: kindSubscription, Name: name, Recipient: recipient},
	}
}

// mailDue mails all notices that are due, and returns their positions and how many
// deactivations each tells of.
func mailDue(l *ledger, now time.Time) (mailed [][2]int64) {
	for e := l.next(now, noticeRules); e != nil; e = l.next(now, noticeRules) {
		mailed = append(mailed, [2]int64{e.event.Position, int64(e.held)})
		l.settle(e, good, now, noticeRules)
	}
	return mailed
}

func newNoticeLedger() *ledger { return newLedger(store.Delivery{}, nil, v1alpha1.OrderingNone) }

// reopened returns the ledger that the next owner of the row has.
func reopened(l *ledger, events ...*contact.Event) *ledger {
	delivery := store.Delivery{Cursor: l.cursor, Open: l.openEvents(), Life: cloneLife(l.life)}
	var open []contact.Event
	for _, event := range events {
		if _, is := l.open[event.Position]; is {
			open = append(open, *event)
		}
	}
	return newLedger(delivery, open, v1alpha1.OrderingNone)
}

func TestNoticesOfAnHourAreSummedUp(t *testing.T) {
	g := NewWithT(t)
	l := newNoticeLedger()
	var events []*contact.Event
	take := func(minutes int, name, address string) {
		event := noticeEvent(int64(len(events)+1), name, address, minute(minutes))
		events = append(events, event)
		l.take(event, minute(minutes))
	}
	take(0, "crm", "victim@example.com")
	g.Expect(mailDue(l, minute(0))).To(Equal([][2]int64{{1, 0}}))
	for n := range 30 {
		take(n+1, "crm", "victim@example.com")
		g.Expect(mailDue(l, minute(n+1))).To(BeEmpty())
		l = reopened(l, events...) // each by another owner
	}
	take(40, "shop", "victim@example.com")
	take(40, "crm", "ops@example.com")
	g.Expect(mailDue(l, minute(40))).To(Equal([][2]int64{{32, 0}, {33, 0}}), "others do not wait")
	g.Expect(l.open).To(HaveLen(1))
	g.Expect(mailDue(l, minute(60).Add(-time.Second))).To(BeEmpty())
	g.Expect(mailDue(l, minute(60))).To(Equal([][2]int64{{2, 30}}))
	g.Expect(l.open).To(BeEmpty())
	take(61, "crm", "VICTIM@example.com")
	g.Expect(mailDue(l, minute(61))).To(BeEmpty(), "an address in other letters is the same")
}

func TestNoticesWhileOneIsInFlight(t *testing.T) {
	g := NewWithT(t)
	l := newNoticeLedger()
	l.take(noticeEvent(1, "crm", "victim@example.com", minute(0)), minute(0))
	e := l.next(minute(0), noticeRules)
	g.Expect(e).NotTo(BeNil())
	l.take(noticeEvent(2, "crm", "victim@example.com", minute(0)), minute(0))
	g.Expect(l.next(minute(0), noticeRules)).To(BeNil())
	l.settle(e, outcome{verdict: failed, reason: mailServerStatus}, minute(0), noticeRules)
	g.Expect(mailDue(l, minute(2))).To(Equal([][2]int64{{1, 2}}), "one that failed tells of those that came meanwhile")
	g.Expect(l.open).To(BeEmpty())
	g.Expect(mailDue(l, minute(90))).To(BeEmpty())
}

// A tenant who makes many subscriptions, or names many addresses, is bounded as well.
func TestNoticesOfManySubscriptions(t *testing.T) {
	for name, row := range map[string]struct {
		address func(n int) string
		most    int
	}{
		"to one address":                {func(int) string { return "victim@example.com" }, 10},
		"to one mailbox by other names": {func(n int) string { return fmt.Sprintf("Victim+%d@Example.com", n) }, 10},
		"to many addresses":             {func(n int) string { return fmt.Sprintf("victim-%d@example.com", n) }, 100},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			l := newNoticeLedger()
			var position int64
			for hour := range 3 {
				mailed := 0
				for half := range 2 {
					now := minute(hour*60 + half*30)
					for n := range 150 {
						position++
						l.take(noticeEvent(position, fmt.Sprintf("crm-%d", n), row.address(n), now), now)
					}
					mailed += len(mailDue(l, now))
				}
				g.Expect(mailed).To(Equal(row.most), "in hour %d", hour)
				g.Expect(len(l.life.Notices)).To(BeNumerically("<=", 100), "what the row holds is bounded")
				g.Expect(len(l.open)).To(BeNumerically("<=", 150), "each subscription waits with one notice")
			}
		})
	}
	g := NewWithT(t)
	l := newNoticeLedger()
	for n := range int64(20) {
		l.take(noticeEvent(n+1, fmt.Sprintf("crm-%d", n), "victim@example.com", minute(0)), minute(0))
	}
	inFlight := 0
	for l.next(minute(0), noticeRules) != nil {
		inFlight++
	}
	g.Expect(inFlight).To(Equal(10), "those in flight count")
	g.Expect(l.nextDue(noticeRules)).To(Equal(minute(1)))
}

// The finding as it was: a callback that answers 410 is reactivated again and again, also by
// deleting the subscription and making it anew.
func TestNoticesCannotFlood(t *testing.T) {
	g := NewWithT(t)
	server := testkit.NewMailServer(t, testkit.MailServerOptions{})
	r := newRig(t)
	r.options.Mail = mailOptions(t, server, MailPlain)
	r.receiver.Answer(http.StatusGone)
	fake := clocktesting.NewFakeClock(time.Now())
	r.options.Clock = fake
	const name = "you-won-a-prize.claim-it-at.evil.example"
	notify := func(s *v1alpha1.WebhookSubscription) { s.Spec.Notify.Emails = []string{"victim@example.com"} }
	subscription := r.subscribe(name, notify)
	stop := r.run()
	row := func() store.Delivery { fake.Step(300 * time.Millisecond); return r.delivery(subscription)() }
	rounds := 0
	round := func() {
		rounds++
		r.postAt(fmt.Sprintf("ada.%d@example.com", rounds), fake.Now())
		g.Eventually(row, patience).Should(HaveField("Life.Deactivation", Not(BeNil())))
	}
	reactivate := func() {
		r.request(subscription, store.Request{Type: v1alpha1.RequestReactivate, Value: fmt.Sprint(rounds)})
		g.Eventually(row, patience).Should(HaveField("Life.Deactivation", BeNil()))
	}
	taken := func(count int) {
		g.Eventually(func() int64 { fake.Step(300 * time.Millisecond); return held(r.notices()) }, patience).Should(Equal(int64(count)))
	}
	began := fake.Now()
	round()
	g.Eventually(server.Count, patience).Should(Equal(1))
	g.Eventually(func() []store.SentNotice { fake.Step(300 * time.Millisecond); return r.notices().Life.Notices }, patience).Should(HaveLen(1))
	for n := range 3 {
		reactivate()
		round()
		taken(n + 1)
	}
	stop()
	stop = r.run() // a restart
	reactivate()
	round()
	taken(4)

	g.Expect(plane.Client.Delete(t.Context(), subscription)).To(Succeed())
	g.Expect(r.store.DropDelivery(t.Context(), keyOf(subscription))).To(Succeed())
	subscription = r.subscribe(name, notify)
	round()
	taken(5)
	g.Expect(fake.Since(began)).To(BeNumerically("<", time.Hour), "the test is about one hour")
	g.Expect(server.Count()).To(Equal(1))

	fake.SetTime(began.Add(time.Hour + time.Minute))
	g.Eventually(func() int { fake.Step(300 * time.Millisecond); return server.Count() }, patience).Should(Equal(2))
	header, parts := readMail(t, server.Mails()[1].Content)
	text := parts["text/plain"]
	g.Expect(text).To(And(ContainSubstring("It was deactivated 5 times since "), ContainSubstring("https://lists.example.com/mail/reactivate/"),
		ContainSubstring("webhooksubscription NAME")))
	subject, err := new(mime.WordDecoder).DecodeHeader(header.Get("Subject"))
	g.Expect(err).NotTo(HaveOccurred())
	for _, part := range []string{subject, text} {
		g.Expect(part).To(And(ContainSubstring(recipient.Unlinked(name)), Not(ContainSubstring("claim-it-at.evil")), Not(ContainSubstring("evil.example"))))
	}
	g.Eventually(func() store.Delivery { fake.Step(300 * time.Millisecond); return r.notices() }, patience).Should(HaveField("Open", BeEmpty()))
	stop()
	g.Expect(server.Count()).To(Equal(2))
}

// held returns how many deactivations wait to be told.
func held(delivery store.Delivery) (sum int64) {
	for _, open := range delivery.Open {
		sum += int64(open.Held)
	}
	return sum
}

// Deactivations that have ended by the time they can be told are told all the same.
func TestNoticeOfDeactivationsThatEnded(t *testing.T) {
	g := NewWithT(t)
	event := noticeEvent(2, "crm", "ops@example.com", minute(5))
	server := testkit.NewMailServer(t, testkit.MailServerOptions{})
	r, crm := newNoticeRig(t, server, "ops@example.com")
	event.List.Namespace = r.namespace
	noticer := &noticer{
		clock: clocktesting.NewFakeClock(minute(90)), subscriptions: plane.Client, store: r.store, from: r.options.Mail.From,
		links:     reactivationLinks{keys: testkit.LinkKeys(r.t, r.store), base: r.options.Mail.PublicURL},
		transport: newTransport(&r.options, make(chan struct{}, 1)),
	}
	sub := newNoticeDelivery(store.NoticeKey(crm.Namespace))
	o, err := noticer.attempt(t.Context(), sub, call{event: event})
	g.Expect(o.label()).To(Equal("Obsolete"), "one that did not wait: %v", err)
	o, err = noticer.attempt(t.Context(), sub, call{event: event, held: 3})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(o.label()).To(Equal(outcomeDelivered))
	noticer.close()
	_, parts := readMail(t, server.Mails()[0].Content)
	g.Expect(parts["text/plain"]).To(And(ContainSubstring("was deactivated 3 times since "+mailTime(minute(5))+", and reactivated each time. It is called again."),
		Not(ContainSubstring("reactivate/")), Not(ContainSubstring("kubectl"))))
}

// The dispatcher looks at what the flags allow itself, whatever the controller accepted.
func TestMailsThatTheFlagsForbid(t *testing.T) {
	g := NewWithT(t)
	server := testkit.NewMailServer(t, testkit.MailServerOptions{})
	r := newMailRig(t, server, func(list *v1alpha1.ContactList) {
		list.Spec.OptIn.Mailings = []v1alpha1.OptInMailing{{Key: "m", From: "Your Bank <security@bank.example>"}}
	})
	r.options.Mail.Policy.From = r.options.Mail.From
	g.Expect(r.options.Mail.Policy.Senders.AddSenders("*@a.example")).To(Succeed())
	g.Expect(r.options.Mail.Policy.NoticeDomains.AddDomains("example.com")).To(Succeed())
	r.receiver.Answer(http.StatusGone)
	r.subscribe("crm", func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Notify.Emails = []string{"stranger@anywhere.example", "ops@example.com"}
	})
	stop := r.run()
	r.optIn("ada@example.com", nil)
	g.Eventually(r.mailsBy(string(mailSenderForbidden)), patience).Should(Equal(1))
	g.Eventually(r.mailsBy(string(mailRecipientForbidden)), patience).Should(Equal(1))
	g.Eventually(server.Count, patience).Should(Equal(1))
	g.Expect(recipients(server)).To(Equal([]string{"ops@example.com"}))
	stop()
	g.Expect(r.mailRow().Open).To(HaveLen(1), "the mail waits for the flag or for another sender")
	g.Expect(r.log.String()).To(And(ContainSubstring("--allowed-senders can allow it"), ContainSubstring("--notice-domains can allow it"),
		Not(ContainSubstring("stranger@")), Not(ContainSubstring("security@"))))
	g.Expect(strings.Count(r.log.String(), "event is given up")).To(Equal(1))
}
