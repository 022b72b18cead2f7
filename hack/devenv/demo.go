package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/hack/devenv/receiver"
	"postbus.dev/postbus/internal/signature"
)

// The bounds that the story is held to.
const (
	callbackWithin = time.Second
	mailWithin     = 2 * time.Second
	statusWithin   = 2 * time.Second
	reachedWithin  = 30 * time.Second
	// retryWithin is the second interval of the sample, which a retry may just
	// have begun to wait for, with room for the status.
	retryWithin = 10 * time.Second
	// countersWithin is how old the counters of a status may be, with room.
	countersWithin = 8 * time.Second
	// silence is how long nothing must arrive from what is suspended.
	silence = 2 * time.Second
)

// storyteller tells the story, one step after the other.
type storyteller struct {
	*environment
	key string
	// kill takes Postbus, or a part of it, away from one moment to the next. It comes
	// back by itself.
	kill func(context.Context) error
}

// step is one sentence of the story and what makes it true.
type step struct {
	sentence string
	do       func(context.Context) error
}

// demo tells the story on free ports and in a folder of its own, which is
// removed unless a step fails.
func demo(ctx context.Context, s settings) error {
	began := time.Now()
	s, err := separate(ctx, s)
	if err != nil {
		return err
	}
	out := &console{}
	teller := &storyteller{environment: newEnvironment(s, out.tell("      "), func(string) {}, func(string) {})}
	teller.kill = func(context.Context) error { return teller.postbus.Kill() }
	err = teller.during(ctx, func(ctx context.Context) error { return teller.recite(ctx, out) })
	if err != nil {
		return fmt.Errorf("%w (logs: %s)", err, s.logs())
	}
	out.print(fmt.Sprintf("Every step passed, in %.0f seconds.", time.Since(began).Seconds()))
	return os.RemoveAll(s.dir)
}

// recite tells all steps, up to the first that does not come true.
func (t *storyteller) recite(ctx context.Context, out *console) error {
	for _, step := range t.steps() {
		start := time.Now()
		if err := step.do(ctx); err != nil {
			out.print("FAIL  " + step.sentence)
			return err
		}
		out.print(fmt.Sprintf("ok    %s (%.1fs)", step.sentence, time.Since(start).Seconds()))
	}
	return nil
}

// separate returns settings that let a demo run beside anything else.
func separate(ctx context.Context, s settings) (settings, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return settings{}, fmt.Errorf("make the folder for everything: %w", err)
	}
	dir, err := os.MkdirTemp(s.dir, "demo-")
	if err != nil {
		return settings{}, fmt.Errorf("make the demo's folder: %w", err)
	}
	s.dir, s.kubeconfig, s.keyFile = dir, filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "key")
	for _, address := range []*string{&s.ingress, &s.receiver, &s.mail, &s.metrics} {
		if *address, err = freeAddress(ctx); err != nil {
			return settings{}, err
		}
	}
	return s, nil
}

func freeAddress(ctx context.Context) (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

func (t *storyteller) steps() []step {
	return []step{
		{"the samples are applied; the key and the subscription become Ready", t.apply},
		{"test events are asked for by an annotation, until one reaches the callback", t.test},
		{"a contact is posted and answered with 200; its callback arrives within 1 s with a good signature", t.deliver},
		{"double opt-in is asked for: within 2 s the mail is there; its link confirms, and a callback tells of Recipient", t.optIn},
		{"the receiver answers 500: within 2 s the status is Failing, with failingSince", t.fail},
		{"the receiver answers 200 again: Active after the next retry, under the same webhook-id", t.heal},
		{"the subscription is suspended: nothing is sent, its events wait", t.suspend},
		{"it is resumed: what waited is sent", t.resume},
		{"the receiver answers 410: the callback is deactivated, nothing is sent to it any more, and events are kept", t.deactivate},
		{"it is reactivated by an annotation: the kept events arrive, marked as a replay and those of each contact in order", t.reactivate},
		{fmt.Sprintf("postbus is killed %d times while %d contacts come in: all that was accepted is delivered", kills, contacts), t.survive},
	}
}

func (t *storyteller) apply(ctx context.Context) error {
	if err := t.applySamples(ctx); err != nil {
		return err
	}
	key, err := os.ReadFile(t.settings.keyFile)
	t.key = string(key)
	return err
}

// test asks again where the way to the callback is not open yet: a Service is not
// known on every node at once.
func (t *storyteller) test(ctx context.Context) error {
	subscription := &v1alpha1.WebhookSubscription{}
	subscription.Namespace, subscription.Name = sampleSubscription.Namespace, sampleSubscription.Name
	return eventually(ctx, reachedWithin, func(ctx context.Context) error {
		patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, v1alpha1.AnnotationTest, rand.Text())
		if err := t.client.Patch(ctx, subscription, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
			return fmt.Errorf("ask for a test event: %w", err)
		}
		return eventually(ctx, statusWithin, func(context.Context) error {
			if len(t.receiver.Calls()) == 0 {
				return errors.New("no test event arrived")
			}
			return nil
		})
	})
}

