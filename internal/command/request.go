package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"postbus.dev/postbus/api/v1alpha1"
)

// defaultTimeout is how long an answer is waited for.
const defaultTimeout = time.Minute

// request is one thing to ask for, by annotations.
type request struct {
	kind v1alpha1.RequestType
	// value is what status names the request by.
	value string
	// annotations make the request; those that are nil are removed.
	annotations map[string]*string
	// replays is what the replay sends that it begins, empty where it begins none.
	replays v1alpha1.ReplayContent
	// done is the word for a request that was done.
	done string
}

// asking are the flags of verbs that ask for something.
type asking struct {
	wait    bool
	timeout time.Duration
}

func (a *asking) addFlags(command *cobra.Command, replays bool) {
	what := "for the answer"
	if replays {
		command.Flags().BoolVar(&a.wait, "wait", false, "Wait until the replay has ended, and say how far it is.")
		what += ", and with --wait for the end of the replay (no limit then unless this is given)"
	}
	command.Flags().DurationVar(&a.timeout, "timeout", defaultTimeout, "How long to wait "+what+"; 0 means no limit.")
}

// limit returns a context that ends with the timeout.
func (a *asking) limit(command *cobra.Command) (context.Context, context.CancelFunc) {
	if a.timeout == 0 || a.wait && !command.Flags().Changed("timeout") {
		return context.WithCancel(command.Context())
	}
	return context.WithTimeoutCause(command.Context(), a.timeout, errTimeout)
}

// ask asks for something, waits for the answer, and for the replay where that is
// wanted, and prints what became of it.
func (o *options) ask(command *cobra.Command, a asking, wanted request) error {
	t, err := o.find()
	if err != nil {
		return err
	}
	ctx, cancel := a.limit(command)
	defer cancel()
	if err := t.annotate(ctx, wanted.annotations); err != nil {
		return err
	}
	answer, subscription, err := waitForAnswer(ctx, t, wanted)
	if err != nil {
		return explain(ctx, t, wanted, err)
	}
	told := v1alpha1.WebhookSubscriptionStatus{Requests: []v1alpha1.RequestStatus{answer}}
	if !o.output.forPrograms() {
		if err := o.printAnswer(t, wanted, answer); err != nil {
			return err
		}
	}
	replay := replayOf(subscription, wanted, answer)
	if replay != nil && a.wait {
		if replay, err = o.waitForReplay(ctx, t, *replay); err != nil {
			return explain(ctx, t, wanted, err)
		}
	}
	told.Replay = replay
	if err := o.printForPrograms(t, told); err != nil {
		return err
	}
	if answer.Result != v1alpha1.RequestDone || a.wait && !succeeded(replay) {
		return errNotDone
	}
	return nil
}

// waitForAnswer waits until status answers the request.
func waitForAnswer(ctx context.Context, t *target, wanted request) (answer v1alpha1.RequestStatus, at *v1alpha1.WebhookSubscription, err error) {
	err = t.follow(ctx, func(subscription *v1alpha1.WebhookSubscription) (bool, error) {
		for name, value := range wanted.annotations {
			if now, has := subscription.Annotations[name]; has != (value != nil) || has && now != *value {
				return false, errors.New("another request took the place of this one before it was answered")
			}
		}
		for _, told := range subscription.Status.Requests {
			if told.Type == wanted.kind && told.Value == wanted.value && told.Result != v1alpha1.RequestPending {
				answer, at = told, subscription
				return true, nil
			}
		}
		return false, nil
	})
	return answer, at, err
}

// replayOf returns the replay that a request began, nil where it began none.
func replayOf(subscription *v1alpha1.WebhookSubscription, wanted request, answer v1alpha1.RequestStatus) *v1alpha1.ReplayStatus {
	replay := subscription.Status.Replay
	if wanted.replays == "" || answer.Result != v1alpha1.RequestDone || replay == nil || replay.Of != wanted.replays ||
		answer.Time == nil || replay.StartedAt.Before(answer.Time) {
		return nil
	}
	return replay
}

