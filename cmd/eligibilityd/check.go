package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// The exit codes of check.
const (
	exitBlocked   = 3
	exitUndecided = 4
)

const (
	// checkChunk is the number of customers in one call: small enough that the
	// progress bar moves.
	checkChunk = 100
	// progressFrom is the length from which a list gets a progress bar.
	progressFrom = 2 * checkChunk
)

// checkFlags are the flags of the check command.
type checkFlags struct {
	address string
	segment string
	json    bool
	timeout time.Duration
}

func newCheckCommand() *cobra.Command {
	var flags checkFlags
	cmd := &cobra.Command{
		Use:   "check ID... | -",
		Short: "Ask a running service whether customers may buy",
		Long: `check asks a running service over gRPC about one customer or thousands. With
"-" it reads the customer IDs from standard input, one a line, in UTF-8 or, with a
byte order mark, UTF-16. Every ID gets a line, also one that is none or whose call
failed.

Exit code: 4 if any customer is undecided, else 3 if any is blocked, else 0.`,
		Example: `  eligibilityd check a0000000-0000-4000-8000-000000000001
  eligibilityd check --segment education --json - < customers.txt`,
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			segment, err := parseSegment(flags.segment)
			if err != nil {
				return usageError(cmd, err)
			}
			ids, err := customerIDs(args, cmd.InOrStdin())
			if err != nil {
				return usageError(cmd, err)
			}
			return check(cmd.Context(), flags, segment, ids, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.address, "address", "127.0.0.1:9090", "gRPC address of the service")
	f.StringVar(&flags.segment, "segment", "commercial", "segment of what is sold: commercial, education, government or nonprofit")
	f.BoolVar(&flags.json, "json", false, "print one JSON object a customer instead of a table")
	f.DurationVar(&flags.timeout, "timeout", 30*time.Second, "how long one call of up to 100 customers may take")
	return cmd
}

// parseSegment parses a segment in any case, in its short form or as in the
// API.
func parseSegment(word string) (eligibilityv1.Segment, error) {
	name := strings.ToUpper(strings.TrimSpace(word))
	if !strings.HasPrefix(name, "SEGMENT_") {
		name = "SEGMENT_" + name
	}
	number, known := eligibilityv1.Segment_value[name]
	if !known || number == int32(eligibilityv1.Segment_SEGMENT_UNSPECIFIED) {
		return 0, fmt.Errorf("--segment %q is none of commercial, education, government, nonprofit", word)
	}
	return eligibilityv1.Segment(number), nil
}

// check asks about ids and prints the answers in their order as they arrive.
// Every ID gets a line: if one cannot be sent, or a call fails, the others are
// not affected.
func check(ctx context.Context, flags checkFlags, segment eligibilityv1.Segment, ids []string, out, progressOut io.Writer) error {
	conn, err := grpc.NewClient(flags.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("--address: %w", err)
	}
	defer func() { _ = conn.Close() }()
	asked := asker{client: eligibilityv1.NewEligibilityServiceClient(conn), timeout: flags.timeout, segment: segment}

	bar := progress(len(ids), progressOut)
	printer := newPrinter(flags.json, out)
	var total tally
	for chunk := range slices.Chunk(ids, checkChunk) {
		for i, result := range asked.about(ctx, chunk) {
			total.count(result)
			if err := printer.print(chunk[i], result); err != nil {
				return err
			}
		}
		_ = bar.Add(len(chunk))
	}
	if err := printer.flush(); err != nil {
		return err
	}
	if asked.failure != nil {
		return &exitError{code: exitUndecided, err: fmt.Errorf("%s: %d of %d customers were not answered: %w", flags.address, asked.unanswered, len(ids), asked.failure)}
	}
	return total.exit()
}

// asker asks a service about customers, chunk by chunk.
type asker struct {
	client  eligibilityv1.EligibilityServiceClient
	timeout time.Duration // of one call
	segment eligibilityv1.Segment

	failure    error // of the last call that failed
	over       bool  // further calls would fail in the same way
	unanswered int   // customers in failed calls, or not asked about since
}

// about returns a result for each ID.
func (a *asker) about(ctx context.Context, ids []string) []*eligibilityv1.BatchCheckEligibilityResult {
	results := make([]*eligibilityv1.BatchCheckEligibilityResult, len(ids))
	sent := make([]string, 0, len(ids))
	places := make([]int, 0, len(ids)) // index in sent → index in ids
	for i, id := range ids {
		if fault := unsendable(id); fault != "" {
			results[i] = failed(codes.InvalidArgument, "INVALID_ARGUMENT", fault)
			continue
		}
		sent, places = append(sent, id), append(places, i)
	}
	answers, err := a.call(ctx, sent)
	if err != nil {
		a.failure, a.unanswered = err, a.unanswered+len(sent)
		// The service is unavailable, or the run was interrupted.
		a.over = status.Code(err) == codes.Unavailable || ctx.Err() != nil
	}
	for i, place := range places {
		if err != nil {
			results[place] = failed(status.Code(err), "", "The call failed.")
			continue
		}
		results[place] = answers[i]
	}
	return results
}

// call asks about ids in one call. If there are none, or calls are hopeless, it
// makes no call.
func (a *asker) call(ctx context.Context, ids []string) ([]*eligibilityv1.BatchCheckEligibilityResult, error) {
	if a.over || len(ids) == 0 {
		return nil, a.failure
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	req := &eligibilityv1.BatchCheckEligibilityRequest{}
	for _, id := range ids {
		req.Requests = append(req.Requests, &eligibilityv1.CheckEligibilityRequest{CustomerId: id, Segment: a.segment})
	}
	resp, err := a.client.BatchCheckEligibility(ctx, req, grpc.WaitForReady(false))
	if err != nil {
		return nil, err
	}
	if len(resp.GetResults()) != len(ids) {
		return nil, fmt.Errorf("%d results for %d customers", len(resp.GetResults()), len(ids))
	}
	return resp.GetResults(), nil
}

// failed is the result of an ID that the service has not answered.
func failed(code codes.Code, reason, message string) *eligibilityv1.BatchCheckEligibilityResult {
	return &eligibilityv1.BatchCheckEligibilityResult{
		Result: &eligibilityv1.BatchCheckEligibilityResult_Error{Error: &eligibilityv1.BatchCheckEligibilityError{
			Code: int32(code), Reason: reason, Message: message, //nolint:gosec // gRPC codes end at 16
		}},
	}
}

// progress is a bar for long lists, shown only if the output is a terminal.
func progress(customers int, out io.Writer) *progressbar.ProgressBar {
	file, isFile := out.(*os.File)
	if customers < progressFrom || !isFile || !term.IsTerminal(int(file.Fd())) {
		return progressbar.DefaultSilent(int64(customers))
	}
	return progressbar.NewOptions(customers,
		progressbar.OptionSetWriter(out),
		progressbar.OptionSetDescription("checking"),
		progressbar.OptionShowCount(),
		progressbar.OptionClearOnFinish())
}

// tally collects what the exit code depends on.
type tally struct{ blocked, undecided int }

func (t *tally) count(result *eligibilityv1.BatchCheckEligibilityResult) {
	switch result.GetResponse().GetDecision() {
	case eligibilityv1.Decision_DECISION_ALLOWED:
	case eligibilityv1.Decision_DECISION_BLOCKED:
		t.blocked++
	default:
		t.undecided++
	}
}

func (t *tally) exit() error {
	switch {
	case t.undecided > 0:
		return &exitError{code: exitUndecided}
	case t.blocked > 0:
		return &exitError{code: exitBlocked}
	default:
		return nil
	}
}
