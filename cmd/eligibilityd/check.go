package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// The exit codes of check.
const (
	exitBlocked   = 3
	exitUndecided = 4
)

const (
	// checkChunk is how many customers check asks about in one call: few
	// enough that the progress bar moves.
	checkChunk = 100
	// progressFrom is the length from which a list gets a progress bar.
	progressFrom = 2 * checkChunk
	// maxIDBytes bounds a line of standard input.
	maxIDBytes = 1 << 10
)

// checkFlags are the check command's.
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
"-" it reads the customer IDs from standard input, one a line.

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

// parseSegment reads a segment's word in any case, short or as in the API.
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

// customerIDs returns the IDs of the command line, with those of stdin in the
// place of "-". Whether they are GUIDs the service says.
func customerIDs(args []string, stdin io.Reader) ([]string, error) {
	var ids []string
	for _, arg := range args {
		if arg != "-" {
			ids = append(ids, arg)
			continue
		}
		lines := bufio.NewScanner(stdin)
		lines.Buffer(nil, maxIDBytes)
		for lines.Scan() {
			if id := strings.TrimSpace(lines.Text()); id != "" {
				ids = append(ids, id)
			}
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("standard input, after %d customer IDs: %w", len(ids), err)
		}
	}
	if len(ids) == 0 {
		return nil, errors.New("no customer IDs given")
	}
	return ids, nil
}

// check asks about ids and prints the answers in their order as they come.
func check(ctx context.Context, flags checkFlags, segment eligibilityv1.Segment, ids []string, out, progressOut io.Writer) error {
	conn, err := grpc.NewClient(flags.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("--address: %w", err)
	}
	defer func() { _ = conn.Close() }()
	client := eligibilityv1.NewEligibilityServiceClient(conn)

	bar := progress(len(ids), progressOut)
	printer := newPrinter(flags.json, out)
	var total tally
	for start := 0; start < len(ids); start += checkChunk {
		chunk := ids[start:min(start+checkChunk, len(ids))]
		results, err := checkChunkOf(ctx, client, flags.timeout, segment, chunk)
		if err != nil {
			_ = bar.Exit()
			return &exitError{code: exitUndecided, err: errors.Join(printer.flush(),
				fmt.Errorf("%s: %d of %d customers were not answered: %w", flags.address, len(ids)-start, len(ids), err))}
		}
		for i, result := range results {
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
	return total.exit()
}

func checkChunkOf(ctx context.Context, client eligibilityv1.EligibilityServiceClient, timeout time.Duration, segment eligibilityv1.Segment, ids []string) ([]*eligibilityv1.BatchCheckEligibilityResult, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req := &eligibilityv1.BatchCheckEligibilityRequest{}
	for _, id := range ids {
		req.Requests = append(req.Requests, &eligibilityv1.CheckEligibilityRequest{CustomerId: id, Segment: segment})
	}
	resp, err := client.BatchCheckEligibility(ctx, req, grpc.WaitForReady(false))
	if err != nil {
		return nil, err
	}
	if len(resp.GetResults()) != len(ids) {
		return nil, fmt.Errorf("%d results for %d customers", len(resp.GetResults()), len(ids))
	}
	return resp.GetResults(), nil
}

// progress is a bar for long lists on a terminal, and nothing elsewhere.
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

// tally is what an exit code is made of.
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
