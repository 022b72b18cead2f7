package main

import (
	"bytes"
	"encoding/json"
	"io"
	"mime/quotedprintable"
	"net/http"
	"net/mail"
	"net/url"
	"regexp"
	"syscall"
	"testing"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/testkit"
)

// TestOptInFromFormToCallback goes the whole way: a form posts a contact, the
// mail comes by SMTP, the process is killed with -9, somebody clicks the link in
// a browser, and the callback hears of it.
func TestOptInFromFormToCallback(t *testing.T) {
	g := NewWithT(t)
	browser := testkit.NewBrowser(t)
	mails, callback := testkit.NewMailServer(t, testkit.MailServerOptions{}), testkit.NewReceiver(t)
	i := newInstallation(t)
	i.flags = []string{
		"--smtp-server=smtp+plain://" + mails.Address(), "--mail-from=News <news@example.com>",
		"--public-url=http://" + i.ingress,
	}
	objects := declare(t, callback.URL())
	objects.onlyByRecipients(t)
	process := i.start()
	objects.waitUntilReady(t, i)

	g.Expect(postForm(t, i.ingress, url.Values{
		"key": {objects.key}, "email": {"ada@example.com"}, "doi": {"true"}, "standard_FIRSTNAME": {"Ada"}, "standard_LOCALE": {"de"},
	})).To(ContainSubstring(`"doi":{"started":true}`))
	g.Eventually(mails.Count, patience).Should(Equal(1))
	g.Eventually(func() bool { return i.hasSent("mail/newsletter") }, patience).Should(BeTrue())
	process.signal(syscall.SIGKILL)
	i.start()

	browser.Speak(t, "de")
	browser.Open(t, confirmLink(t, mails.Mails()[0], "http://"+i.ingress))
	browser.Press(t, "Ja, anmelden")
	g.Eventually(browser.Heading, patience).Should(Equal("Danke, Sie sind angemeldet"))

	g.Eventually(callback.Count, patience).Should(Equal(1))
	var event struct {
		Type string
		Data struct {
			Source  string
			Contact struct {
				Email      string
				Permission contact.Permission
			}
		}
	}
	g.Expect(json.Unmarshal(callback.Calls()[0].Body, &event)).To(Succeed())
	g.Expect(event.Type).To(Equal("contact.subscribed"))
	g.Expect(event.Data.Source).To(Equal(string(contact.SourceRecipient)))
	g.Expect(event.Data.Contact.Email).To(Equal("ada@example.com"))
	g.Expect(event.Data.Contact.Permission).To(Equal(contact.PermissionDoubleOptIn))
	g.Expect(mails.Count()).To(Equal(1), "the process that was started again sends no mail twice")
}

// onlyByRecipients has the subscription hear of people who subscribe themselves.
func (d declared) onlyByRecipients(t *testing.T) {
	t.Helper()
	before := d.subscription.DeepCopy()
	d.subscription.Spec.Events = []v1alpha1.EventType{contact.EventSubscribe}
	d.subscription.Spec.Sources = []v1alpha1.EventSource{contact.SourceRecipient}
	NewWithT(t).Expect(plane.Client.Patch(t.Context(), d.subscription, client.MergeFrom(before))).To(Succeed())
}

// postForm posts a form as a website does, and returns the answer.
func postForm(t *testing.T, address string, form url.Values) string {
	t.Helper()
	g := NewWithT(t)
	response, err := http.PostForm("http://"+address+"/webhooks/contacts/email", form)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	g.Expect(err).NotTo(HaveOccurred())
	return string(body)
}

// confirmLink returns the link below a base that a mail to Ada asks to open.
func confirmLink(t *testing.T, received testkit.Mail, base string) string {
	t.Helper()
	g := NewWithT(t)
	g.Expect(received.To).To(Equal("ada@example.com"))
	message, err := mail.ReadMessage(bytes.NewReader(received.Content))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(message.Header.Get("List-Unsubscribe")).To(HavePrefix("<" + base + "/unsubscribe/"))
	content, err := io.ReadAll(quotedprintable.NewReader(message.Body)) // the parts' boundaries don't matter
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(content)).To(ContainSubstring("Guten Tag Ada,"))
	return regexp.MustCompile(regexp.QuoteMeta(base) + `/confirm/[\w-]+`).FindString(string(content))
}
