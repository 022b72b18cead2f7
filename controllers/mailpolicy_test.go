package controllers

import (
	"net/mail"
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/mailpolicy"
	"postbus.dev/postbus/internal/testkit"
)

// A sender that the flags don't allow is refused by name of field, domain and flag.
func TestForbiddenSenders(t *testing.T) {
	b := newBench(t)
	b.mail.From = &mail.Address{Address: "default@postbus.example"}
	b.Expect(b.mail.Senders.AddSenders("news@a.example,*@*.b.example," + b.namespace + "/*@own.example,elsewhere/*@bank.example")).To(Succeed())
	list := b.listWith(v1alpha1.OptInMailing{Key: "welcome"})
	for _, from := range []string{
		"Example News <news@a.example>", "x@mail.b.example", "anybody@own.example", "Postbus <default@postbus.example>",
	} {
		list.Spec.OptIn.Mailings[0].From = from
		b.update(list)
		b.expectValid(list)
	}
	for _, from := range []string{"Your Bank <security@bank.example>", "other@a.example", "x@b.example"} {
		list.Spec.OptIn.Mailings[0].From = from
		b.update(list)
		ready, message := b.ready(list)
		b.Expect(ready).To(Equal("False MailingInvalid"), from)
		b.Expect(message).To(MatchRegexp(`^spec\.optIn\.mailings\[welcome\]\.from has an address at "[a-z.]+", which this namespace may not use; ` +
			`--allowed-senders can allow it\. Mails of it wait\.$`))
	}
}

func TestForbiddenNoticeDomains(t *testing.T) {
	b := newBench(t)
	b.Expect(b.mail.NoticeDomains.AddDomains("example.com")).To(Succeed())
	subscription := testkit.Subscription(b.namespace, "crm", callbackURL)
	subscription.Spec.Notify.Emails = []string{"ops@example.com", "stranger@anywhere.example"}
	b.create(subscription)
	b.pass(subscription)
	message := b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonNotifyForbidden)
	b.Expect(message).To(Equal(`spec.notify.emails[1] has an address at "anywhere.example", which this namespace may not use; --notice-domains can allow it.`))

	b.mail = mailpolicy.Policy{}
	b.pass(subscription)
	b.expect(subscription, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonValid)
}
