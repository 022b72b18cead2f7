package dispatcher

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/testkit"
)

const encryptionKeyText = "myKey1234"

// encryptionSecret makes a Secret with the encryption key.
func encryptionSecret(t *testing.T, namespace string) *corev1.Secret {
	t.Helper()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "crm-rc4"},
		StringData: map[string]string{"rc4.key": encryptionKeyText},
	}
	NewWithT(t).Expect(plane.Client.Create(t.Context(), secret)).To(Succeed())
	return secret
}

// subscribeMailUp makes a subscription in the format MailUp, which is encrypted
// when there is a Secret with a key.
func (r *rig) subscribeMailUp(name string, method v1alpha1.CallbackMethod, key *corev1.Secret) *v1alpha1.WebhookSubscription {
	r.t.Helper()
	return r.subscribe(name, func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Callback.Method = method
		s.Spec.Payload = v1alpha1.Payload{
			Format:     v1alpha1.FormatMailUp,
			Parameters: mailUpParameters("event", "[EventType]", "customerEmail", "[Email]", "note", "ä+b=c & [Channel]"),
		}
		if key != nil {
			s.Spec.Payload.Encryption = v1alpha1.Encryption{
				Algorithm:    v1alpha1.EncryptionRC4,
				KeySecretRef: v1alpha1.SecretKeyReference{Name: key.Name, Key: "rc4.key"},
			}
		}
	})
}

// judge returns what verifies the signatures of a subscription's calls.
func (r *rig) judge(object *v1alpha1.WebhookSubscription) *standardwebhooks.Webhook {
	r.t.Helper()
	g := NewWithT(r.t)
	var secret corev1.Secret
	g.Expect(plane.Client.Get(r.t.Context(), types.NamespacedName{Namespace: r.namespace, Name: object.SigningSecretName()}, &secret)).To(Succeed())
	judge, err := standardwebhooks.NewWebhook(string(secret.Data[signature.SecretKey]))
	g.Expect(err).NotTo(HaveOccurred())
	return judge
}

func TestMailUpDelivers(t *testing.T) {
	const form = "event=SUBSCRIBE&customerEmail=ada%40example.com&note=%c3%a4%2bb%3dc+%26+0"
	for name, row := range map[string]struct {
		method      v1alpha1.CallbackMethod
		url         string // what is put behind the path
		query, body string
	}{
		"by POST":                {method: v1alpha1.MethodPost, body: form},
		"by POST, under a query": {method: v1alpha1.MethodPost, url: "?list=2", query: "list=2", body: form},
		"by GET":                 {method: v1alpha1.MethodGet, query: form},
		"by GET, onto a query":   {method: v1alpha1.MethodGet, url: "?list=%2F", query: "list=%2F&" + form},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := NewWithT(t)
			r := newRig(t)
			r.receiver.Answer(http.StatusInternalServerError)
			crm := r.subscribe("crm", func(s *v1alpha1.WebhookSubscription) {
				s.Spec.Callback.URL += row.url
				s.Spec.Callback.Method = row.method
				s.Spec.Payload = v1alpha1.Payload{
					Format:     v1alpha1.FormatMailUp,
					Parameters: mailUpParameters("event", "[EventType]", "customerEmail", "[Email]", "note", "ä+b=c & [Channel]"),
				}
			})
			stop := r.run()
			sent := r.post("ada@example.com")
			g.Eventually(r.receiver.Count, patience).Should(BeNumerically(">=", 1))
			r.receiver.Answer(http.StatusOK)
			g.Eventually(r.delivery(crm), patience).Should(HaveField("Health.LastSuccess", Not(BeZero())))
			stop()
			judge := r.judge(crm)
			for attempt, call := range r.receiver.Calls() {
				g.Expect(call.Method).To(Equal(string(row.method)))
				g.Expect(call.Query).To(Equal(row.query))
				g.Expect(string(call.Body)).To(Equal(row.body))
				g.Expect(call.Header.Get(signature.HeaderID)).To(Equal(sent))
				g.Expect(call.Header.Get("Postbus-Attempt")).To(Equal(fmt.Sprint(attempt + 1)))
				g.Expect(judge.Verify(call.Body, call.Header)).To(Succeed(), "over the body, which a GET has none of")
				if row.method == v1alpha1.MethodGet {
					g.Expect(call.Header).NotTo(Or(HaveKey("Content-Type"), HaveKey("Content-Length")))
				} else {
					g.Expect(call.Header.Get("Content-Type")).To(Equal("application/x-www-form-urlencoded"))
				}
			}
			g.Expect(len(r.receiver.Calls())).To(BeNumerically(">=", 2))
			g.Expect(r.log.String()).To(And(ContainSubstring(sent), Not(ContainSubstring("example.com"))))
		})
	}
}

