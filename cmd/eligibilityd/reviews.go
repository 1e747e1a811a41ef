package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

const (
	// reviewsPage is how many reviews are asked for in one call, and reviewsTimeout how
	// long that may take.
	reviewsPage    = 1000
	reviewsTimeout = 30 * time.Second
)

func newReviewsCommand() *cobra.Command {
	var flags serviceFlags
	var partner string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "reviews",
		Short: "List the customers under review that a running service checks by itself",
		Long: `reviews asks a running service over gRPC for all customers, and qualifications of
customers, that Microsoft is reviewing, and prints them, the one that has waited for
longest first. The list is that of the Redis that all replicas share; without Redis, or
with reviews.enabled: false, it is empty.

Exit code: 4 if the list could not be had, 2 if the command line is wrong, else 0.`,
		Example: `  eligibilityd reviews
  eligibilityd reviews --partner eu --json`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := flags.connect()
			if err != nil {
				return usageError(cmd, err)
			}
			defer func() { _ = conn.Close() }()
			all, err := listReviews(cmd.Context(), conn, partner)
			if err != nil {
				return &exitError{code: exitUndecided, err: fmt.Errorf("%s: %w", flags.address, conn.explainFields(cmd.Context(), err))}
			}
			return printReviews(all, asJSON, cmd.OutOrStdout())
		},
	}
	flags.register(cmd)
	cmd.Flags().StringVar(&partner, "partner", "", "partner who sells (default the service's default partner)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a review instead of a table")
	return cmd
}

// listReviews returns all reviews, in the order of the time since which.
func listReviews(ctx context.Context, conn *service, partner string) (all []*eligibilityv1.Review, err error) {
	client := eligibilityv1.NewEligibilityServiceClient(conn)
	req := &eligibilityv1.ListReviewsRequest{Partner: partner, PageSize: reviewsPage}
	for {
		calling, cancel := context.WithTimeout(ctx, reviewsTimeout)
		page, err := client.ListReviews(calling, req)
		cancel()
		if err != nil {
			return nil, err
		}
		all = append(all, page.GetReviews()...)
		if page.GetNextPageToken() == "" {
			break
		}
		req.PageToken = page.GetNextPageToken()
	}
	slices.SortStableFunc(all, func(a, b *eligibilityv1.Review) int {
		return cmp.Or(a.GetPendingSinceTime().AsTime().Compare(b.GetPendingSinceTime().AsTime()), cmp.Compare(a.GetCustomerId(), b.GetCustomerId()))
	})
	return all, nil
}

func printReviews(all []*eligibilityv1.Review, asJSON bool, out io.Writer) error {
	if asJSON {
		for _, review := range all {
			line, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(review)
			if err != nil {
				return fmt.Errorf("print a review: %w", err)
			}
			if _, err := out.Write(append(line, '\n')); err != nil {
				return err
			}
		}
		return nil
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CUSTOMER\tFACET\tSTATUS\tPENDING SINCE\tLAST CHECK\tNEXT CHECK")
	for _, review := range all {
		facet := strings.ToLower(strings.TrimPrefix(review.GetFacet().String(), "FACET_"))
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", printable(review.GetCustomerId()), facet, orText(printable(review.GetStatusText()), "-"),
			shownTime(review.GetPendingSinceTime()), shownTime(review.GetLastCheckTime()), shownTime(review.GetNextCheckTime()))
	}
	return table.Flush()
}

func shownTime(at *timestamppb.Timestamp) string {
	if at == nil {
		return "-"
	}
	return at.AsTime().UTC().Format(time.RFC3339)
}
