package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// The exit codes of check.
const (
	exitBlocked   = 3
	exitUndecided = 4
)

// budgetTrailer is the trailer with which the service states how many calls to
// Partner Center it may make a minute.
const budgetTrailer = "eligibility-budget-per-minute"

// checkChunk is the number of customers in one call: small enough that answers
// arrive all the time.
const checkChunk = 100

// checkFlags are the flags of the check command.
type checkFlags struct {
	service serviceFlags

	segment   string
	partner   string
	operation string
	json      bool
	timeout   time.Duration
	retryFor  time.Duration
}

func newCheckCommand() *cobra.Command {
	var flags checkFlags
	cmd := &cobra.Command{
		Use:   "check ID... | -",
		Short: "Ask a running service whether customers may buy",
		Long: `check asks a running service over gRPC about one customer or thousands. With
"-" it reads the customer IDs from standard input, one a line, in UTF-8 or, with a
byte order mark, UTF-16. Every ID gets a line, in the order given, also one that is
none or whose call failed.

With "-", a customer who cannot be answered for now, because the budget of calls is
spent or Partner Center is unavailable, is asked about again when the service says,
for as long as --retry-for; in an outage, counted from the last answer that was
final. If Partner Center answers about others but fails eight times about one
customer, that customer stays undecided. Progress goes to standard error: to a
terminal all the time, to a file once a minute.

Exit code: 4 if any customer is undecided, else 3 if any is blocked, else 0.`,
		Example: `  eligibilityd check a0000000-0000-4000-8000-000000000001
  eligibilityd check --segment education --json - < customers.txt
  eligibilityd check --partner eu --operation renewal - < customers.txt`,
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			question, err := flags.question()
			if err != nil {
				return usageError(cmd, err)
			}
			if flags.timeout <= 0 {
				return usageError(cmd, errors.New("--timeout must be more than 0"))
			}
			ids, err := customerIDs(args, cmd.InOrStdin())
			if err != nil {
				return usageError(cmd, err)
			}
			if !cmd.Flags().Changed("retry-for") && !slices.Contains(args, "-") {
				flags.retryFor = 0
			}
			conn, err := flags.service.connect()
			if err != nil {
				return usageError(cmd, err)
			}
			defer func() { _ = conn.Close() }()
			return check(cmd.Context(), conn, flags, question, ids, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	flags.service.register(cmd)
	f.StringVar(&flags.segment, "segment", "commercial", "segment of what is sold: commercial, education, government or nonprofit")
	f.StringVar(&flags.partner, "partner", "", "partner who sells (default the service's default partner)")
	f.StringVar(&flags.operation, "operation", "purchase", "what the order does: purchase, seat_increase, upgrade, renewal, seat_reduction or cancellation")
	f.BoolVar(&flags.json, "json", false, "print one JSON object a customer instead of a table")
	f.DurationVar(&flags.timeout, "timeout", 30*time.Second, "how long one call of up to 100 customers may take")
	f.DurationVar(&flags.retryFor, "retry-for", time.Hour, "how long a customer who cannot be answered for now is asked about again; 0 without \"-\"")
	return cmd
}

// question returns the question that is asked about each customer.
func (f *checkFlags) question() (*eligibilityv1.CheckEligibilityRequest, error) {
	segment, err := parseEnum("segment", f.segment, eligibilityv1.Segment_value)
	if err != nil {
		return nil, err
	}
	operation, err := parseEnum("operation", f.operation, eligibilityv1.Operation_value)
	if err != nil {
		return nil, err
	}
	return &eligibilityv1.CheckEligibilityRequest{
		Segment: eligibilityv1.Segment(segment), Operation: eligibilityv1.Operation(operation), Partner: f.partner,
	}, nil
}

// parseEnum parses the value of a flag whose values are those of an enumeration of
// the same name, in any case, in their short form or as in the API.
func parseEnum(flag, word string, values map[string]int32) (int32, error) {
	prefix := strings.ToUpper(flag) + "_"
	name := strings.ReplaceAll(strings.ToUpper(strings.TrimSpace(word)), "-", "_")
	if !strings.HasPrefix(name, prefix) {
		name = prefix + name
	}
	number, known := values[name]
	if known && number != 0 {
		return number, nil
	}
	words := slices.SortedFunc(maps.Keys(values), func(a, b string) int { return cmp.Compare(values[a], values[b]) })
	for i := range words {
		words[i] = strings.ToLower(strings.TrimPrefix(words[i], prefix))
	}
	return 0, fmt.Errorf("--%s %q is none of %s", flag, word, strings.Join(words[1:], ", ")) // the first is unspecified
}

// check asks about ids and prints the answers in their order. Every ID gets a line:
// if one cannot be sent, or a call fails, the others are not affected.
func check(ctx context.Context, conn *service, flags checkFlags, question *eligibilityv1.CheckEligibilityRequest, ids []string, out, progressOut io.Writer) error {
	run := &checkRun{
		ids: ids, retryFor: flags.retryFor, printer: newPrinter(flags.json, out), progress: newProgress(len(ids), progressOut),
		asker:    asker{client: eligibilityv1.NewEligibilityServiceClient(conn), timeout: flags.timeout, question: question},
		finished: make(map[int]outcome),
	}
	if err := run.run(ctx); err != nil {
		return err
	}
	if run.failure != nil {
		return &exitError{code: exitUndecided, err: fmt.Errorf("%s: %d of %d customers were not answered: %w",
			flags.service.address, run.unanswered, len(ids), conn.explain(ctx, run.failure))}
	}
	return run.total.exit()
}

// asker asks a service about customers, chunk by chunk.
type asker struct {
	client   eligibilityv1.EligibilityServiceClient
	timeout  time.Duration // of one call
	question *eligibilityv1.CheckEligibilityRequest

	answered bool  // a call has succeeded
	over     error // why further calls are hopeless; nil if they are not
	budget   int   // calls to Partner Center a minute that the service may make; 0 if it has not stated them
}

// outcome is what is known about a customer.
type outcome struct {
	*eligibilityv1.BatchCheckEligibilityResult

	failure error         // of the whole call; nil if the service has answered
	again   time.Duration // after which to ask again; 0 if that does not help
}

// about returns an outcome for each ID.
func (a *asker) about(ctx context.Context, ids []string) []outcome {
	outcomes := make([]outcome, len(ids))
	sent := make([]string, 0, len(ids))
	places := make([]int, 0, len(ids)) // index in sent → index in ids
	for i, id := range ids {
		if fault := unsendable(id); fault != "" {
			outcomes[i].BatchCheckEligibilityResult = failed(codes.InvalidArgument, "INVALID_ARGUMENT", fault)
			continue
		}
		sent, places = append(sent, id), append(places, i)
	}
	if len(sent) == 0 {
		return outcomes
	}
	answers, err := a.call(ctx, sent)
	for i, place := range places {
		if err != nil {
			outcomes[place] = outcome{failed(status.Code(err), "", "The call failed."), err, a.againAfter(err)}
			continue
		}
		outcomes[place] = outcome{answers[i], nil, againAfter(answers[i])}
	}
	a.answered = a.answered || err == nil
	switch {
	case ctx.Err() != nil:
		a.over = err
	case !a.answered && hopeless(status.Code(err)):
		a.over = err
	}
	return outcomes
}

// hopeless reports whether a service that has not answered yet, and fails with this
// code, will fail with it again.
func hopeless(code codes.Code) bool {
	switch code {
	case codes.Unavailable, codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented:
		return true
	default:
		return false
	}
}

// call asks about ids in one call.
func (a *asker) call(ctx context.Context, ids []string) ([]*eligibilityv1.BatchCheckEligibilityResult, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	req := &eligibilityv1.BatchCheckEligibilityRequest{}
	for _, id := range ids {
		req.Requests = append(req.Requests, &eligibilityv1.CheckEligibilityRequest{
			CustomerId: id, Segment: a.question.GetSegment(), Operation: a.question.GetOperation(), Partner: a.question.GetPartner(),
		})
	}
	var trailer metadata.MD
	resp, err := a.client.BatchCheckEligibility(ctx, req, grpc.WaitForReady(false), grpc.Trailer(&trailer))
	if err != nil {
		return nil, err
	}
	if stated := trailer.Get(budgetTrailer); len(stated) == 1 {
		if perMinute, err := strconv.Atoi(stated[0]); err == nil && perMinute > 0 {
			a.budget = perMinute
		}
	}
	if len(resp.GetResults()) != len(ids) {
		return nil, fmt.Errorf("%d results for %d customers", len(resp.GetResults()), len(ids))
	}
	return resp.GetResults(), nil
}

// leastPause is the least time after which a customer is asked about again.
const leastPause = time.Second

// againAfter is when to ask again after a call that failed as a whole: if the
// service asks for that, if it was too slow, or if it has answered before and is
// perhaps being restarted, or the token replaced.
func (a *asker) againAfter(err error) time.Duration {
	if delay := retryDelay(err); delay > 0 {
		return delay
	}
	failure := status.Convert(err)
	perhapsReplaced := failure.Code() == codes.Unavailable || failure.Code() == codes.Unauthenticated
	if failure.Code() == codes.DeadlineExceeded || perhapsReplaced && a.answered {
		return leastPause
	}
	return 0
}

// againAfter is when to ask again about a customer: 0 for an answer that is a
// decision, and for a failure that asking again does not end.
func againAfter(result *eligibilityv1.BatchCheckEligibilityResult) time.Duration {
	if delay := result.GetError().GetRetryAfter(); delay != nil {
		return max(delay.AsDuration(), leastPause)
	}
	for _, reason := range result.GetResponse().GetReasons() {
		if reason.GetCode() == eligibilityv1.ReasonCode_REASON_CODE_UNDECIDABLE {
			return max(time.Until(result.GetResponse().GetRecheckTime().AsTime()), leastPause)
		}
	}
	return 0
}

// failed is the result of an ID that the service has not answered.
func failed(code codes.Code, reason, message string) *eligibilityv1.BatchCheckEligibilityResult {
	return &eligibilityv1.BatchCheckEligibilityResult{
		Result: &eligibilityv1.BatchCheckEligibilityResult_Error{Error: &eligibilityv1.BatchCheckEligibilityError{
			Code: int32(code), Reason: reason, Message: message, //nolint:gosec // gRPC codes end at 16
		}},
	}
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
