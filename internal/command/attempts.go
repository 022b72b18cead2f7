package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/liggitt/tabwriter"
	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/printers"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/sqlite"
)

// storeInterval is how often a store is looked at for new attempts.
const storeInterval = time.Second

func attemptsCommand(o *options) *cobra.Command {
	var (
		watch bool
		file  string
	)
	command := &cobra.Command{
		Use:   "attempts SUBSCRIPTION",
		Short: "List the last calls of a subscription's callback",
		Long: `List the last calls of a subscription's callback, the newest last: 10 from status, or 200 from the store where that
is at hand. A store is read beside the process that works with it. Status is mostly less than 10 seconds behind; of more than
10 calls within 5 seconds --watch shows the last 10, and with --store all.

` + exitCodes,
		Example: `  {program} attempts crm
  {program} attempts crm -o wide --watch
  {program} attempts crm --store=postbus.db -n marketing -o json`,
		RunE: func(command *cobra.Command, _ []string) error {
			l := &listing{o: o, watch: watch, table: o.output.newTable(), tabs: printers.GetNewTabWriter(o.streams.Out)}
			if file != "" {
				return l.fromStore(command.Context(), file)
			}
			return l.fromStatus(command.Context())
		},
	}
	command.Flags().BoolVarP(&watch, "watch", "w", false, "After listing them, print new ones as they come.")
	command.Flags().StringVar(&file, "store", "", "The SQLite file of the store, to read the last 200 from instead of status.")
	o.output.addFlag(command, formatJSON, formatYAML, formatWide)
	return command
}

// listing prints attempts, each once.
type listing struct {
	o     *options
	watch bool
	table printers.ResourcePrinter
	tabs  *tabwriter.Writer
	// seen are those that were printed and may come again; nil before the first time.
	seen []v1alpha1.Attempt
}

func (l *listing) fromStatus(ctx context.Context) error {
	t, err := l.o.find()
	if err != nil {
		return err
	}
	return t.follow(ctx, func(subscription *v1alpha1.WebhookSubscription) (bool, error) {
		attempts := slices.Clone(subscription.Status.RecentAttempts)
		slices.Reverse(attempts)
		return !l.watch, l.show(attempts)
	})
}

func (l *listing) fromStore(ctx context.Context, file string) (err error) {
	namespace, err := l.o.namespace()
	if err != nil {
		return err
	}
	reader, err := sqlite.OpenReader(ctx, file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	for {
		kept, err := reader.LoadAttempts(ctx, store.SubscriptionKey{Namespace: namespace, Name: l.o.subscription})
		if err != nil {
			return err
		}
		attempts := make([]v1alpha1.Attempt, 0, len(kept))
		for _, attempt := range kept {
			attempts = append(attempts, attempt.Status())
		}
		if err := l.show(attempts); err != nil || !l.watch {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(storeInterval):
		}
	}
}

// show prints the attempts that were not printed yet. They come oldest first.
func (l *listing) show(attempts []v1alpha1.Attempt) error {
	first := l.seen == nil
	var fresh []v1alpha1.Attempt
	for _, attempt := range attempts {
		if !slices.ContainsFunc(l.seen, func(seen v1alpha1.Attempt) bool { return sameAttempt(seen, attempt) }) {
			fresh = append(fresh, attempt)
		}
	}
	l.seen = append([]v1alpha1.Attempt{}, attempts...)
	out := l.o.streams.Out
	switch {
	case l.o.output.forPrograms() && first && !l.watch:
		newestFirst := slices.Clone(fresh)
		slices.Reverse(newestFirst)
		return l.o.output.document(out, map[string]any{"recentAttempts": slices.Concat([]v1alpha1.Attempt{}, newestFirst)})
	case l.o.output.forPrograms():
		for _, attempt := range fresh {
			if err := l.o.output.document(out, attempt); err != nil {
				return err
			}
		}
		return nil
	case first && len(fresh) == 0:
		fmt.Fprintf(l.o.streams.ErrOut, "No attempts of %s yet.\n", l.o.subscription)
		return nil
	case len(fresh) == 0:
		return nil
	}
	if err := l.table.PrintObj(l.rows(fresh), l.tabs); err != nil {
		return err
	}
	return l.tabs.Flush()
}

func sameAttempt(a, b v1alpha1.Attempt) bool {
	return a.EventID == b.EventID && a.Attempt == b.Attempt && a.Time.Equal(&b.Time)
}

// rows returns a table of attempts.
func (l *listing) rows(attempts []v1alpha1.Attempt) *metav1.Table {
	table := &metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{
		column("Age", false), column("Event", false), column("Type", false), column("Attempt", false), column("Outcome", false),
		column("Status", false), column("Duration", false), column("Time", true), column("Sent by", true),
	}}
	for _, attempt := range attempts {
		status, took, by := "-", "-", "-"
		if attempt.HTTPStatus != nil {
			status = strconv.Itoa(int(*attempt.HTTPStatus))
		}
		if attempt.Duration != nil {
			took = attempt.Duration.Duration.String()
		}
		switch {
		case isTrue(attempt.Replay):
			by = "Replay"
		case isTrue(attempt.Test):
			by = "Test"
		}
		table.Rows = append(table.Rows, metav1.TableRow{Cells: []any{
			duration.HumanDuration(l.o.now().Sub(attempt.Time.Time)), attempt.EventID, attempt.EventType, attempt.Attempt, attempt.Outcome,
			status, took, attempt.Time.UTC().Format(time.RFC3339), by,
		}})
	}
	return table
}

func isTrue(flag *bool) bool { return flag != nil && *flag }
