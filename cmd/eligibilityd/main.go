// Command eligibilityd is the purchase gate for Microsoft CSP partners: it
// answers over gRPC and REST whether a customer may buy, right now.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	redislog "github.com/redis/go-redis/v9/logging"
	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel"
	"go.uber.org/zap"
	"google.golang.org/grpc/grpclog"

	"github.com/eligibilityd/eligibilityd/internal/app"
	"github.com/eligibilityd/eligibilityd/internal/logging"
	"github.com/eligibilityd/eligibilityd/internal/tokenstore"
)

// The exit codes that several commands share.
const (
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	quietLibraries()
	os.Exit(run(app.WithSignals(context.Background()), newRootCommand()))
}

// quietLibraries keeps libraries from printing to standard error in their own
// format: a write may block or contain a request (AZURE_SDK_GO_LOGGING). If
// gRPC, Redis or the vault fails, our own log and metrics report it. Output of
// the standard library's logger becomes a record.
func quietLibraries() {
	redislog.Disable()
	tokenstore.SilenceSDK()
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	logger, _ := logging.New(os.Stderr, logging.Config{Level: zap.WarnLevel})
	logger = logging.Limit(logger, logging.NewLimiter(20, time.Second))
	_, _ = zap.RedirectStdLogAt(logger, zap.WarnLevel)            // fails only if the level is unknown
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(_ error) {})) // the exporters report failures themselves
}

// run executes the command line and returns the exit code. It is the only place
// that prints errors.
func run(ctx context.Context, root *cobra.Command) int {
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	code := exitFailure
	if coded, ok := errors.AsType[*exitError](err); ok {
		code, err = coded.code, coded.err
	}
	if err != nil {
		stderr := logging.NewQueue(root.ErrOrStderr()) // a pipe that nothing reads must not delay the exit
		fmt.Fprintln(stderr, "eligibilityd:", err)
		_ = stderr.Sync()
	}
	return code
}

// exitError ends the program with its own exit code; if err is nil, nothing
// else is printed.
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
and qualifications, keeps the answers in Redis and in process, and applies
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
		newHealthCommand(),
		newCheckCommand(),
		newWatchCommand(),
		newReviewsCommand(),
		newExplainCommand(),
		newDoctorCommand(),
		newLoginCommand(),
		newTokenCommand(),
		newWebhooksCommand(),
		newLogCommand(),
		newReplayCommand(),
		newConfigCommand(),
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
