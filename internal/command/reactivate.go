package command

import (
	"errors"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"postbus.dev/postbus/api/v1alpha1"
)

func reactivateCommand(o *options) *cobra.Command {
	var (
		a      asking
		replay bool
	)
	command := &cobra.Command{
		Use:   "reactivate SUBSCRIPTION --replay-events=true|false",
		Short: "Reactivate a subscription whose callback was deactivated",
		Long: `Reactivate a subscription whose callback was deactivated.

--replay-events=true sends the events that were kept meanwhile, before and beside the live ones;
--replay-events=false drops them. It must be said.

` + exitCodes,
		Example: `  # Send what was kept, and wait until it is sent
  {program} reactivate crm --replay-events=true --wait

  # Begin anew, without what was kept
  {program} reactivate crm --replay-events=false`,
		RunE: func(command *cobra.Command, _ []string) error {
			switch {
			case !command.Flags().Changed("replay-events"):
				return usageError(command, errors.New("--replay-events must be given: true sends the events that were kept, false drops them"))
			case a.wait && !replay:
				return usageError(command, errors.New("--wait waits for a replay, and --replay-events=false begins none"))
			}
			value, sends := o.now().UTC().Format(time.RFC3339Nano), strconv.FormatBool(replay)
			wanted := request{
				kind: v1alpha1.RequestReactivate, value: value, done: "reactivated",
				annotations: map[string]*string{v1alpha1.AnnotationReactivate: &value, v1alpha1.AnnotationReplayEvents: &sends},
			}
			if replay {
				wanted.replays = v1alpha1.ReplayOfBuffer
			}
			return o.ask(command, a, wanted)
		},
	}
	command.Flags().BoolVar(&replay, "replay-events", false, "Send the events that were kept (true), or drop them (false). Required.")
	a.addFlags(command, true)
	o.output.addFlag(command, formatJSON, formatYAML, formatWide, formatName)
	return command
}
