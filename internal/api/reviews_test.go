package api_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/reviews"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// reviewList is a list with so many reviews, or that fails.
type reviewList struct {
	reviews.List // nil

	n    int
	err  error
	size chan int
}

func (l *reviewList) Page(_ context.Context, after reviews.Place, size int) ([]reviews.Review, *reviews.Place, error) {
	l.size <- size
	if l.err != nil {
		return nil, nil, l.err
	}
	first := int(after.Since)
	var page []reviews.Review
	for i := first; i < min(first+size, l.n); i++ {
		review := reviews.Review{Since: time.UnixMilli(int64(i)), Next: time.UnixMilli(int64(i) + 1)}
		if i%2 == 1 {
			review.Facet, review.StatusText, review.Last = eligibility.FacetQualifications, "InReview", time.UnixMilli(2)
		}
		page = append(page, review)
	}
	if last := first + len(page); last < l.n {
		return page, &reviews.Place{After: true, Partition: 3, Since: float64(last)}, nil
	}
	return page, nil, nil
}

func TestListReviews(t *testing.T) {
	t.Parallel()
	list := &reviewList{n: 250, size: make(chan int, 100)}
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved(), API: api.Config{Reviews: map[string]reviews.List{api.DefaultPartner: list}}})
	for asked, size := range map[int32]int{0: 100, 1: 1, 99: 99, 1000: 1000} {
		var all []*eligibilityv1.Review
		req := &eligibilityv1.ListReviewsRequest{PageSize: asked}
		for calls := 0; ; calls++ {
			page, err := run.Client.ListReviews(t.Context(), req)
			if got := <-list.size; err != nil || got != size || calls > list.n {
				t.Fatalf("page_size %d: %v, size %d", asked, err, got)
			}
			all = append(all, page.GetReviews()...)
			if req.PageToken = page.GetNextPageToken(); req.GetPageToken() == "" {
				break
			}
		}
		if len(all) != list.n {
			t.Errorf("page_size %d: %d reviews", asked, len(all))
		}
		if got := all[1]; got.GetFacet() != eligibilityv1.Facet_FACET_QUALIFICATIONS || got.GetStatusText() != "InReview" || got.GetLastCheckTime() == nil || got.GetPendingSinceTime().AsTime().UnixMilli() != 1 {
			t.Errorf("%v", got)
		}
		if got := all[0]; got.GetFacet() != eligibilityv1.Facet_FACET_ACCOUNT || got.GetLastCheckTime() != nil || got.GetNextCheckTime().AsTime().UnixMilli() != 1 {
			t.Errorf("%v", got)
		}
	}
	token := reviews.Place{After: true, Since: 5}.String()
	for name, row := range map[string]struct {
		req    *eligibilityv1.ListReviewsRequest
		fields []string
	}{
		"too many":      {&eligibilityv1.ListReviewsRequest{PageSize: 1001}, []string{"page_size"}},
		"negative":      {&eligibilityv1.ListReviewsRequest{PageSize: -1}, []string{"page_size"}},
		"no token":      {&eligibilityv1.ListReviewsRequest{PageToken: "x"}, []string{"page_token"}},
		"damaged":       {&eligibilityv1.ListReviewsRequest{PageToken: "B" + token[1:]}, []string{"page_token"}},
		"long":          {&eligibilityv1.ListReviewsRequest{PageToken: strings.Repeat("A", 10_000)}, []string{"page_token"}},
		"cut":           {&eligibilityv1.ListReviewsRequest{PageToken: token[:len(token)-1]}, []string{"page_token"}},
		"other partner": {&eligibilityv1.ListReviewsRequest{Partner: "other"}, []string{"partner"}},
		"all of them":   {&eligibilityv1.ListReviewsRequest{PageSize: 1001, PageToken: "\x00", Partner: "x"}, []string{"page_size", "page_token", "partner"}},
	} {
		_, err := run.Client.ListReviews(t.Context(), row.req)
		if diff := cmp.Diff(row.fields, apitest.ViolatedBy(err)); status.Code(err) != codes.InvalidArgument || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
	got := run.Do(t, "GET", run.REST+"/v1/reviews?page_size=2", "")
	<-list.size
	if got.StatusCode != http.StatusOK || len(got.JSON(t)["reviews"].([]any)) != 2 || got.JSON(t)["nextPageToken"] == "" {
		t.Errorf("over REST: %d, %s", got.StatusCode, got.Body)
	}
	list.err = errors.New("redis is away at 10.0.0.1")
	_, err := run.Client.ListReviews(t.Context(), &eligibilityv1.ListReviewsRequest{})
	if status.Code(err) != codes.Unavailable || strings.Contains(err.Error(), "10.0.0.1") {
		t.Errorf("%v", err)
	}
}

// Without Redis, no customers are checked, and the list is empty.
func TestListReviewsWithoutAList(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	if page, err := run.Client.ListReviews(t.Context(), &eligibilityv1.ListReviewsRequest{}); err != nil || len(page.GetReviews()) != 0 || page.GetNextPageToken() != "" {
		t.Errorf("%v, %v", page, err)
	}
}
