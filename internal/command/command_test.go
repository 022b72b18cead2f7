package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"postbus.dev/postbus/api/v1alpha1"
)

// nowhere is an API server that nobody is at, so what comes so far is no usage error.
const nowhere = "--server=http://127.0.0.1:1"

// What makes no sense is refused before anybody is asked, in words that name the flag.
func TestRefusals(t *testing.T) {
	for name, row := range map[string]struct {
		arguments string
		says      string
	}{
		"no subscription":            {"test", "test takes the name of one WebhookSubscription, not 0 arguments"},
		"two subscriptions":          {"attempts crm shop", "attempts takes the name of one WebhookSubscription, not 2 arguments"},
		"another kind":               {"test apikey/crm", `"apikey/crm" names no WebhookSubscription`},
		"no name":                    {"test webhooksubscription/", `"webhooksubscription/" names no WebhookSubscription`},
		"an unknown verb":            {"relay crm", `unknown command "relay"`},
		"an unknown flag":            {"test crm --since=2h", "unknown flag: --since"},
		"an unknown format":          {"replay crm --failed -o xml", `the output format "xml", allowed formats are: json,yaml,wide,name`},
		"attempts by name":           {"attempts crm -o name", "allowed formats are: json,yaml,wide"},
		"nothing to replay":          {"replay crm", "one of --since, --event and --failed must say what"},
		"an event and what failed":   {"replay crm --failed --event=evt_000000000A7_A", "--since, --event and --failed exclude each other"},
		"a range and an event":       {"replay crm --since=2h --event=evt_000000000A7_A", "exclude each other"},
		"an end without a beginning": {"replay crm --until=2h", "--until needs --since"},
		"an end of a single event":   {"replay crm --until=2h --event=evt_000000000A7_A", "--until needs --since"},
		"an end before the beginning": {
			"replay crm --since=2h --until=3h", "--until (3h) is before --since (2h)",
		},
		"a beginning in the future":     {"replay crm --since=2999-01-01T00:00:00Z", "--since (2999-01-01T00:00:00Z) is in the future"},
		"a beginning that is no time":   {"replay crm --since=yesterday", "--since (yesterday) is neither a time such as"},
		"an end that is no time":        {"replay crm --since=2h --until=2026-11-22", "--until (2026-11-22) is neither a time such as"},
		"a negative duration":           {"replay crm --since=-2h", "--since (-2h) is neither a time such as"},
		"an event that is none":         {"replay crm --event=test_ABC", "--event (test_ABC) is no id of an event"},
		"a reactivation without a word": {"reactivate crm", "--replay-events must be given: true sends"},
		"a wait for nothing":            {"reactivate crm --replay-events=false --wait", "--wait waits for a replay, and --replay-events=false begins none"},
		"a word that is none":           {"reactivate crm --replay-events=maybe", `invalid argument "maybe" for "--replay-events"`},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			var out, errOut bytes.Buffer
			code := Run(t.Context(), PluginName, append(strings.Fields(row.arguments), nowhere), genericiooptions.IOStreams{Out: &out, ErrOut: &errOut})
			g.Expect(code).To(Equal(ExitUsage))
			g.Expect(out.String()).To(BeEmpty())
			g.Expect(errOut.String()).To(And(HavePrefix("error: "), ContainSubstring(row.says), ContainSubstring("See 'kubectl postbus")))
		})
	}
}

func TestUnderstood(t *testing.T) {
	for _, arguments := range []string{
		"test webhooksubscription.postbus.dev/crm", "test webhooksubscriptions/crm", "-n marketing test crm", "attempts crm -o wide -w",
		"replay crm --since=5d --until=1d12h", "replay crm --since=2026-11-20T00:00:00+01:00", "replay crm --event=evt_000000000A7_A --wait",
		"reactivate crm --replay-events --wait --timeout=1s",
	} {
		g := NewWithT(t)
		var out, errOut bytes.Buffer
		code := Run(t.Context(), "postbus", append(strings.Fields(arguments), nowhere), genericiooptions.IOStreams{Out: &out, ErrOut: &errOut})
		g.Expect(code).To(Equal(ExitNotDone), arguments)
		g.Expect(errOut.String()).To(HavePrefix("The connection to the server 127.0.0.1:1 was refused"), arguments)
	}
}

