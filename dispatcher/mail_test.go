package dispatcher

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/link"
	"postbus.dev/postbus/internal/recipient"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/testkit"
)

// newMailRig returns a rig with a list that sends opt-in mails to the server.
func newMailRig(t *testing.T, server *testkit.MailServer, edit func(*v1alpha1.ContactList)) *rig {
	t.Helper()
	r := newRig(t)
	r.declareList("newsletter", edit)
	r.options.Mail = mailOptions(t, server, MailPlain)
	return r
}

// declareList applies a list.
func (r *rig) declareList(name string, edit func(*v1alpha1.ContactList)) {
	r.t.Helper()
	list := testkit.List(r.namespace, name)
	list.Spec.DisplayName = "Example News"
	if edit != nil {
		edit(list)
	}
	testkit.CreateBound(r.t, plane.Client, r.store, list)
	r.checkList(list)
}

// checkList notes that the controller has checked a list's spec.
func (r *rig) checkList(list *v1alpha1.ContactList) {
	r.t.Helper()
	list.Status.ObservedGeneration = list.Generation
	NewWithT(r.t).Expect(plane.Client.Status().Update(r.t.Context(), list)).To(Succeed())
}

// optInTo stores an opt-in request to another list.
func (r *rig) optInTo(list, address string) {
	r.t.Helper()
	change := r.optInChange(address, nil)
	change.List.Name = list
	_, err := r.store.Change(r.t.Context(), change)
	NewWithT(r.t).Expect(err).NotTo(HaveOccurred())
}

func mailOptions(t *testing.T, server *testkit.MailServer, security MailSecurity) MailOptions {
	t.Helper()
	g := NewWithT(t)
	host, port, err := net.SplitHostPort(server.Address())
	g.Expect(err).NotTo(HaveOccurred())
	public, err := url.Parse("https://lists.example.com/mail")
	g.Expect(err).NotTo(HaveOccurred())
	return MailOptions{
		Server: MailServer{Security: security, Host: host, Port: port},
		From:   &mail.Address{Name: "Büro", Address: "news@example.com"}, PublicURL: public,
	}
}

// optIn stores an opt-in request, as ingress does.
func (r *rig) optIn(address string, edit func(*contact.Contact)) contact.Contact {
	r.t.Helper()
	g := NewWithT(r.t)
	results, err := r.store.ChangeAll(r.t.Context(), []store.Change{r.optInChange(address, edit)})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(results[0].Err).NotTo(HaveOccurred())
	return results[0].Decision.Contact
}

func (r *rig) optInChange(address string, edit func(*contact.Contact)) store.Change {
	now := time.Now().UTC()
	if r.options.Clock != nil {
		now = r.options.Clock.Now().UTC()
	}
	parsed, err := contact.ParseAddress(address)
	NewWithT(r.t).Expect(err).NotTo(HaveOccurred())
	return store.Change{
		List: r.list(), Address: parsed.Key,
		Apply: func(current *contact.Contact) contact.Decision {
			next := contact.Contact{Email: parsed.Display, Permission: contact.PermissionNone}
			if current != nil {
				next = *current
			}
			next.OptIn = &contact.OptIn{RequestedAt: now}
			next.Revision++
			if edit != nil {
				edit(&next)
			}
			return contact.Decision{
				Contact: next, Changed: true, OptInStarted: true,
				Events: []contact.Event{{Type: contact.EventChangeProfile, Source: contact.SourceAPI, Time: now}},
			}
		},
	}
}

func (r *rig) list() contact.ListKey {
	return contact.ListKey{Namespace: r.namespace, Name: "newsletter"}
}

// mailRow returns what the store has of the delivery of mails.
func (r *rig) mailRow() store.Delivery {
	row, err := r.store.LoadDelivery(r.t.Context(), store.MailKey(r.list()))
	NewWithT(r.t).Expect(err).NotTo(HaveOccurred())
	return row
}

// mailsBy returns how many attempts had an outcome.
func (r *rig) mailsBy(label string) func() int {
	return func() int {
		families, err := r.metrics.Gather()
		NewWithT(r.t).Expect(err).NotTo(HaveOccurred())
		for _, family := range families {
			for _, metric := range family.GetMetric() {
				if family.GetName() == "postbus_dispatcher_mails_total" && metric.GetLabel()[0].GetValue() == label {
					return int(metric.GetCounter().GetValue())
				}
			}
		}
		return -1
	}
}

