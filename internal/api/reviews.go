package api

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/reviews"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

const (
	// defaultReviews and maxReviews are how many reviews a page has.
	defaultReviews = 100
	maxReviews     = 1000
	// listRetry is when a list that cannot be read may be asked for again.
	listRetry = time.Second
)

// ListReviews returns a page of a partner's customers under review. If none are
// checked without a caller, the page is empty.
func (h *handler) ListReviews(ctx context.Context, req *eligibilityv1.ListReviewsRequest) (*eligibilityv1.ListReviewsResponse, error) {
	c := callOf(ctx)
	faults := c.in.Violations
	size := int(req.GetPageSize())
	switch {
	case size < 0 || size > maxReviews:
		faults.Add("page_size", fmt.Sprintf("must be from 0 to %d", maxReviews))
	case size == 0:
		size = defaultReviews
	}
	var after reviews.Place
	if token := req.GetPageToken(); token != "" {
		var err error
		if after, err = reviews.ParsePlace(token); err != nil {
			faults.Add("page_token", "must be the next_page_token of an earlier page")
		}
	}
	of := h.partners.find(req.GetPartner(), c.caller, &faults)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	c.partner, c.partners = of, 1
	list := h.reviews[of.name]
	if list == nil {
		return &eligibilityv1.ListReviewsResponse{}, nil
	}
	ctx, span := c.child(ctx, "list reviews")
	page, next, err := list.Page(ctx, after, size)
	span.End()
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &eligibility.Error{Kind: eligibility.KindFeedUnavailable, RetryAfter: listRetry, Err: err}
	}
	resp := &eligibilityv1.ListReviewsResponse{Reviews: make([]*eligibilityv1.Review, len(page))}
	for i := range page {
		resp.Reviews[i] = review(&page[i])
	}
	if next != nil {
		resp.NextPageToken = next.String()
	}
	return resp, nil
}

// review converts a review to its message.
func review(r *reviews.Review) *eligibilityv1.Review {
	message := &eligibilityv1.Review{
		CustomerId: r.CustomerID.String(), Facet: eligibilityv1.Facet_FACET_ACCOUNT, StatusText: r.StatusText,
		PendingSinceTime: timestamppb.New(r.Since), NextCheckTime: timestamppb.New(r.Next),
	}
	if r.Facet == eligibility.FacetQualifications {
		message.Facet = eligibilityv1.Facet_FACET_QUALIFICATIONS
	}
	if !r.Last.IsZero() {
		message.LastCheckTime = timestamppb.New(r.Last)
	}
	return message
}
