package console

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/reviews"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// scripted is an API whose explanations a function returns.
type scripted struct {
	eligibilityv1.EligibilityServiceClient

	explain func(req *eligibilityv1.ExplainEligibilityRequest) (*eligibilityv1.ExplainEligibilityResponse, error)
}

func (s scripted) ExplainEligibility(_ context.Context, req *eligibilityv1.ExplainEligibilityRequest, _ ...grpc.CallOption) (*eligibilityv1.ExplainEligibilityResponse, error) {
	return s.explain(req)
}

// A partner that cannot be explained is not passed over, and does not keep others from
// being shown.
func TestAnExplanationFails(t *testing.T) {
	t.Parallel()
	away := status.Error(codes.Unavailable, "The service is not available.")
	s := startSite(t, servertest.Setup{}, Config{Partners: []string{"eu", "us"}, DefaultPartner: "eu"}, as(support))
	s.h.cfg.API = scripted{explain: func(req *eligibilityv1.ExplainEligibilityRequest) (*eligibilityv1.ExplainEligibilityResponse, error) {
		if req.GetPartner() == "eu" || req.GetOperation() == eligibilityv1.Operation_OPERATION_RENEWAL {
			return nil, away
		}
		return &eligibilityv1.ExplainEligibilityResponse{
			Segments: []*eligibilityv1.SegmentExplanation{answered(commercial, eligibilityv1.Decision_DECISION_BLOCKED, reason(eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_UNDER_REVIEW, eligibilityv1.Remedy_REMEDY_WAIT))},
			Evidence: []*eligibilityv1.HeldEvidence{{Facet: account, EvidenceTime: minutes(0)}},
		}, nil
	}}
	for query, want := range map[string]struct {
		status int
		text   string
	}{
		"":            {http.StatusServiceUnavailable, "The service is not available."},
		"?partner=eu": {http.StatusServiceUnavailable, "The service is not available."},
		"?partner=us": {http.StatusOK, "Renewals Not known."},
	} {
		page, w := s.get("/console/customers/" + testCustomer + query)
		if text := mainOf(page); w.Code != want.status || !strings.Contains(text, want.text) || !strings.Contains(text, "eu cannot be read us may not buy commercial") {
			t.Errorf("%q: %d, %s", query, w.Code, text)
		}
	}
}

// failing is a reviews.List that cannot be read.
type failing struct{ reviews.List }

func (failing) Page(context.Context, reviews.Place, int) ([]reviews.Review, *reviews.Place, error) {
	return nil, nil, context.DeadlineExceeded
}

func (failing) Of(context.Context, eligibility.CustomerID) ([]reviews.Review, error) {
	return nil, context.DeadlineExceeded
}

func TestTheSharedCacheFails(t *testing.T) {
	t.Parallel()
	s := startSite(t, servertest.Setup{
		Source: apitest.Returns(eligibility.AccountStatusAllowed, "Allowed"), API: api.Config{Reviews: map[string]reviews.List{api.DefaultPartner: failing{}}},
	}, Config{}, as(support))
	s.Store.Unread.Store(true)
	for _, path := range []string{"/console/customers/" + apitest.CustomerA, "/console/customers/" + apitest.CustomerA + "?at=2026-01-01T00:00"} {
		page, w := s.get(path)
		text := mainOf(page)
		for _, want := range []string{"The shared cache could not be read", "The history could not be read"} {
			if w.Code != http.StatusOK || !strings.Contains(text, want) || strings.Contains(text, "Nothing is known about this customer") {
				t.Errorf("%s: %d, %q is missing: %s", path, w.Code, want, text)
			}
		}
		if now := !strings.Contains(path, "at="); strings.Contains(text, "The list of reviews could not be read") != now {
			t.Errorf("%s: %s", path, text)
		}
	}
	page, w := s.get("/console/reviews")
	if text := mainOf(page); w.Code != http.StatusServiceUnavailable || strings.Contains(text, "No customer") {
		t.Errorf("%d, %s", w.Code, text)
	}
	// It is still possible to ask Microsoft, and the answer is shown.
	page, _ = s.ask(apitest.CustomerA, "")
	if text := mainOf(page); !strings.Contains(text, "May buy commercial licences.") || !strings.Contains(text, "The shared cache could not be read") {
		t.Errorf("%s", text)
	}
}