// The controller tells of a new key by its version in status.
func TestEncryptionKeyChanges(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	secret := encryptionSecret(t, r.namespace)
	crm := r.subscribeMailUp("crm", v1alpha1.MethodPost, secret)
	r.run()
	last := func() string {
		calls := r.receiver.Calls()
		if len(calls) == 0 {
			return ""
		}
		return string(calls[len(calls)-1].Body)
	}
	r.post("ada@example.com")
	g.Eventually(last, patience).ShouldNot(BeEmpty())
	first := last()
	g.Expect(first).NotTo(ContainSubstring("ada"))

	secret.StringData = map[string]string{"rc4.key": "another"}
	g.Expect(plane.Client.Update(t.Context(), secret)).To(Succeed())
	crm.Status.SetSecretVersion(secret.Name, secret.ResourceVersion)
	g.Expect(plane.Client.Status().Update(t.Context(), crm)).To(Succeed())
	const begins = 4 // the cipher's first three bytes, which stand for "eve" in every form
	g.Eventually(func() string {
		r.post("ada@example.com")
		return last()
	}, patience, 50*time.Millisecond).ShouldNot(HavePrefix(first[:begins]))
	g.Expect(r.log.String()).NotTo(ContainSubstring(encryptionKeyText))
}

func TestEncryptionKeyProblems(t *testing.T) {
	g := NewWithT(t)
	signing := signingSecret(t)
	known := encryptionKeyText + "\n"
	g.Expect(plane.Client.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: signing.Namespace, Name: "broken"},
		StringData: map[string]string{"key": known},
	})).To(Succeed())
	receiver := testkit.NewReceiver(t)
	c := newCaller(&Options{Secrets: plane.Client, Clock: clock.RealClock{}, Guard: toReceivers}, &listBook{})
	t.Cleanup(c.close)
	for place, why := range map[secretPlace]string{
		{name: "missing", key: "key"}:   "read the encryption key",
		{name: "broken", key: "key"}:    "parse the encryption key",
		{name: "broken", key: "absent"}: "it has 0 bytes",
	} {
		o, err := c.attempt(t.Context(), checked(t, &subscription{
			key: store.SubscriptionKey{Namespace: signing.Namespace, Name: "crm"}, format: mailUp{parameters: mailUpParameters("e", "[Email]")},
			url: receiver.URL(), method: http.MethodPost, timeout: patience,
			signingSecret: secretPlace{name: signing.Name, key: signature.SecretKey},
			encryption:    v1alpha1.EncryptionRC4, encryptionKey: place,
		}), call{event: &contact.Event{ID: "evt_1", Type: contact.EventCreate}})
		g.Expect(o).To(Equal(outcome{verdict: hindered, reason: v1alpha1.FailureEncryption}))
		g.Expect(err).To(MatchError(And(ContainSubstring(why), ContainSubstring(signing.Namespace+"/"+place.name))))
		g.Expect(err.Error()).NotTo(ContainSubstring(encryptionKeyText))
	}
	g.Expect(receiver.Count()).To(BeZero(), "nothing goes out in clear text")
}

// pageCall is a call as testdata/mailup_receiver.py understood it, which was written
// from the vendor's description and has an RC4 of its own.
type pageCall struct {
	Method     string      `json:"method"`
	Path       string      `json:"path"`
	Parameters [][2]string `json:"parameters"`
}

func TestMailUpReceiverOfAnotherHand(t *testing.T) {
	for _, method := range []v1alpha1.CallbackMethod{v1alpha1.MethodGet, v1alpha1.MethodPost} {
		for _, key := range [][]string{nil, {encryptionKeyText}} {
			t.Run(fmt.Sprint(method, " ", strings.Join(key, "")), func(t *testing.T) {
				t.Parallel()
				g := NewWithT(t)
				p := startProgram[pageCall](t, python(t), append([]string{"testdata/mailup_receiver.py"}, key...)...)
				r := newRig(t)
				var secret *corev1.Secret
				if key != nil {
					secret = encryptionSecret(t, r.namespace)
				}
				crm := r.subscribeMailUp("crm", method, secret)
				crm.Spec.Callback.URL = p.url + "/callback.aspx"
				g.Expect(plane.Client.Update(t.Context(), crm)).To(Succeed())
				r.accept(crm)
				r.run()
				r.post("ada@example.com")
				r.post("ada@example.com")
				for _, event := range []string{"SUBSCRIBE", "CHANGEPROFILE"} {
					g.Eventually(p.calls, patience).Should(Receive(Equal(pageCall{
						Method: string(method), Path: "/callback.aspx",
						Parameters: [][2]string{{"event", event}, {"customerEmail", "ada@example.com"}, {"note", "ä+b=c & 0"}},
					})))
				}
				g.Eventually(r.delivery(crm), patience).Should(And(
					HaveField("Open", BeEmpty()), HaveField("Health.FailingSince", BeZero())))
			})
		}
	}
}
