package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// watchFlags are the flags of the watch command.
type watchFlags struct {
	service serviceFlags

	segment     string
	partner     string
	resumeToken string
	resumeFile  string
	json        bool
}

func newWatchCommand() *cobra.Command {
	var flags watchFlags
	cmd := &cobra.Command{
		Use:   "watch [ID... | -]",
		Short: "Print changes of customers' eligibility as a running service finds them out",
		Long: `watch receives changes from a running service over gRPC and prints them until it is
interrupted: of up to 1,000 customers, beginning with their current answers, or,
without an ID, of all customers from now on. With "-" it reads the customer IDs from
standard input, as check does.

If the stream ends or the connection breaks, watch goes on where it was, and prints
each change once. When it is interrupted, it prints the token with which
--resume-token goes on. With --resume-file it goes on after the last message that it
has printed, however it ended: the file is read at the start if it exists, and replaced
after each message. A change shows what was known when it was found out: check a
customer before selling.

Exit code: 0 if interrupted, 4 if the service refuses or was never reached, 2 if the
command line is wrong.`,
		Example: `  eligibilityd watch
  eligibilityd watch a0000000-0000-4000-8000-000000000002
  eligibilityd watch --json --segment education - < customers.txt`,
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := flags.request(args, cmd.InOrStdin())
			if err != nil {
				return usageError(cmd, err)
			}
			conn, err := flags.service.connect()
			if err != nil {
				return usageError(cmd, err)
			}
			defer func() { _ = conn.Close() }()
			w := &watchRun{
				conn: conn, client: eligibilityv1.NewEligibilityServiceClient(conn), req: req, printer: watchPrinter{json: flags.json, out: cmd.OutOrStdout()},
				notes: cmd.ErrOrStderr(), resumeFile: flags.resumeFile, seen: make(map[string]bool),
			}
			return w.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	flags.service.register(cmd)
	f.StringVar(&flags.segment, "segment", "commercial", "segment that the answers are for: commercial, education, government or nonprofit")
	f.StringVar(&flags.partner, "partner", "", "partner who sells (default the service's default partner)")
	f.StringVar(&flags.resumeToken, "resume-token", "", "`TOKEN` of an earlier watch of the same customers: go on after it")
	f.StringVar(&flags.resumeFile, "resume-file", "", "`FILE` with the token to go on after, which is kept in it")
	f.BoolVar(&flags.json, "json", false, "print one JSON message a change, with its resume token, instead of a table")
	return cmd
}

// request returns the request of the flags and arguments.
func (flags *watchFlags) request(args []string, in io.Reader) (*eligibilityv1.WatchEligibilityRequest, error) {
	segment, err := parseEnum("segment", flags.segment, eligibilityv1.Segment_value)
	if err != nil {
		return nil, err
	}
	req := &eligibilityv1.WatchEligibilityRequest{
		Segment: eligibilityv1.Segment(segment), Partner: flags.partner, ResumeToken: flags.resumeToken,
	}
	if len(args) > 0 {
		if req.CustomerIds, err = customerIDs(args, in); err != nil {
			return nil, err
		}
	}
	if flags.resumeFile != "" {
		if flags.resumeToken != "" {
			return nil, errors.New("--resume-token and --resume-file exclude each other")
		}
		if req.ResumeToken, err = readResumeFile(flags.resumeFile); err != nil {
			return nil, err
		}
	}
	for _, id := range req.GetCustomerIds() {
		if fault := unsendable(id); fault != "" {
			return nil, fmt.Errorf("%s: %s", printable(shownID(id)), fault)
		}
	}
	return req, nil
}

const (
	// watchSilence is how long a stream may be silent, which sends progress every 15 s.
	watchSilence = 45 * time.Second
	// maxWatchBackoff is the longest pause between two connections.
	maxWatchBackoff = 30 * time.Second
	// maxSeen is how many changes are remembered, to print each once.
	maxSeen = 10_000
)

// watchRun follows one stream after the other.
type watchRun struct {
	conn    *service
	client  eligibilityv1.EligibilityServiceClient
	req     *eligibilityv1.WatchEligibilityRequest
	printer watchPrinter
	notes   io.Writer

	resumeFile string // keeps the token; "" if nothing does

	received bool // a stream has sent a message
	backoff  time.Duration
	seen     map[string]bool // ids of the newest changes
	order    []string        // the same, the oldest first
}

// run watches until ctx ends.
func (w *watchRun) run(ctx context.Context) error {
	if err := w.printer.begin(); err != nil {
		return err
	}
	for {
		err := w.follow(ctx)
		var failed *printError
		switch {
		case errors.As(err, &failed):
			return failed.err
		case ctx.Err() != nil:
			if token := w.req.GetResumeToken(); token != "" {
				fmt.Fprintf(w.notes, "go on with --resume-token %s\n", token)
			}
			return nil
		case err == nil: // the stream has ended by itself
			w.backoff = leastPause
		case w.isOver(err):
			return &exitError{code: exitUndecided, err: fmt.Errorf("%s: %w", w.conn.flags.address, w.explain(ctx, err))}
		default:
			w.backoff = min(max(2*w.backoff, leastPause), maxWatchBackoff)
			fmt.Fprintf(w.notes, "%s: %v; going on\n", w.conn.flags.address, w.explain(ctx, err))
		}
		pause := max(rand.N(w.backoff), retryDelay(err)) //nolint:gosec // spreads load
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// follow prints what one stream sends. It returns nil if the stream ended by itself.
func (w *watchRun) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := status.Error(codes.Unavailable, "the stream is silent")
	alarm := time.AfterFunc(watchSilence, func() { cancel(silent) })
	defer alarm.Stop()
	stream, err := w.client.WatchEligibility(ctx, w.req)
	for err == nil {
		var message *eligibilityv1.WatchEligibilityResponse
		if message, err = stream.Recv(); err != nil {
			break
		}
		alarm.Reset(watchSilence)
		w.received, w.backoff = true, 0
		if change := message.GetChange(); change != nil && w.isNew(change.GetEventId()) {
			if err := w.printer.show(message); err != nil {
				return &printError{err}
			}
		}
		if message.GetResumeToken() == "" { // the end of a stream that has not begun has none
			continue
		}
		w.req.ResumeToken = message.GetResumeToken()
		if w.resumeFile != "" {
			if err := writeResumeFile(w.resumeFile, w.req.GetResumeToken()); err != nil {
				return &printError{err}
			}
		}
	}
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case errors.Is(context.Cause(ctx), silent):
		return silent
	default:
		return err
	}
}

// readResumeFile returns the token in a file; "" if there is no file.
func readResumeFile(name string) (string, error) {
	text, err := os.ReadFile(name) //nolint:gosec // the operator's file
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("--resume-file: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// writeResumeFile replaces a file by one with the token.
func writeResumeFile(name, token string) error {
	if err := os.WriteFile(name+".new", []byte(token+"\n"), 0o600); err != nil {
		return fmt.Errorf("--resume-file: %w", err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return fmt.Errorf("--resume-file: %w", err)
	}
	return nil
}

// isNew reports whether a change was not printed yet, and remembers it.
func (w *watchRun) isNew(id string) bool {
	if w.seen[id] {
		return false
	}
	if len(w.order) == maxSeen {
		delete(w.seen, w.order[0])
		w.order = w.order[1:]
	}
	w.seen[id] = true
	w.order = append(w.order, id)
	return true
}

// isOver reports whether going on would fail again. If the changes after the token of
// an earlier stream are no longer kept, the next stream begins anew.
func (w *watchRun) isOver(err error) bool {
	switch code := status.Code(err); code {
	case codes.OutOfRange:
		if w.received {
			w.req.ResumeToken = ""
			return false
		}
		return true
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unimplemented:
		return true
	default:
		return !w.received && retryDelay(err) == 0 && hopeless(code)
	}
}

// explain returns an error with what to do about it.
func (w *watchRun) explain(ctx context.Context, err error) error {
	failure := status.Convert(err)
	if failure.Code() == codes.OutOfRange {
		if w.received {
			return errors.New("changes were missed: those since the last one are no longer kept")
		}
		return errors.New("the changes after the resume token are no longer kept; begin without it")
	}
	return w.conn.explainFields(ctx, err)
}

// explainFields is explain, but names the fields of a request that is not valid.
func (s *service) explainFields(ctx context.Context, err error) error {
	for _, detail := range status.Convert(err).Details() {
		if faults, ok := detail.(*errdetails.BadRequest); ok {
			var texts []string
			for _, violation := range faults.GetFieldViolations() {
				texts = append(texts, violation.GetField()+" "+violation.GetDescription())
			}
			return errors.New(strings.Join(texts, "; "))
		}
	}
	return s.explain(ctx, err)
}

// retryDelay returns after what time the service asks to be asked again; 0 if it does
// not.
func retryDelay(err error) time.Duration {
	for _, detail := range status.Convert(err).Details() {
		if retry, ok := detail.(*errdetails.RetryInfo); ok {
			return max(retry.GetRetryDelay().AsDuration(), leastPause)
		}
	}
	return 0
}

// printError is a failure to print.
type printError struct{ err error }

func (e *printError) Error() string { return e.err.Error() }

// watchPrinter prints changes as they come: as JSON lines or in columns.
type watchPrinter struct {
	json bool
	out  io.Writer
}

const watchColumns = "%-19s  %-36s  %-9s  %-9s  %s\n"

func (p *watchPrinter) begin() error {
	if p.json {
		return nil
	}
	_, err := fmt.Fprintf(p.out, watchColumns, "TIME", "CUSTOMER", "BEFORE", "AFTER", "REASONS")
	return err
}

func (p *watchPrinter) show(message *eligibilityv1.WatchEligibilityResponse) error {
	if p.json {
		line, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(message)
		if err != nil {
			return fmt.Errorf("print a change: %w", err)
		}
		_, err = p.out.Write(append(line, '\n'))
		return err
	}
	change := message.GetChange()
	before := decisionWord(change.GetBefore())
	if change.GetInitial() {
		before = "current"
	}
	var reasons []string
	for _, reason := range change.GetAfter().GetReasons() {
		reasons = append(reasons, strings.TrimPrefix(reason.GetCode().String(), "REASON_CODE_"))
	}
	_, err := fmt.Fprintf(p.out, watchColumns, change.GetObserveTime().AsTime().Local().Format(time.DateTime), change.GetCustomerId(),
		before, decisionWord(change.GetAfter()), strings.Join(reasons, ", "))
	return err
}

// decisionWord is a decision in one word, or that there is none.
func decisionWord(answer *eligibilityv1.CheckEligibilityResponse) string {
	if answer == nil {
		return "undecided"
	}
	return strings.ToLower(strings.TrimPrefix(answer.GetDecision().String(), "DECISION_"))
}
