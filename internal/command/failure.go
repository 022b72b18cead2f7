package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"syscall"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// UsageError says that a command line makes no sense.
type UsageError struct {
	// Command is the command as people call it.
	Command string
	Err     error
}

func usageError(command *cobra.Command, err error) error {
	return &UsageError{Command: command.CommandPath(), Err: err}
}

func (e *UsageError) Error() string {
	return fmt.Sprintf("%s\nSee '%s --help' for usage.", e.Err, e.Command)
}

func (e *UsageError) Unwrap() error { return e.Err }

// errTimeout: what was waited for did not come in time.
var errTimeout = errors.New("timed out")

// report writes an error and returns the exit code.
func report(ctx context.Context, out io.Writer, err error) int {
	var usage *UsageError
	switch {
	case err == nil:
		return ExitDone
	case errors.Is(err, errNotDone):
		return ExitNotDone
	case ctx.Err() != nil:
		return ExitInterrupted
	}
	fmt.Fprintln(out, message(err))
	switch {
	case errors.As(err, &usage):
		return ExitUsage
	case errors.Is(err, errTimeout):
		return ExitTimeout
	default:
		return ExitNotDone
	}
}

// message says an error in the words of kubectl.
func message(err error) string {
	var (
		status  apierrors.APIStatus
		calling *url.Error
	)
	switch {
	case errors.As(err, &status):
		return serverMessage(status.Status())
	case errors.As(err, &calling) && errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("The connection to the server %s was refused - did you specify the right host or port?", hostOf(calling))
	case errors.As(err, &calling):
		return fmt.Sprintf("Unable to connect to the server: %v", calling.Err)
	default:
		return "error: " + err.Error()
	}
}

func serverMessage(status metav1.Status) string {
	switch status.Reason {
	case metav1.StatusReasonUnauthorized:
		return "error: You must be logged in to the server (" + string(status.Reason) + ")"
	case metav1.StatusReasonUnknown:
		return "Error from server: " + status.Message
	default:
		return fmt.Sprintf("Error from server (%s): %s", status.Reason, status.Message)
	}
}

func hostOf(calling *url.Error) string {
	if address, err := url.Parse(calling.URL); err == nil {
		return address.Host
	}
	return calling.URL
}
