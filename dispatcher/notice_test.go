package dispatcher

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/link"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/testkit"
)

// newNoticeRig returns a rig whose subscription crm answers 500, and tells these
// addresses when it is deactivated, in a moment by the clock.
func newNoticeRig(t *testing.T, server *testkit.MailServer, emails ...string) (*rig, *v1alpha1.WebhookSubscription) {
	t.Helper()
	r := newRig(t)
	r.options.Mail = mailOptions(t, server, MailPlain)
	r.receiver.Answer(http.StatusInternalServerError)
	return r, r.subscribe("crm", func(s *v1alpha1.WebhookSubscription) {
		failsSoon(s)
		s.Spec.Notify.Emails = emails
	})
}

// notices returns what the store has of the notices.
func (r *rig) notices() store.Delivery {
	row, err := r.store.LoadDelivery(r.t.Context(), store.NoticeKey(r.namespace))
	NewWithT(r.t).Expect(err).NotTo(HaveOccurred())
	return row
}

func TestNoticeArrives(t *testing.T) {
	g := NewWithT(t)
	server := testkit.NewMailServer(t, testkit.MailServerOptions{})
	r, crm := newNoticeRig(t, server, "ops@example.com", "dev@bücher.example")
	r.receiver.AnswerWith(func(w http.ResponseWriter, request *http.Request) {
		if strings.HasPrefix(request.URL.Path, "/crm") {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	r.subscribe("alarm", alarm)
	stop := r.run()
	r.post("ada@example.com")
	g.Eventually(server.Count, patience).Should(Equal(2))
	g.Expect(recipients(server)).To(ConsistOf("ops@example.com", "dev@xn--bcher-kva.example"), "each has a mail of its own")
	deactivation := r.delivery(crm)().Life.Deactivation
	header, parts := readMail(t, server.Mails()[0].Content)
	g.Expect(header.Get("Subject")).To(Equal("Deactivated: the callback of crm in " + r.namespace))
	g.Expect(header.Get("Auto-Submitted")).To(Equal("auto-generated"))
	g.Expect(header.Get("Message-ID")).To(MatchRegexp(`^<evt_[A-Z0-9_]+@example\.com>$`))
	text := strings.ReplaceAll(parts["text/plain"], "\r\n", "\n")
	g.Expect(text).To(And(
		ContainSubstring(`The callback of the WebhookSubscription "crm" in the namespace "`+r.namespace+`" was deactivated on `+mailTime(deactivation.At)),
		ContainSubstring("HTTPStatus 500\n"), ContainSubstring("1 wait."), ContainSubstring("until "+mailTime(deactivation.Until)),
		ContainSubstring("kubectl annotate --overwrite -n "+r.namespace+` webhooksubscription crm postbus.dev/reactivate="$(date -Is)" postbus.dev/replay-events=true`),
		Not(ContainSubstring(r.receiver.URL())), Not(ContainSubstring("<no value>"))))

	const base = "https://lists.example.com/mail/reactivate/"
	g.Expect(text).To(ContainSubstring("\n" + base))
	token, _, _ := strings.Cut(text[strings.Index(text, base)+len(base):], "\n")
	g.Expect(testkit.LinkKeys(r.t, r.store).OpenReactivation(token, time.Now())).To(And(
		HaveField("Namespace", r.namespace), HaveField("Name", "crm"), HaveField("DeactivatedAt", BeTemporally("==", deactivation.At))))
	g.Eventually(func() []string { return r.told("/alarm") }, patience).Should(ContainElement("subscription.deactivated crm"))
	calls := r.receiver.Calls()
	told := slices.IndexFunc(calls, func(c testkit.Call) bool { return strings.Contains(string(c.Body), "subscription.deactivated") })
	g.Expect(string(calls[told].Body)).To(ContainSubstring(`"reactivateURL":"`+base+token+`"`), "both carry the same link")

	g.Eventually(r.notices, patience).Should(HaveField("Open", BeEmpty()))
	stop()
	r.run()
	crm.Spec.App = "crm" // something that happens after the start
	g.Expect(plane.Client.Update(t.Context(), crm)).To(Succeed())
	r.accept(crm)
	r.post("grace@example.com")
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Life.Owed.Events", int64(1)))
	g.Expect(server.Count()).To(Equal(2), "a restart sends none twice")
	g.Expect(r.log.String()).NotTo(Or(ContainSubstring("ops@"), ContainSubstring("dev@"), ContainSubstring("reactivate/")))
}

// A notice that could not be sent is sent by the next process, unless nobody is to
// be told of it any more.
func TestNoticesThatWait(t *testing.T) {
	for name, row := range map[string]struct {
		meanwhile func(r *rig, crm *v1alpha1.WebhookSubscription, fake *clocktesting.FakeClock)
		outcome   string
	}{
		"nothing happens": {func(*rig, *v1alpha1.WebhookSubscription, *clocktesting.FakeClock) {}, outcomeDelivered},
		"it is reactivated": {func(r *rig, crm *v1alpha1.WebhookSubscription, fake *clocktesting.FakeClock) {
			r.receiver.Answer(http.StatusOK)
			r.request(crm, store.Request{Type: v1alpha1.RequestReactivate, Value: "now"})
			NewWithT(r.t).Eventually(func() store.Delivery { fake.Step(time.Second); return r.delivery(crm)() }, patience).
				Should(HaveField("Life.Deactivation", BeNil()))
		}, string(mailObsolete)},
		"the subscription is deleted": {func(r *rig, crm *v1alpha1.WebhookSubscription, _ *clocktesting.FakeClock) {
			NewWithT(r.t).Expect(plane.Client.Delete(r.t.Context(), crm)).To(Succeed())
			NewWithT(r.t).Expect(r.store.DropDelivery(r.t.Context(), keyOf(crm))).To(Succeed())
		}, string(mailObsolete)},
		"the address is taken out": {func(r *rig, crm *v1alpha1.WebhookSubscription, _ *clocktesting.FakeClock) {
			patch := client.MergeFrom(crm.DeepCopy())
			crm.Spec.Notify.Emails = []string{"dev@example.com"}
			NewWithT(r.t).Expect(plane.Client.Patch(r.t.Context(), crm, patch)).To(Succeed())
		}, string(mailObsolete)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := NewWithT(t)
			server := testkit.NewMailServer(t, testkit.MailServerOptions{})
			server.Stop()
			r, crm := newNoticeRig(t, server, "ops@example.com")
			r.subscribe("other", nil)
			fake := clocktesting.NewFakeClock(time.Now())
			r.options.Clock = fake
			stop := r.run()
			r.post("ada@example.com")
			attempts := r.mailsBy("ConnectionRefused")
			g.Eventually(func() int { fake.Step(time.Second); return attempts() }, patience).Should(BeNumerically(">", 0))
			row.meanwhile(r, crm, fake)
			g.Eventually(func() store.Delivery { fake.Step(time.Second); return r.notices() }, patience).
				Should(HaveField("Open", ConsistOf(HaveField("Attempts", BeNumerically(">", 0)))))
			stop()
			server.Start()
			r.run()
			g.Eventually(func() int { fake.Step(time.Minute); return r.mailsBy(row.outcome)() }, patience).Should(Equal(1))
			g.Eventually(func() store.Delivery { fake.Step(time.Second); return r.notices() }, patience).Should(HaveField("Open", BeEmpty()))
			want := 0
			if row.outcome == outcomeDelivered {
				want = 1
			}
			g.Expect(server.Count()).To(Equal(want))
		})
	}
}

func TestNoticesAreGivenUp(t *testing.T) {
	g := NewWithT(t)
	server := testkit.NewMailServer(t, testkit.MailServerOptions{})
	server.Stop()
	r, _ := newNoticeRig(t, server, "ops@example.com")
	fake := clocktesting.NewFakeClock(time.Now())
	r.options.Clock = fake
	r.run()
	r.post("ada@example.com")
	g.Eventually(func() int { fake.Step(time.Second); return r.mailsBy("ConnectionRefused")() }, patience).Should(BeNumerically(">", 0))
	fake.Step(giveUpAfter)
	g.Eventually(r.mailsBy(string(mailExpired)), patience).Should(Equal(1))
	g.Expect(r.log.String()).To(And(ContainSubstring("event is given up"), Not(ContainSubstring("ops@"))))
}

// Without addresses there is nothing to mail, and nothing that waits for it.
func TestNobodyIsToBeTold(t *testing.T) {
	g := NewWithT(t)
	server := testkit.NewMailServer(t, testkit.MailServerOptions{})
	r, crm := newNoticeRig(t, server)
	r.run()
	r.post("ada@example.com")
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Life.Deactivation", Not(BeNil())))
	_, err := r.store.LoadDelivery(t.Context(), store.NoticeKey(r.namespace))
	g.Expect(err).To(MatchError(store.ErrNotFound))
	g.Expect(contact.LogTypes).To(ContainElement(contact.EventNotice), "else the tail would wait behind one for ever")
	g.Expect(link.ReactivationTTL).To(BeNumerically(">", giveUpAfter), "a late notice has a link that works")
}