func (t *storyteller) deliver(ctx context.Context) error {
	const email = "ada@example.com"
	if err := t.post(ctx, email); err != nil {
		return err
	}
	call, err := t.callAbout(ctx, email, callbackWithin)
	if err != nil {
		return err
	}
	secret, err := t.secret(ctx, sampleSubscription.Name+"-signing", signature.SecretKey)
	if err != nil {
		return err
	}
	verifier, err := standardwebhooks.NewWebhook(string(secret))
	if err != nil {
		return fmt.Errorf("use the signing secret: %w", err)
	}
	if err := verifier.Verify([]byte(call.Body), call.Header()); err != nil {
		return fmt.Errorf("verify the signature: %w", err)
	}
	return nil
}

func (t *storyteller) optIn(ctx context.Context) error {
	const email = "grace@example.com"
	form := url.Values{"key": {t.key}, "email": {email}, "doi": {"true"}}
	if err := t.submit(ctx, t.ingressURL()+contactsPath, form); err != nil {
		return fmt.Errorf("ask for double opt-in: %w", err)
	}
	var confirm string
	err := eventually(ctx, mailWithin, func(context.Context) error {
		for _, mail := range t.mailbox.Mails() {
			if mail.To == email {
				confirm = mail.Confirm
				return nil
			}
		}
		return fmt.Errorf("no mail to %s arrived", email)
	})
	if err != nil {
		return err
	}
	if err := t.submit(ctx, confirm, url.Values{}); err != nil {
		return fmt.Errorf("confirm by the link of the mail: %w", err)
	}
	return eventually(ctx, callbackWithin, func(context.Context) error {
		for _, call := range t.receiver.Calls() {
			if strings.Contains(call.Body, email) && strings.Contains(call.Body, `"contact.subscribed"`) && strings.Contains(call.Body, `"Recipient"`) {
				return nil
			}
		}
		return fmt.Errorf("no call says that %s has subscribed", email)
	})
}

func (t *storyteller) fail(ctx context.Context) error {
	t.receiver.SetAnswer(receiver.Answer{Status: http.StatusInternalServerError})
	const email = "failing@example.com"
	if err := t.post(ctx, email); err != nil {
		return err
	}
	if _, err := t.callAbout(ctx, email, callbackWithin); err != nil {
		return err
	}
	return t.status(ctx, statusWithin, func(status v1alpha1.WebhookSubscriptionStatus) error {
		if status.State != v1alpha1.StateFailing || status.FailingSince == nil {
			return fmt.Errorf("state is %q, failingSince %v", status.State, status.FailingSince)
		}
		return nil
	})
}

func (t *storyteller) heal(ctx context.Context) error {
	t.receiver.SetAnswer(receiver.Answer{Status: http.StatusOK})
	err := t.status(ctx, retryWithin, func(status v1alpha1.WebhookSubscriptionStatus) error {
		if status.State != v1alpha1.StateActive || status.FailingSince != nil {
			return fmt.Errorf("state is %q, failingSince %v", status.State, status.FailingSince)
		}
		return nil
	})
	if err != nil {
		return err
	}
	_, err = account(t.receiver.Calls())
	return err
}

