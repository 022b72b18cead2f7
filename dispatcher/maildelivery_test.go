package dispatcher

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	. "github.com/onsi/gomega"
	clocktesting "k8s.io/utils/clock/testing"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/link"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/testkit"
)

// secretFolder writes credentials as Kubernetes mounts them.
func secretFolder(t *testing.T, username, password string) string {
	t.Helper()
	folder := t.TempDir()
	writeSecret(t, folder, username, password)
	return folder
}

func writeSecret(t *testing.T, folder, username, password string) {
	t.Helper()
	g := NewWithT(t)
	g.Expect(os.WriteFile(filepath.Join(folder, "username"), []byte(username), 0o600)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(folder, "password"), []byte(password+"\n"), 0o600)).To(Succeed())
}

func TestMailSecurity(t *testing.T) {
	certificate, authorities := testkit.Certificate(t)
	withLogin := func(options testkit.MailServerOptions, mechanisms ...string) testkit.MailServerOptions {
		options.Mechanisms, options.Username, options.Password = mechanisms, "postbus", "hunter2"
		return options
	}
	startTLS := testkit.MailServerOptions{Certificate: certificate}
	implicit := testkit.MailServerOptions{Certificate: certificate, Implicit: true}
	for name, row := range map[string]struct {
		server   testkit.MailServerOptions
		security MailSecurity
		login    bool
		stranger bool // nobody vouches for the certificate
		outcome  string
		usesTLS  bool
		uses     string // mechanism
	}{
		"STARTTLS":                              {server: startTLS, security: MailStartTLS, outcome: "Delivered", usesTLS: true},
		"TLS from the first byte":               {server: implicit, security: MailTLS, outcome: "Delivered", usesTLS: true},
		"no TLS where none is asked for":        {server: startTLS, security: MailPlain, outcome: "Delivered"},
		"STARTTLS that is not offered":          {security: MailStartTLS, outcome: "TLSError"},
		"TLS at a server without":               {security: MailTLS, outcome: "TLSError"},
		"STARTTLS with a strange certificate":   {server: startTLS, security: MailStartTLS, stranger: true, outcome: "TLSError"},
		"TLS with a strange certificate":        {server: implicit, security: MailTLS, stranger: true, outcome: "TLSError"},
		"a login by PLAIN":                      {server: withLogin(startTLS, "LOGIN", "PLAIN"), security: MailStartTLS, login: true, outcome: "Delivered", usesTLS: true, uses: "PLAIN"},
		"a login by SCRAM":                      {server: withLogin(testkit.MailServerOptions{}, "PLAIN", "SCRAM-SHA-256"), security: MailPlain, login: true, outcome: "Delivered", uses: "SCRAM-SHA-256"},
		"a login by LOGIN":                      {server: withLogin(implicit, "LOGIN"), security: MailTLS, login: true, outcome: "Delivered", usesTLS: true, uses: "LOGIN"},
		"no login over plain text":              {server: withLogin(testkit.MailServerOptions{}, "LOGIN", "PLAIN"), security: MailPlain, login: true, outcome: "AuthError"},
		"a login that the server does not know": {server: withLogin(startTLS, "CRAM-MD5"), security: MailStartTLS, login: true, outcome: "AuthError"},
		"a login where none is offered":         {server: startTLS, security: MailStartTLS, login: true, outcome: "AuthError"},
		"no login where one is wanted":          {server: withLogin(startTLS, "PLAIN"), security: MailStartTLS, outcome: "ServerStatus"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := NewWithT(t)
			server := testkit.NewMailServer(t, row.server)
			r := newMailRig(t, server, nil)
			r.options.Mail = mailOptions(t, server, row.security)
			if !row.stranger {
				r.options.RootCAs = authorities
			}
			if row.login {
				r.options.Mail.Credentials = secretFolder(t, "postbus", "hunter2")
			}
			stop := r.run()
			r.optIn("ada@example.com", nil)
			g.Eventually(r.mailsBy(row.outcome), patience).Should(Equal(1))
			stop()
			if row.outcome != outcomeDelivered {
				g.Expect(server.Mails()).To(BeEmpty())
				g.Expect(server.Logins()).To(BeEmpty())
				g.Expect(r.mailRow().Open).To(HaveLen(1), "it is tried again")
				return
			}
			g.Expect(server.Mails()).To(ConsistOf(And(HaveField("TLS", row.usesTLS), HaveField("Login", row.uses))))
		})
	}
}