// readMail returns the headers and the parts of a mail, by media type.
func readMail(t *testing.T, content []byte) (mail.Header, map[string]string) {
	t.Helper()
	g := NewWithT(t)
	message, err := mail.ReadMessage(bytes.NewReader(content))
	g.Expect(err).NotTo(HaveOccurred())
	kind, parameters, err := mime.ParseMediaType(message.Header.Get("Content-Type"))
	g.Expect(err).NotTo(HaveOccurred())
	if kind != "multipart/alternative" {
		g.Expect(message.Header.Get("Content-Transfer-Encoding")).To(Equal("quoted-printable"))
		text, err := io.ReadAll(quotedprintable.NewReader(message.Body))
		g.Expect(err).NotTo(HaveOccurred())
		return message.Header, map[string]string{kind: string(text)}
	}
	parts := map[string]string{}
	for reader := multipart.NewReader(message.Body, parameters["boundary"]); ; {
		part, err := reader.NextPart()
		if errors.Is(err, io.EOF) {
			return message.Header, parts
		}
		g.Expect(err).NotTo(HaveOccurred())
		kind, _, err := mime.ParseMediaType(part.Header.Get("Content-Type"))
		g.Expect(err).NotTo(HaveOccurred())
		text, err := io.ReadAll(part)
		g.Expect(err).NotTo(HaveOccurred())
		parts[kind] = string(text)
	}
}

var confirmURL = regexp.MustCompile(`https://lists\.example\.com/mail/confirm/([A-Za-z0-9_-]+)`)