func (t *storyteller) suspend(ctx context.Context) error {
	if err := t.setSuspend(ctx, true); err != nil {
		return err
	}
	err := t.status(ctx, statusWithin, func(status v1alpha1.WebhookSubscriptionStatus) error {
		if status.State != v1alpha1.StateSuspended {
			return fmt.Errorf("state is %q", status.State)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := t.post(ctx, waiting); err != nil {
		return err
	}
	if _, err := t.callAbout(ctx, waiting, silence); err == nil {
		return errors.New("a call was made although the subscription is suspended")
	} else if ctx.Err() != nil {
		return ctx.Err()
	}
	return t.status(ctx, countersWithin, func(status v1alpha1.WebhookSubscriptionStatus) error {
		if status.PendingEvents == nil || *status.PendingEvents == 0 {
			return errors.New("pendingEvents is 0")
		}
		return nil
	})
}

// waiting is the contact whose events wait while the subscription is suspended.
const waiting = "waiting@example.com"

func (t *storyteller) resume(ctx context.Context) error {
	if err := t.setSuspend(ctx, false); err != nil {
		return err
	}
	_, err := t.callAbout(ctx, waiting, statusWithin)
	return err
}

// kept are the contacts whose events are kept while the callback is deactivated. The
// first one's is what it was deactivated by.
var kept = []string{"kept-1@example.com", "kept-2@example.com", "kept-3@example.com"}

func (t *storyteller) deactivate(ctx context.Context) error {
	err := t.status(ctx, countersWithin, func(status v1alpha1.WebhookSubscriptionStatus) error {
		if status.PendingEvents == nil || *status.PendingEvents != 0 {
			return fmt.Errorf("pendingEvents is %v", status.PendingEvents)
		}
		return nil
	})
	if err != nil {
		return err
	}
	t.receiver.SetAnswer(receiver.Answer{Status: http.StatusGone})
	if err := t.post(ctx, kept[0]); err != nil {
		return err
	}
	err = t.status(ctx, statusWithin, func(status v1alpha1.WebhookSubscriptionStatus) error {
		if status.State != v1alpha1.StateFailed || status.DeactivatedAt == nil {
			return fmt.Errorf("state is %q, deactivatedAt %v", status.State, status.DeactivatedAt)
		}
		return nil
	})
	if err != nil {
		return err
	}
	t.receiver.SetAnswer(receiver.Answer{Status: http.StatusOK})
	before := len(t.receiver.Calls())
	for _, email := range kept[1:] {
		if err := t.post(ctx, email); err != nil {
			return err
		}
	}
	err = t.status(ctx, countersWithin, func(status v1alpha1.WebhookSubscriptionStatus) error {
		// A new contact raises two events, and the first one's second waits too.
		if status.Buffer == nil || status.Buffer.Events == nil || *status.Buffer.Events != int64(2*len(kept)) {
			return fmt.Errorf("buffer is %+v", status.Buffer)
		}
		return nil
	})
	if err == nil && len(t.receiver.Calls()) != before {
		err = errors.New("a call was made although the callback is deactivated")
	}
	return err
}

func (t *storyteller) reactivate(ctx context.Context) error {
	subscription := &v1alpha1.WebhookSubscription{}
	subscription.Namespace, subscription.Name = sampleSubscription.Namespace, sampleSubscription.Name
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q,%q:"true"}}}`,
		v1alpha1.AnnotationReactivate, time.Now().Format(time.RFC3339), v1alpha1.AnnotationReplayEvents)
	if err := t.client.Patch(ctx, subscription, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		return fmt.Errorf("annotate the subscription: %w", err)
	}
	before := len(t.receiver.Calls())
	err := t.status(ctx, countersWithin, func(status v1alpha1.WebhookSubscriptionStatus) error {
		if status.State != v1alpha1.StateActive || status.Replay == nil || status.Replay.State != v1alpha1.ReplayCompleted {
			return fmt.Errorf("state is %q, replay %+v", status.State, status.Replay)
		}
		return nil
	})
	if err != nil {
		return err
	}
	calls := t.receiver.Calls()[before:]
	return checkReplay(calls)
}

// post posts a contact that is not known yet and expects 200.
func (t *storyteller) post(ctx context.Context, email string) error {
	form := url.Values{"key": {t.key}, "email": {email}, "permission": {"2"}}
	if err := t.submit(ctx, t.ingressURL()+contactsPath, form); err != nil {
		return fmt.Errorf("post a contact: %w", err)
	}
	return nil
}

const contactsPath = "/webhooks/contacts/email"

// submit posts a form and expects 200.
func (t *storyteller) submit(ctx context.Context, address string, form url.Values) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := burstClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %s", answer.Status)
	}
	return nil
}

// callAbout waits for the first call whose body names an address.
func (t *storyteller) callAbout(ctx context.Context, email string, within time.Duration) (receiver.Call, error) {
	var found receiver.Call
	err := eventually(ctx, within, func(context.Context) error {
		for _, call := range t.receiver.Calls() {
			if strings.Contains(call.Body, email) {
				found = call
				return nil
			}
		}
		return fmt.Errorf("no call about %s arrived", email)
	})
	return found, err
}

// status waits until the subscription's status passes a check.
func (t *storyteller) status(
	ctx context.Context, within time.Duration, check func(v1alpha1.WebhookSubscriptionStatus) error,
) error {
	return eventually(ctx, within, func(ctx context.Context) error {
		subscription := &v1alpha1.WebhookSubscription{}
		if err := t.client.Get(ctx, sampleSubscription, subscription); err != nil {
			return err
		}
		return check(subscription.Status)
	})
}

func (t *storyteller) setSuspend(ctx context.Context, suspend bool) error {
	patch := fmt.Sprintf(`{"spec":{"suspend":%t}}`, suspend)
	subscription := &v1alpha1.WebhookSubscription{}
	subscription.Namespace, subscription.Name = sampleSubscription.Namespace, sampleSubscription.Name
	if err := t.client.Patch(ctx, subscription, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		return fmt.Errorf("patch spec.suspend: %w", err)
	}
	return nil
}