// The Secret is read for each mail, and the password is nowhere to be seen.
func TestMailCredentialsChange(t *testing.T) {
	g := NewWithT(t)
	certificate, authorities := testkit.Certificate(t)
	server := testkit.NewMailServer(t, testkit.MailServerOptions{
		Certificate: certificate, Mechanisms: []string{"PLAIN"}, Username: "postbus", Password: "hunter2",
	})
	r := newMailRig(t, server, nil)
	r.options.Mail = mailOptions(t, server, MailStartTLS)
	folder := secretFolder(t, "postbus", "hunter2")
	r.options.Mail.Credentials, r.options.RootCAs = folder, authorities
	fake := clocktesting.NewFakeClock(time.Now())
	r.options.Clock = fake
	stop := r.run()
	r.optIn("ada@example.com", nil)
	g.Eventually(server.Count, patience).Should(Equal(1))
	g.Eventually(r.mailRow, patience).Should(And(HaveField("Health.LastSuccess", Not(BeZero())), HaveField("Open", BeEmpty())),
		"it is noted at once: by this clock no time has passed")

	server.SetPassword("correct horse")
	r.optIn("grace@example.com", nil)
	g.Eventually(r.mailsBy("AuthError"), patience).Should(Equal(1))
	g.Expect(os.Remove(filepath.Join(folder, "password"))).To(Succeed())
	g.Eventually(func() int { fake.Step(time.Minute); return r.mailsBy("AuthError")() }, patience).Should(BeNumerically(">=", 2), "no file")
	writeSecret(t, folder, "postbus", "correct horse")
	g.Eventually(func() int { fake.Step(time.Minute); return server.Count() }, patience).Should(Equal(2))
	stop()
	g.Expect(r.log.String()).To(ContainSubstring("535 5.7.8"))
	g.Expect(r.log.String()).NotTo(Or(ContainSubstring("hunter2"), ContainSubstring("correct horse")))
	g.Expect(fmt.Sprint(r.mailRow())).NotTo(ContainSubstring("hunter2"))
}

func TestMailAnswers(t *testing.T) {
	answer := func(code int) func(testkit.Mail) error {
		return func(testkit.Mail) error { return testkit.MailStatus(code) }
	}
	for name, row := range map[string]struct {
		answers testkit.MailAnswers
		outcome string
		final   bool
	}{
		"451 to the sender":    {answers: testkit.MailAnswers{Mail: answer(451)}, outcome: "ServerStatus"},
		"550 to the sender":    {answers: testkit.MailAnswers{Mail: answer(550)}, outcome: "ServerStatus"},
		"450 to the recipient": {answers: testkit.MailAnswers{Recipient: answer(450)}, outcome: "ServerStatus"},
		"530 to the recipient": {answers: testkit.MailAnswers{Recipient: answer(530)}, outcome: "ServerStatus"},
		"550 5.7.1 to the recipient": {
			answers: testkit.MailAnswers{Recipient: func(testkit.Mail) error {
				return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "relay access denied"}
			}}, outcome: "ServerStatus",
		},
		"550 to the recipient":       {answers: testkit.MailAnswers{Recipient: answer(550)}, outcome: "Rejected", final: true},
		"452 to the mail":            {answers: testkit.MailAnswers{Message: answer(452)}, outcome: "ServerStatus"},
		"554 to the mail":            {answers: testkit.MailAnswers{Message: answer(554)}, outcome: "Rejected", final: true},
		"250, and the line is dead":  {answers: testkit.MailAnswers{Break: true}, outcome: "Delivered", final: true},
		"250, and all is as it must": {outcome: "Delivered", final: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := NewWithT(t)
			server := testkit.NewMailServer(t, testkit.MailServerOptions{})
			server.Answer(row.answers)
			r := newMailRig(t, server, nil)
			fake := clocktesting.NewFakeClock(time.Now())
			r.options.Clock = fake
			stop := r.run()
			r.optIn("ada@example.com", nil)
			g.Eventually(r.mailsBy(row.outcome), patience).Should(Equal(1))
			stop()
			g.Expect(r.mailRow().Open).To(HaveLen(map[bool]int{true: 0, false: 1}[row.final]))

			// With everything well again, over a restart.
			server.Answer(testkit.MailAnswers{})
			fake.Step(time.Minute)
			r.run()
			last := r.optIn("last@example.com", nil)
			wanted := []string{last.Email}
			if row.outcome != "Rejected" {
				wanted = append(wanted, "ada@example.com")
			}
			g.Eventually(func() []string { return recipients(server) }, patience).Should(ConsistOf(wanted))
			g.Eventually(r.mailRow, patience).Should(HaveField("Open", BeEmpty()))
			g.Expect(recipients(server)).To(ConsistOf(wanted))
			if row.outcome == "Rejected" {
				g.Expect(r.log.String()).To(ContainSubstring("event is given up"))
			}
			g.Expect(r.log.String()).NotTo(ContainSubstring("ada@"))
		})
	}
}