func TestMailArrives(t *testing.T) {
	g := NewWithT(t)
	server := testkit.NewMailServer(t, testkit.MailServerOptions{})
	r := newMailRig(t, server, func(list *v1alpha1.ContactList) {
		list.Spec.DisplayName = "Grüne Post"
		list.Spec.OptIn.LinkTTL = &metav1.Duration{Duration: 48 * time.Hour}
	})
	r.run()
	asked := r.optIn("Ada@Example.com", func(c *contact.Contact) {
		c.StandardFields = map[string]string{"FIRSTNAME": "Ada", "LOCALE": "de_AT"}
		c.OptIn.Plus = true
	})
	g.Eventually(server.Count, patience).Should(Equal(1))
	got := server.Mails()[0]
	g.Expect(got.From).To(Equal("news@example.com"))
	g.Expect(got.To).To(Equal("Ada@example.com"))

	header, parts := readMail(t, got.Content)
	from, err := header.AddressList("From")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(from).To(Equal([]*mail.Address{{Name: "Büro", Address: "news@example.com"}}))
	g.Expect(header.Get("To")).To(Equal("<Ada@example.com>"))
	subject, err := new(mime.WordDecoder).DecodeHeader(header.Get("Subject"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(subject).To(Equal("Bitte bestätigen Sie Ihre Anmeldung: Grüne Post"))
	g.Expect(header.Date()).To(BeTemporally("~", time.Now(), time.Minute))
	g.Expect(header.Get("Message-ID")).To(MatchRegexp(`^<evt_[A-Z0-9_]+@example\.com>$`))
	g.Expect(header.Get("Auto-Submitted")).To(Equal("auto-generated"))
	g.Expect(header.Get("Content-Language")).To(Equal("de"))
	g.Expect(header.Get("List-Unsubscribe-Post")).To(Equal("List-Unsubscribe=One-Click"))
	unsubscribe := strings.Trim(header.Get("List-Unsubscribe"), "<>")
	g.Expect(unsubscribe).To(HavePrefix("https://lists.example.com/mail/unsubscribe/"))

	g.Expect(parts).To(HaveLen(2))
	for kind, text := range parts {
		g.Expect(text).To(And(ContainSubstring("Guten Tag Ada,"), ContainSubstring("Grüne Post"), ContainSubstring(unsubscribe)), kind)
		token := confirmURL.FindStringSubmatch(text)
		g.Expect(token).NotTo(BeNil(), kind)
		opened, err := testkit.LinkKeys(r.t, r.store).Open(token[1], link.Confirm, time.Now())
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(opened).To(And(
			HaveField("List", r.list()), HaveField("Contact", asked.ID), HaveField("Plus", true),
			HaveField("RequestedAt", BeTemporally("==", asked.OptIn.RequestedAt)),
			HaveField("Expires", BeTemporally("~", time.Now().Add(48*time.Hour), time.Minute))))
	}
	opened, err := testkit.LinkKeys(r.t, r.store).Open(unsubscribe[strings.LastIndex(unsubscribe, "/")+1:], link.Unsubscribe, time.Now())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(opened.Expires).To(BeTemporally("~", time.Now().Add(365*24*time.Hour), time.Minute))
	g.Eventually(r.mailRow, patience).Should(And(HaveField("Open", BeEmpty()), HaveField("Cursor", int64(2))))
	g.Expect(r.mailsBy("Delivered")()).To(Equal(1))
	g.Expect(r.log.String()).NotTo(Or(ContainSubstring("example.com"), ContainSubstring("confirm/")))
	for _, reason := range mailReasons {
		g.Expect(r.mailsBy(string(reason))()).To(BeZero())
	}
}

func TestMailOfADeclaredMailing(t *testing.T) {
	g := NewWithT(t)
	server := testkit.NewMailServer(t, testkit.MailServerOptions{})
	r := newMailRig(t, server, func(list *v1alpha1.ContactList) {
		list.Spec.OptIn.Mailings = []v1alpha1.OptInMailing{{
			Key: "welcome", Subject: "Hello", From: "Post <post@bücher.example>",
			TemplateRef: v1alpha1.ConfigMapReference{Name: "mail"},
		}}
	})
	public, err := url.Parse("http://lists.example.com/mail")
	g.Expect(err).NotTo(HaveOccurred())
	r.options.Mail.PublicURL = public
	fake := clocktesting.NewFakeClock(time.Now())
	r.options.Clock = fake
	r.run()
	r.optIn("ada@example.com", func(c *contact.Contact) { c.CustomFields = map[string]any{"points": float64(1000000)} })
	g.Eventually(r.mailsBy(string(mailTemplateMissing)), patience).Should(Equal(1), "it waits for the controller")
	g.Expect(server.Count()).To(BeZero())

	g.Expect(r.store.SaveTexts(t.Context(), r.list(), store.ListTexts{Mailings: map[string]store.Files{
		"welcome": {recipient.MailText: "{{.Custom.points}} {{.ConfirmURL}}"},
	}})).To(Succeed())
	g.Eventually(func() int { fake.Step(time.Minute); return server.Count() }, patience).Should(Equal(1))
	header, parts := readMail(t, server.Mails()[0].Content)
	g.Expect(header.Get("Subject")).To(Equal("Hello"))
	g.Expect(header.Get("From")).To(Equal(`"Post" <post@xn--bcher-kva.example>`))
	g.Expect(header.Get("Message-ID")).To(HaveSuffix("@xn--bcher-kva.example>"))
	g.Expect(header.Get("List-Unsubscribe")).To(HavePrefix("<http://lists.example.com/mail/unsubscribe/"))
	g.Expect(header).NotTo(HaveKey("List-Unsubscribe-Post"), "RFC 8058 wants https")
	g.Expect(parts).To(HaveLen(1))
	g.Expect(parts["text/plain"]).To(HavePrefix("1000000 http://lists.example.com/mail/confirm/"))
}

func TestMailToInternationalAddresses(t *testing.T) {
	g := NewWithT(t)
	server := testkit.NewMailServer(t, testkit.MailServerOptions{UTF8: true})
	old := testkit.NewMailServer(t, testkit.MailServerOptions{})
	r := newMailRig(t, server, nil)
	stop := r.run()
	r.optIn("ada@bücher.example", nil)
	r.optIn("ädä@bücher.example", nil)
	g.Eventually(server.Mails, patience).Should(ConsistOf(
		And(HaveField("To", "ada@xn--bcher-kva.example"), HaveField("UTF8", false)),
		And(HaveField("To", "ädä@xn--bcher-kva.example"), HaveField("UTF8", true))))
	for _, got := range server.Mails() {
		header, _ := readMail(t, got.Content)
		g.Expect(header.Get("To")).To(Equal("<" + got.To + ">"))
	}
	stop()
	r.options.Mail = mailOptions(t, old, MailPlain)
	r.run()
	r.optIn("ada@schön.example", nil)
	r.optIn("ödä@schön.example", nil)
	g.Eventually(old.Count, patience).Should(Equal(1))
	g.Eventually(r.mailsBy(string(mailRejected)), patience).Should(Equal(1))
	g.Expect(old.Mails()[0].To).To(Equal("ada@xn--schn-7qa.example"))
}