// succeeded tells whether a replay, if there is one, has sent all that it had.
func succeeded(replay *v1alpha1.ReplayStatus) bool {
	return replay == nil || replay.State == v1alpha1.ReplayCompleted && number(replay.Failed) == 0
}

// waitForReplay waits until a replay has ended, says how far it is, and returns
// how it ended.
func (o *options) waitForReplay(ctx context.Context, t *target, replay v1alpha1.ReplayStatus) (*v1alpha1.ReplayStatus, error) {
	progress := o.progress()
	last := ""
	err := t.follow(ctx, func(subscription *v1alpha1.WebhookSubscription) (bool, error) {
		now := subscription.Status.Replay
		if now == nil || now.Of != replay.Of || !now.StartedAt.Equal(&replay.StartedAt) {
			return false, errors.New("another replay took the place of this one, so how it ended is not known")
		}
		replay = *now
		if line := describe(replay); line != last {
			fmt.Fprintf(progress, "%s %s\n", t, line)
			last = line
		}
		return replay.State != v1alpha1.ReplayRunning, nil
	})
	return &replay, err
}

// describe says how far a replay is.
func describe(replay v1alpha1.ReplayStatus) string {
	counts := fmt.Sprintf("%d of %d events sent", number(replay.Sent), number(replay.Total))
	if failed := number(replay.Failed); failed > 0 {
		counts += fmt.Sprintf(", %d failed and set aside", failed)
	}
	switch replay.State {
	case v1alpha1.ReplayCompleted:
		return "replay completed: " + counts
	case v1alpha1.ReplayInterrupted:
		return "replay interrupted, because the callback was deactivated; what is left is kept: " + counts
	default:
		return "replaying: " + counts
	}
}

func number(value *int64) int64 {
	if value == nil {
		return 0
	}
	return *value
}

// progress is where what goes on is told: not where a program reads.
func (o *options) progress() io.Writer {
	if o.output.forPrograms() {
		return o.streams.ErrOut
	}
	return o.streams.Out
}

// printAnswer prints an answer for people.
func (o *options) printAnswer(t *target, wanted request, answer v1alpha1.RequestStatus) error {
	if o.output.format != formatWide {
		words := map[v1alpha1.RequestResult]string{
			v1alpha1.RequestDone: wanted.done, v1alpha1.RequestRefused: "refused", v1alpha1.RequestFailed: "failed",
		}
		_, err := fmt.Fprintf(o.streams.Out, "%s %s: %s\n", t, words[answer.Result], answer.Message)
		return err
	}
	at := ""
	if answer.Time != nil {
		at = answer.Time.UTC().Format(time.RFC3339)
	}
	table := &metav1.Table{
		ColumnDefinitions: []metav1.TableColumnDefinition{
			column("Type", false), column("Result", false), column("Time", false), column("Value", false), column("Message", false),
		},
		Rows: []metav1.TableRow{{Cells: []any{string(answer.Type), string(answer.Result), at, answer.Value, answer.Message}}},
	}
	return o.output.newTable().PrintObj(table, o.streams.Out)
}

// printForPrograms prints the part of status that tells of the request.
func (o *options) printForPrograms(t *target, told v1alpha1.WebhookSubscriptionStatus) error {
	switch {
	case o.output.format == formatName:
		_, err := fmt.Fprintln(o.streams.Out, t)
		return err
	case o.output.forPrograms():
		return o.output.document(o.streams.Out, told)
	default:
		return nil
	}
}

// explain says what is left where a wait ended early.
func explain(ctx context.Context, t *target, wanted request, err error) error {
	if errors.Is(context.Cause(ctx), errTimeout) {
		return fmt.Errorf("%w waiting for the request %s %q of %s, which stands: status.requests and status.replay tell what becomes of it",
			errTimeout, wanted.kind, wanted.value, t)
	}
	return err
}