func recipients(server *testkit.MailServer) (all []string) {
	for _, got := range server.Mails() {
		all = append(all, got.To)
	}
	return all
}

func TestMailIsGivenUpAfterFiveDays(t *testing.T) {
	g := NewWithT(t)
	server := testkit.NewMailServer(t, testkit.MailServerOptions{})
	server.Stop()
	r := newMailRig(t, server, nil)
	fake := clocktesting.NewFakeClock(time.Now())
	r.options.Clock = fake
	stop := r.run()
	r.optIn("ada@example.com", nil)
	g.Eventually(r.mailsBy("ConnectionRefused"), patience).Should(Equal(1))
	fake.Step(giveUpAfter - time.Hour)
	g.Eventually(r.mailsBy("ConnectionRefused"), patience).Should(Equal(2))
	fake.Step(time.Hour)
	g.Eventually(r.mailsBy("Expired"), patience).Should(Equal(1))
	g.Eventually(func() store.Delivery { fake.Step(time.Second); return r.mailRow() }, patience).Should(HaveField("Open", BeEmpty()))
	stop()

	// One that nobody has tried to send is tried, however old it is.
	r.optIn("grace@example.com", nil)
	fake.Step(2 * giveUpAfter)
	server.Start()
	r.run()
	g.Eventually(server.Count, patience).Should(Equal(1))
}

// Mails that nobody needs any more are not sent.
func TestMailObsolete(t *testing.T) {
	g := NewWithT(t)
	server := testkit.NewMailServer(t, testkit.MailServerOptions{})
	server.Stop()
	r := newMailRig(t, server, nil)
	fake := clocktesting.NewFakeClock(time.Now())
	r.options.Clock = fake
	r.run()
	confirmed := r.optIn("confirmed@example.com", nil)
	r.optIn("forgotten@example.com", nil)
	r.optIn("deleted@example.com", nil)
	r.optIn("stays@example.com", nil)
	g.Eventually(r.mailsBy("ConnectionRefused"), patience).Should(Equal(4))

	confirmation := contact.Confirmation{RequestedAt: confirmed.OptIn.RequestedAt, Time: fake.Now()}
	for address, apply := range map[string]func(*contact.Contact) contact.Decision{
		"confirmed@example.com": confirmation.Decide,
		"forgotten@example.com": contact.Removal{Event: contact.EventDelete, EventSource: contact.SourceAPI, Time: fake.Now(), Forget: true}.Decide,
		"deleted@example.com":   contact.Removal{Event: contact.EventDelete, EventSource: contact.SourceAPI, Time: fake.Now()}.Decide,
	} {
		_, err := r.store.Change(t.Context(), store.Change{List: r.list(), Address: address, Apply: apply})
		g.Expect(err).NotTo(HaveOccurred())
	}
	g.Eventually(func() store.Delivery { fake.Step(300 * time.Millisecond); return r.mailRow() }, patience).
		Should(HaveField("Open", HaveLen(3)), "the forgotten one's is dropped at once")
	server.Start()
	fake.Step(time.Minute)
	g.Eventually(func() store.Delivery { fake.Step(300 * time.Millisecond); return r.mailRow() }, patience).Should(HaveField("Open", BeEmpty()))
	g.Expect(recipients(server)).To(ConsistOf("stays@example.com"))
	g.Expect(r.mailsBy("Obsolete")()).To(Equal(2))
	g.Expect(r.log.String()).NotTo(ContainSubstring("event is given up"))
}

