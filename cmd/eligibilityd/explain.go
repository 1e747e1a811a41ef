package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// explainTimeout is how long the call may take.
const explainTimeout = 30 * time.Second

func newExplainCommand() *cobra.Command {
	var flags serviceFlags
	var partner, does, at string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain ID",
		Short: "Explain why checks of a customer are answered as they are, or were",
		Long: `explain asks a running service over gRPC what it knows about a customer, and prints
for each segment the answer and the rules behind it, the evidence of each tier with its
age, what keeps the service from asking Partner Center, since when the customer is under
review, and the changes of the last 90 days. It never asks Partner Center: a customer
that nobody has asked about is not known.

With --at, the answers are those by what was known then. It is a timestamp, such as
2026-11-28T14:02:00Z or 2026-11-28T15:02:00+01:00, or how long ago, such as 2h30m.

The caller needs the right support.

Exit code, by the answer for the commercial segment: 4 if it is undecided or could not
be had, 3 if it blocks, 2 if the command line is wrong, else 0.`,
		Example: `  eligibilityd explain a0000000-0000-4000-8000-000000000002
  eligibilityd explain a0000000-0000-4000-8000-000000000002 --at 2026-11-28T14:02:00Z
  eligibilityd explain a0000000-0000-4000-8000-000000000002 --partner eu --json`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := explainRequest(args[0], partner, does, at, time.Now())
			if err != nil {
				return usageError(cmd, err)
			}
			conn, err := flags.connect()
			if err != nil {
				return usageError(cmd, err)
			}
			defer func() { _ = conn.Close() }()
			return explainCustomer(cmd.Context(), conn, req, asJSON, cmd.OutOrStdout())
		},
	}
	flags.register(cmd)
	f := cmd.Flags()
	f.StringVar(&at, "at", "", "`TIME` that the answers are explained for, or how long ago (default now)")
	f.StringVar(&partner, "partner", "", "partner who sells (default the service's default partner)")
	f.StringVar(&does, "operation", "purchase", "what the order does: purchase, seat_increase, upgrade, renewal, seat_reduction or cancellation")
	f.BoolVar(&asJSON, "json", false, "print one JSON object instead of text")
	return cmd
}

func explainRequest(id, partner, does, at string, now time.Time) (*eligibilityv1.ExplainEligibilityRequest, error) {
	if fault := unsendable(id); fault != "" {
		return nil, errors.New(fault)
	}
	operation, err := parseEnum("operation", does, eligibilityv1.Operation_value)
	if err != nil {
		return nil, err
	}
	req := &eligibilityv1.ExplainEligibilityRequest{CustomerId: id, Partner: partner, Operation: eligibilityv1.Operation(operation)}
	if at != "" {
		moment, err := parseInstant(at, now)
		if err != nil {
			return nil, fmt.Errorf("--at %w", err)
		}
		req.At = timestamppb.New(moment)
	}
	return req, nil
}

// parseInstant parses a timestamp, or how long ago.
func parseInstant(text string, now time.Time) (time.Time, error) {
	first, after, err := parseMoment(text, now)
	if err == nil && after.Sub(first) > time.Nanosecond {
		return first, fmt.Errorf("%q is a date; give the time too, such as %sT14:02:00Z", text, text)
	}
	return first, err
}

func explainCustomer(ctx context.Context, conn *service, req *eligibilityv1.ExplainEligibilityRequest, asJSON bool, out io.Writer) error {
	calling, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	resp, err := eligibilityv1.NewEligibilityServiceClient(conn).ExplainEligibility(calling, req)
	if err != nil {
		return &exitError{code: exitUndecided, err: fmt.Errorf("%s: %w", conn.flags.address, conn.explainFields(ctx, err))}
	}
	if asJSON {
		line, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(resp)
		if err != nil {
			return fmt.Errorf("print an explanation: %w", err)
		}
		if _, err := out.Write(append(line, '\n')); err != nil {
			return err
		}
	} else if err := printExplanation(resp, req.GetAt() != nil, out); err != nil {
		return err
	}
	for _, segment := range resp.GetSegments() {
		if segment.GetSegment() != eligibilityv1.Segment_SEGMENT_COMMERCIAL {
			continue
		}
		switch segment.GetResponse().GetDecision() {
		case eligibilityv1.Decision_DECISION_ALLOWED:
			return nil
		case eligibilityv1.Decision_DECISION_BLOCKED:
			return &exitError{code: exitBlocked}
		case eligibilityv1.Decision_DECISION_UNSPECIFIED:
		}
	}
	return &exitError{code: exitUndecided}
}
