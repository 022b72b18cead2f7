// Package command answers: what does an operator say to a subscription?
//
// Its verbs are spoken through the API server, as kubectl is: they read the
// WebhookSubscription, annotate it, and wait for the answer in its status. So they
// need no way to the processes of Postbus, and may do what RBAC allows. The same
// verbs are a plugin of kubectl, see PluginFile.
package command

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// The verbs need get, watch and patch of WebhookSubscriptions. kubectl get, and the annotation
// that rotates an ApiKey, need the rest. Never update: without it patch changes annotations
// only, see config/policies.
// +kubebuilder:rbac:groups=postbus.dev,resources=apikeys;webhooksubscriptions,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=postbus.dev,resources=contactlists,verbs=get;list;watch

const (
	// PluginFile is the name by which kubectl finds the program as a plugin.
	PluginFile = "kubectl-postbus"
	// PluginName is how people call it then.
	PluginName = "kubectl postbus"
)

// The exit codes.
const (
	// ExitDone: what was asked for is done.
	ExitDone = 0
	// ExitNotDone: it is not, because Postbus refused it, the callback did not
	// take it, or the API server can't be asked.
	ExitNotDone = 1
	// ExitUsage: the command line makes no sense. Nothing was asked for.
	ExitUsage = 2
	// ExitTimeout: no answer came in time. The request stands.
	ExitTimeout = 3
	// ExitInterrupted: it was ended by a signal. The request stands.
	ExitInterrupted = 130
)

const exitCodes = `Exit codes: 0 done; 1 refused, failed, or the API server can't be asked; 2 the command line makes no sense;
3 no answer came in time, the request stands.`

// verbs makes the command of each verb.
var verbs = map[string]func(*options) *cobra.Command{
	"attempts":   attemptsCommand,
	"reactivate": reactivateCommand,
	"replay":     replayCommand,
	"test":       testCommand,
}

// Knows tells whether a word is a verb of this package.
func Knows(word string) bool { return verbs[word] != nil }

// Run runs the command line of a program that people call by this name, and
// returns its exit code. Errors are written as kubectl does.
func Run(ctx context.Context, program string, arguments []string, streams genericiooptions.IOStreams) int {
	root := &cobra.Command{
		Use:   strings.ReplaceAll(program, " ", "-"),
		Short: "Look at the calls of WebhookSubscriptions, and have events sent again",
		Long: `Look at the calls of WebhookSubscriptions, and have events sent again.

A verb works on one WebhookSubscription of the namespace, through the API server.

` + exitCodes,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: program},
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(command *cobra.Command, arguments []string) error {
			if len(arguments) > 0 {
				return usageError(command, fmt.Errorf("unknown command %q", arguments[0]))
			}
			return nil
		},
		RunE: func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetArgs(arguments)
	root.SetOut(streams.Out)
	root.SetErr(streams.ErrOut)
	root.SetFlagErrorFunc(usageError)
	config := genericclioptions.NewConfigFlags(true)
	config.AddFlags(root.PersistentFlags())
	for _, name := range slices.Sorted(maps.Keys(verbs)) {
		o := &options{streams: streams, config: config, now: time.Now}
		command := verbs[name](o)
		command.Args = o.takeName
		command.Example = strings.ReplaceAll(command.Example, "{program}", program)
		command.PreRunE = func(command *cobra.Command, _ []string) error { return o.output.check(command) }
		root.AddCommand(command)
	}
	return report(ctx, streams.ErrOut, root.ExecuteContext(ctx))
}

// options are what all verbs have.
type options struct {
	streams genericiooptions.IOStreams
	config  *genericclioptions.ConfigFlags
	output  output
	now     func() time.Time
	// subscription is the name that was given.
	subscription string
}

// typeNames are what may stand before a name, with a slash behind it, as kubectl
// prints and takes it.
var typeNames = []string{
	"", "webhooksubscription", "webhooksubscriptions", "webhooksubscription." + group, "webhooksubscriptions." + group,
}

// takeName takes the one argument that a verb has.
func (o *options) takeName(command *cobra.Command, arguments []string) error {
	if len(arguments) != 1 {
		return usageError(command, fmt.Errorf("%s takes the name of one WebhookSubscription, not %d arguments", command.Name(), len(arguments)))
	}
	kind, name, found := strings.Cut(arguments[0], "/")
	if !found {
		kind, name = "", arguments[0]
	}
	if name == "" || !slices.Contains(typeNames, kind) {
		return usageError(command, fmt.Errorf("%q names no WebhookSubscription", arguments[0]))
	}
	o.subscription = name
	return nil
}

// namespace returns the namespace that flags and kubeconfig say.
func (o *options) namespace() (string, error) {
	namespace, _, err := o.config.ToRawKubeConfigLoader().Namespace()
	return namespace, err
}

// errNotDone ends a command whose answer, which is printed already, says that
// what was asked for is not done.
var errNotDone = errors.New("not done")
