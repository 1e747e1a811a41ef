// Command eligibilityd is the purchase gate for Microsoft CSP partners: it
// answers over gRPC and REST whether a customer may buy, right now.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	azlog "github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/redis/go-redis/v9/logging"
	"github.com/spf13/cobra"
)

// The exit codes that do not belong to one command only.
const (
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	quietLibraries()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, newRootCommand())
	stop()
	os.Exit(code)
}

// quietLibraries keeps go-redis and the Azure libraries from printing to
// standard error in a form of their own: what goes wrong with Redis or the vault
// is in our log and metrics, and AZURE_SDK_GO_LOGGING would print requests.
func quietLibraries() {
	logging.Disable()
	azlog.SetListener(nil)
}

// run executes the command line and returns the exit code. Errors are printed
// here and nowhere else.
func run(ctx context.Context, root *cobra.Command) int {
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if coded, ok := errors.AsType[*exitError](err); ok {
		if coded.err != nil {
			fmt.Fprintln(root.ErrOrStderr(), "eligibilityd:", coded.err)
		}
		return coded.code
	}
	fmt.Fprintln(root.ErrOrStderr(), "eligibilityd:", err)
	return exitFailure
}

// exitError ends the program with a code of its own; a nil err says nothing more.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "eligibilityd",
		Short: "The purchase gate for Microsoft CSP partners",
		Long: `eligibilityd answers whether a customer of a Microsoft CSP partner may buy,
right now. It asks Partner Center for the customer's account validation status
and qualifications, keeps what it learnt in Redis and in process, and applies
Microsoft's rule.

Start with: eligibilityd dev`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          usageArgs(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(usageError)
	root.AddCommand(
		newServeCommand(),
		newDevCommand(),
		newSimulateCommand(),
		newCheckCommand(),
		newDoctorCommand(),
		newLoginCommand(),
		newVersionCommand(),
	)
	return root
}

// usageArgs makes a misplaced argument a usage error.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError(cmd, err)
		}
		return nil
	}
}

func usageError(cmd *cobra.Command, err error) error {
	return &exitError{code: exitUsage, err: fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
}