func TestReplayRequests(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 5, time.UTC)
	const mark = "2026-11-22T10:00:00.000000005Z"
	for name, row := range map[string]struct {
		selection   selection
		kind        v1alpha1.RequestType
		value       string
		annotations map[string]string // empty where one is removed
	}{
		"two hours": {
			selection{since: "2h"},
			v1alpha1.RequestReplayRange, "2026-11-22T08:00:00.000000005Z " + mark + "/",
			map[string]string{v1alpha1.AnnotationReplaySince: "2026-11-22T08:00:00.000000005Z " + mark, v1alpha1.AnnotationReplayUntil: ""},
		},
		"a day": {
			selection{since: "2026-11-20T01:00:00+01:00", until: "2026-11-21T00:00:00Z"},
			v1alpha1.RequestReplayRange,
			"2026-11-20T00:00:00Z " + mark + "/2026-11-21T00:00:00Z",
			map[string]string{v1alpha1.AnnotationReplaySince: "2026-11-20T00:00:00Z " + mark, v1alpha1.AnnotationReplayUntil: "2026-11-21T00:00:00Z"},
		},
		"an event": {
			selection{event: "evt_000000000A7_A"},
			v1alpha1.RequestReplayEvent, "evt_000000000A7_A " + mark,
			map[string]string{v1alpha1.AnnotationReplayEvent: "evt_000000000A7_A " + mark},
		},
		"what failed": {
			selection{failed: true}, v1alpha1.RequestReplayFailed, mark, map[string]string{v1alpha1.AnnotationReplayFailed: mark},
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			made, err := row.selection.request(now)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(made.kind).To(Equal(row.kind))
			g.Expect(made.value).To(Equal(row.value))
			annotations := map[string]string{}
			for annotation, value := range made.annotations {
				annotations[annotation] = ""
				if value != nil {
					annotations[annotation] = *value
				}
			}
			g.Expect(annotations).To(Equal(row.annotations))
		})
	}
}

func TestErrorsAreSaidAsKubectlDoes(t *testing.T) {
	for name, row := range map[string]struct {
		err  error
		says string
		code int
	}{
		"what is not there": {
			apierrors.NewNotFound(resource, "crm"), `Error from server (NotFound): webhooksubscriptions.postbus.dev "crm" not found`, ExitNotDone,
		},
		"what is forbidden": {
			fmt.Errorf("annotate: %w", apierrors.NewForbidden(resource, "crm", errors.New("no right"))),
			`Error from server (Forbidden): webhooksubscriptions.postbus.dev "crm" is forbidden: no right`, ExitNotDone,
		},
		"nobody in particular": {
			apierrors.NewUnauthorized("Unauthorized"), "error: You must be logged in to the server (Unauthorized)", ExitNotDone,
		},
		"what has no reason": {
			&apierrors.StatusError{ErrStatus: metav1.Status{Message: "out of order"}}, "Error from server: out of order", ExitNotDone,
		},
		"anything else":        {errors.New("no such context"), "error: no such context", ExitNotDone},
		"an answer that waits": {fmt.Errorf("%w waiting", errTimeout), "error: timed out waiting", ExitTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			var out bytes.Buffer
			g.Expect(report(t.Context(), &out, row.err)).To(Equal(row.code))
			g.Expect(out.String()).To(Equal(row.says + "\n"))
		})
	}
	g := NewWithT(t)
	var out bytes.Buffer
	g.Expect(report(t.Context(), &out, nil)).To(Equal(ExitDone))
	g.Expect(report(t.Context(), &out, errNotDone)).To(Equal(ExitNotDone))
	ended, end := context.WithCancel(t.Context())
	end()
	g.Expect(report(ended, &out, ended.Err())).To(Equal(ExitInterrupted))
	g.Expect(out.String()).To(BeEmpty())
}