// The mails of a list that is gone wait until it comes back.
func TestMailOfAListThatIsGone(t *testing.T) {
	g := NewWithT(t)
	server := testkit.NewMailServer(t, testkit.MailServerOptions{})
	r := newMailRig(t, server, nil)
	r.optIn("ada@example.com", nil)
	g.Expect(plane.Client.Delete(t.Context(), testkit.List(r.namespace, "newsletter"))).To(Succeed())
	r.declareList("other", nil)
	r.run()
	r.optInTo("other", "grace@example.com")
	g.Eventually(server.Count, patience).Should(Equal(1))
	g.Expect(recipients(server)).To(ConsistOf("grace@example.com"))
	r.declareList("newsletter", nil)
	g.Eventually(func() []string { return recipients(server) }, patience).Should(ConsistOf("grace@example.com", "ada@example.com"))
}

// More mails than a ledger holds that wait for a list's template are in nobody
// else's way.
func TestMailsOfAnotherListDoNotWait(t *testing.T) {
	g := NewWithT(t)
	server := testkit.NewMailServer(t, testkit.MailServerOptions{})
	r := newMailRig(t, server, func(list *v1alpha1.ContactList) {
		list.Spec.OptIn.Mailings = []v1alpha1.OptInMailing{{Key: "welcome", TemplateRef: v1alpha1.ConfigMapReference{Name: "missing"}}}
	})
	var changes []store.Change
	for n := range maxOpen + 1 {
		changes = append(changes, r.optInChange(fmt.Sprintf("ada.%d@example.com", n), nil))
	}
	_, err := r.store.ChangeAll(t.Context(), changes)
	g.Expect(err).NotTo(HaveOccurred())
	r.run()
	g.Eventually(r.mailsBy("TemplateMissing"), patience).Should(BeNumerically(">", maxOpen-catchUpRoom))
	r.declareList("other", nil)
	r.optInTo("other", "grace@example.com")
	g.Eventually(server.Count, patience).Should(Equal(1))
	g.Expect(recipients(server)).To(ConsistOf("grace@example.com"))
}

// Of several mails that waited for one contact the last is sent.
func TestLaterRequestReplacesMails(t *testing.T) {
	g := NewWithT(t)
	server := testkit.NewMailServer(t, testkit.MailServerOptions{})
	r := newMailRig(t, server, nil)
	r.optIn("ada@example.com", nil)
	r.optIn("ada@example.com", nil)
	last := r.optIn("ada@example.com", nil)
	r.run()
	g.Eventually(r.mailsBy("Obsolete"), patience).Should(Equal(2))
	g.Eventually(server.Count, patience).Should(Equal(1))
	_, parts := readMail(t, server.Mails()[0].Content)
	token := confirmURL.FindStringSubmatch(parts["text/plain"])[1]
	opened, err := testkit.LinkKeys(r.t, r.store).Open(token, link.Confirm, time.Now())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(opened.RequestedAt).To(Equal(last.OptIn.RequestedAt))
}

