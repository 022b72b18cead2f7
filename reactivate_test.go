package main

import (
	"bytes"
	"io"
	"mime/quotedprintable"
	"net/http"
	"net/mail"
	"net/url"
	"regexp"
	"slices"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/testkit"
)

// TestReactivatedFromAMail goes the whole way: a callback is down and deactivated,
// a mail says so, the process is killed with -9, somebody presses a button of the
// page behind the mail's link, and the callback gets what was kept.
func TestReactivatedFromAMail(t *testing.T) {
	g := NewWithT(t)
	browser := testkit.NewBrowser(t)
	mails, callback := testkit.NewMailServer(t, testkit.MailServerOptions{}), testkit.NewReceiver(t)
	callback.Answer(http.StatusServiceUnavailable)
	i := newInstallation(t)
	i.flags = []string{
		"--smtp-server=smtp+plain://" + mails.Address(), "--mail-from=News <news@example.com>", "--public-url=http://" + i.ingress,
	}
	objects := declare(t, callback.URL())
	operator := newKubectlUser(t, objects.subscription.Namespace)
	operator.edit(objects.subscription, func() {
		objects.subscription.Spec.Retry.Intervals = []metav1.Duration{{Duration: time.Second}}
		objects.subscription.Spec.Notify.Emails = []string{"ops@example.com"}
	})
	process := i.start()
	objects.waitUntilReady(t, i)
	g.Expect(post(t, i.ingress, objects.key, "ada@example.com")).To(BeTrue())
	g.Eventually(mails.Count, patience).Should(Equal(1))
	g.Eventually(func() bool { return i.hasSent("notices/") }, patience).Should(BeTrue())
	process.signal(syscall.SIGKILL)
	i.start()
	g.Expect(post(t, i.ingress, objects.key, "grace@example.com")).To(BeTrue())

	page := reactivateLink(t, mails.Mails()[0], "http://"+i.ingress)
	browser.Speak(t, "en")
	browser.Resize(t, 360, 740)
	shown := func() string {
		browser.Open(t, page)
		text, err := browser.Evaluate("document.body.innerText")
		g.Expect(err).NotTo(HaveOccurred())
		return text
	}
	g.Eventually(shown, patience).Should(And(ContainSubstring("Reactivate the callback crm?"), ContainSubstring("HTTPStatus 503"),
		ContainSubstring("Reactivate and send the kept events (2)")))
	callback.Answer(http.StatusOK)
	failed := callback.Count()
	browser.Press(t, "Reactivate and send the kept events (2)")
	g.Eventually(browser.Heading, patience).Should(Equal("The callback is being reactivated"))
	g.Eventually(callback.Count, patience).Should(Equal(failed + 2))
	var replayed []string
	for _, call := range callback.Calls()[failed:] {
		g.Expect(call.Header.Get("Postbus-Replay")).To(Equal("true"))
		replayed = append(replayed, call.Header.Get(signature.HeaderID))
	}
	g.Expect(replayed[0]).NotTo(Equal(replayed[1]))
	g.Expect(slices.Contains(replayed, callback.Calls()[0].Header.Get(signature.HeaderID))).To(BeTrue(), "under the id that it had")
	g.Eventually(func() v1alpha1.SubscriptionState {
		g.Expect(plane.Client.Get(t.Context(), client.ObjectKeyFromObject(objects.subscription), objects.subscription)).To(Succeed())
		return objects.subscription.Status.State
	}, patience).Should(Equal(v1alpha1.StateActive))
	g.Expect(shown()).To(ContainSubstring("This link has done its work"))
	g.Expect(mails.Count()).To(Equal(1), "the process that was started again sends no mail twice")
}

// reactivateLink returns the link below a base that a mail to the operators asks to
// open.
func reactivateLink(t *testing.T, received testkit.Mail, base string) string {
	t.Helper()
	g := NewWithT(t)
	g.Expect(received.To).To(Equal("ops@example.com"))
	message, err := mail.ReadMessage(bytes.NewReader(received.Content))
	g.Expect(err).NotTo(HaveOccurred())
	content, err := io.ReadAll(quotedprintable.NewReader(message.Body))
	g.Expect(err).NotTo(HaveOccurred())
	found := regexp.MustCompile(regexp.QuoteMeta(base) + `/reactivate/[\w-]+`).FindString(string(content))
	_, err = url.Parse(found)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(found).NotTo(BeEmpty(), string(content))
	return found
}
