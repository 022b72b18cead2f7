package command

import (
	"time"

	"github.com/spf13/cobra"

	"postbus.dev/postbus/api/v1alpha1"
)

func testCommand(o *options) *cobra.Command {
	var a asking
	command := &cobra.Command{
		Use:   "test SUBSCRIPTION",
		Short: "Call the callback once with an event that is marked as a test",
		Long: `Call the callback once with an event that is marked as a test (postbus-test: true), whatever the state of the
subscription, and print what it answered. The exit code is 1 when it did not take the event.

` + exitCodes,
		Example: `  {program} test crm`,
		RunE: func(command *cobra.Command, _ []string) error {
			value := o.now().UTC().Format(time.RFC3339Nano)
			return o.ask(command, a, request{
				kind: v1alpha1.RequestTest, value: value, done: "tested",
				annotations: map[string]*string{v1alpha1.AnnotationTest: &value},
			})
		},
	}
	a.addFlags(command, false)
	o.output.addFlag(command, formatJSON, formatYAML, formatWide, formatName)
	return command
}