// Without a mail server mails wait, and are sent once there is one.
func TestMailsWaitForAServer(t *testing.T) {
	g := NewWithT(t)
	server := testkit.NewMailServer(t, testkit.MailServerOptions{})
	r := newMailRig(t, server, nil)
	options := r.options.Mail
	r.options.Mail = MailOptions{}
	crm := r.subscribe("crm", nil)
	stop := r.run()
	r.optIn("ada@example.com", nil)
	g.Eventually(r.delivery(crm), patience).Should(HaveField("Health.LastSuccess", Not(BeZero())))
	stop()
	g.Expect(strings.Count(r.log.String(), "opt-in mails and notices wait")).To(Equal(1))
	g.Expect(r.receiver.Count()).To(Equal(1), "no callback gets the mail's event")
	r.options.Mail = options
	r.run()
	g.Eventually(server.Count, patience).Should(Equal(1))
}

// A mail's event is one that the tail passes, though no subscription wants it.
func TestTailPassesMails(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	follower, err := newTail(t.Context(), r.store, clocktesting.NewFakeClock(time.Now()))
	g.Expect(err).NotTo(HaveOccurred())
	var asked []contact.ListKey
	follower.askForMail = func(list contact.ListKey) { asked = append(asked, list) }
	r.optIn("ada@example.com", nil)
	g.Expect(follower.readPage(t.Context())).To(Succeed())
	g.Expect(asked).To(Equal([]contact.ListKey{r.list()}))
	g.Expect(follower.at()).To(Equal(int64(2)), "else it would read the same page for ever")
}

// An hour without a mail server loses nothing and sends nothing twice, over a
// restart, with more mails than a ledger holds.
func TestMailServerIsDownForAnHour(t *testing.T) {
	g := NewWithT(t)
	const count = maxOpen + 500
	server := testkit.NewMailServer(t, testkit.MailServerOptions{})
	server.Stop()
	r := newMailRig(t, server, nil)
	fake := clocktesting.NewFakeClock(time.Now())
	r.options.Clock = fake
	stop := r.run()
	var changes []store.Change
	for n := range count {
		changes = append(changes, r.optInChange(fmt.Sprintf("ada.%d@example.com", n), nil))
	}
	_, err := r.store.ChangeAll(t.Context(), changes)
	g.Expect(err).NotTo(HaveOccurred())
	// As many as a ledger takes when it catches up.
	g.Eventually(r.mailsBy("ConnectionRefused"), patience).Should(BeNumerically(">", maxOpen-catchUpRoom))
	fake.Step(30 * time.Minute)
	stop()
	stop = r.run()
	fake.Step(30 * time.Minute)
	server.Start()
	g.Eventually(func() int { fake.Step(10 * time.Second); return server.Count() }, 2*patience).Should(BeNumerically(">", 300))
	stop()
	r.run()
	g.Eventually(func() int { fake.Step(10 * time.Second); return server.Count() }, 2*patience).Should(BeNumerically(">=", count))
	g.Eventually(func() store.Delivery { fake.Step(time.Second); return r.mailRow() }, patience).Should(HaveField("Open", BeEmpty()))
	times := map[string]int{}
	for _, to := range recipients(server) {
		times[to]++
	}
	g.Expect(times).To(HaveLen(count), "everybody's")
	g.Expect(server.Count()).To(Equal(count), "and each once")
}

func TestChooseMechanism(t *testing.T) {
	for name, row := range map[string]struct {
		offered   string
		encrypted bool
		want      string
	}{
		"the strongest over TLS":       {"LOGIN PLAIN SCRAM-SHA-1 SCRAM-SHA-256", true, "SCRAM-SHA-256"},
		"PLAIN before LOGIN":           {"LOGIN PLAIN", true, "PLAIN"},
		"LOGIN where it is all":        {"CRAM-MD5 login", true, "LOGIN"},
		"nothing that is known":        {"CRAM-MD5 XOAUTH2", true, ""},
		"nothing at all":               {"", true, ""},
		"SCRAM over plain text":        {"PLAIN SCRAM-SHA-256", false, "SCRAM-SHA-256"},
		"no password over plain text":  {"PLAIN LOGIN", false, ""},
		"no name that merely contains": {"PLAIN-CLIENTTOKEN", true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(chooseMechanism(row.offered, row.encrypted)).To(Equal(row.want))
		})
	}
}
