package command

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/store"
)

// selection is what a replay is to send, as the flags say it.
type selection struct {
	since, until, event string
	failed              bool
}

func replayCommand(o *options) *cobra.Command {
	var (
		a asking
		s selection
	)
	command := &cobra.Command{
		Use:   "replay SUBSCRIPTION (--since=TIME [--until=TIME] | --event=ID | --failed)",
		Short: "Send events again",
		Long: `Send events again, those of a time, one, or those that were set aside, under the webhook-id that they always had
and marked postbus-replay: true. Live events go on beside them.

A TIME is RFC 3339, such as 2026-11-20T00:00:00Z, or a duration back from now, such as 90m, 2h or 5d.

` + exitCodes + ` With --wait, 1 also means that the replay
was interrupted, or that events of it failed.`,
		Example: `  # What happened in the last two hours
  {program} replay crm --since=2h --wait

  # A day
  {program} replay crm --since=2026-11-20T00:00:00Z --until=2026-11-21T00:00:00Z

  # One event, by the id that receivers know as webhook-id
  {program} replay crm --event=evt_000000000A7_4SLZ7QWVEKXN2RZMXJ5YCG3UTA

  # What was set aside because it could not be delivered
  {program} replay crm --failed`,
		RunE: func(command *cobra.Command, _ []string) error {
			wanted, err := s.request(o.now())
			if err != nil {
				return usageError(command, err)
			}
			return o.ask(command, a, wanted)
		},
	}
	command.Flags().StringVar(&s.since, "since", "", "Send the events from this time on: RFC 3339, or a duration back from now (2h, 5d).")
	command.Flags().StringVar(&s.until, "until", "", "Send the events up to this time; now by default.")
	command.Flags().StringVar(&s.event, "event", "", "Send the event of this id.")
	command.Flags().BoolVar(&s.failed, "failed", false, "Send the events that were set aside.")
	a.addFlags(command, true)
	o.output.addFlag(command, formatJSON, formatYAML, formatWide, formatName)
	return command
}

// request returns the request that the flags mean.
func (s selection) request(now time.Time) (request, error) {
	if err := s.check(); err != nil {
		return request{}, err
	}
	// Behind a space stands what makes a new request of it.
	mark := now.UTC().Format(time.RFC3339Nano)
	wanted := request{done: "replaying", annotations: map[string]*string{}}
	switch {
	case s.failed:
		wanted.kind, wanted.value, wanted.replays = v1alpha1.RequestReplayFailed, mark, v1alpha1.ReplayOfFailed
		wanted.annotations[v1alpha1.AnnotationReplayFailed] = &wanted.value
		return wanted, nil
	case s.event != "":
		wanted.kind, wanted.value, wanted.replays = v1alpha1.RequestReplayEvent, s.event+" "+mark, v1alpha1.ReplayOfEvent
		wanted.annotations[v1alpha1.AnnotationReplayEvent] = &wanted.value
		return wanted, nil
	}
	since, err := moment("--since", s.since, now)
	if err != nil {
		return request{}, err
	}
	if since.After(now) {
		return request{}, fmt.Errorf("--since (%s) is in the future", s.since)
	}
	from, to := since.UTC().Format(time.RFC3339Nano)+" "+mark, ""
	wanted.annotations[v1alpha1.AnnotationReplaySince] = &from
	wanted.annotations[v1alpha1.AnnotationReplayUntil] = nil
	if s.until != "" {
		until, err := moment("--until", s.until, now)
		if err != nil {
			return request{}, err
		}
		if until.Before(since) {
			return request{}, fmt.Errorf("--until (%s) is before --since (%s)", s.until, s.since)
		}
		to = until.UTC().Format(time.RFC3339Nano)
		wanted.annotations[v1alpha1.AnnotationReplayUntil] = &to
	}
	wanted.kind, wanted.value, wanted.replays = v1alpha1.RequestReplayRange, from+"/"+to, v1alpha1.ReplayOfRange
	return wanted, nil
}

// check refuses flags that don't go together.
func (s selection) check() error {
	chosen := 0
	for _, given := range []bool{s.since != "", s.event != "", s.failed} {
		if given {
			chosen++
		}
	}
	_, isEvent := store.EventPosition(s.event)
	switch {
	case chosen > 1:
		return errors.New("--since, --event and --failed exclude each other")
	case s.until != "" && s.since == "":
		return errors.New("--until needs --since, where the range begins")
	case chosen == 0:
		return errors.New("one of --since, --event and --failed must say what to send again")
	case s.event != "" && !isEvent:
		return fmt.Errorf("--event (%s) is no id of an event, such as evt_000000000A7_4SLZ7QWVEKXN2RZMXJ5YCG3UTA", s.event)
	}
	return nil
}

// moment reads a time, or a duration back from now.
func moment(flag, text string, now time.Time) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	if back, err := model.ParseDuration(text); err == nil {
		return now.Add(-time.Duration(back)), nil
	}
	return time.Time{}, fmt.Errorf("%s (%s) is neither a time such as 2026-11-20T00:00:00Z nor a duration such as 2h or 5d", flag, text)
}
