package api_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/reviews"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// Of implements reviews.List.
func (l *reviewList) Of(_ context.Context, id eligibility.CustomerID) ([]reviews.Review, error) {
	if l.err != nil {
		return nil, l.err
	}
	return []reviews.Review{{Key: eligibility.Key{CustomerID: id}, StatusText: "UnderReview", Since: time.UnixMilli(1), Next: time.UnixMilli(2)}}, nil
}

// asked explains over both transports, whose messages must be equal, and returns it.
func explainBoth(t *testing.T, run *servertest.Running, req *eligibilityv1.ExplainEligibilityRequest) *eligibilityv1.ExplainEligibilityResponse {
	t.Helper()
	overGRPC, err := run.Client.ExplainEligibility(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	query := make(url.Values)
	if req.GetAt() != nil {
		query.Set("at", req.GetAt().AsTime().Format(time.RFC3339Nano))
	}
	if req.GetPartner() != "" {
		query.Set("partner", req.GetPartner())
	}
	if req.GetOperation() != 0 {
		query.Set("operation", strings.ToLower(strings.TrimPrefix(req.GetOperation().String(), "OPERATION_")))
	}
	got := run.Do(t, http.MethodGet, run.REST+"/v1/customers/"+req.GetCustomerId()+"/eligibility:explain?"+query.Encode(), "")
	overREST := new(eligibilityv1.ExplainEligibilityResponse)
	if err := protojson.Unmarshal(got.Body, overREST); err != nil || got.StatusCode != http.StatusOK || got.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("over REST: %d, %v, %s", got.StatusCode, err, got.Body)
	}
	if diff := cmp.Diff(overGRPC, overREST, protocmp.Transform()); diff != "" {
		t.Errorf("(-grpc +rest):\n%s", diff)
	}
	return overGRPC
}

func TestExplainEligibility(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 14, 2, 0, 5, time.UTC)
	list := &reviewList{}
	noFetch := apitest.Source(func(context.Context, eligibility.CustomerID, eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
		t.Error("Partner Center was asked")
		return eligibility.Evidence{}, eligibility.Call{}, &eligibility.Error{}
	})
	run := servertest.Start(t, servertest.Setup{
		Source:  noFetch,
		Service: evidence.Config{Now: func() time.Time { return now }, Policy: eligibility.Policy{AllowReducing: true}},
		API:     api.Config{Now: func() time.Time { return now }, Reviews: map[string]reviews.List{api.DefaultPartner: list}},
	})
	unknown := explainBoth(t, run, &eligibilityv1.ExplainEligibilityRequest{CustomerId: apitest.CustomerB})
	for _, s := range unknown.GetSegments() {
		if s.GetError().GetReason() != "NOT_KNOWN" || s.GetRules()[0].GetRule() != eligibilityv1.Rule_RULE_NO_EVIDENCE {
			t.Errorf("a customer that nobody asked about: %v", s)
		}
	}
	const hostile = "Under\x1b[31m\u202eReview"
	before := eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed", FetchTime: now.Add(-time.Hour), CorrelationID: "c1"}
	after := eligibility.Evidence{Status: eligibility.AccountStatusUnderReview, StatusText: hostile, FetchTime: now.Add(-time.Minute).Truncate(time.Millisecond), CorrelationID: "c2", RequestID: "r2"}
	run.Store.Hold(apitest.CustomerA, eligibility.FacetAccount, after, after.FetchTime)
	run.Store.Hold(apitest.CustomerA, eligibility.FacetQualifications, eligibility.Evidence{Qualifications: []eligibility.Qualification{
		{Type: eligibility.QualificationEducation, TypeText: "Education", VettingStatus: eligibility.VettingDenied, VettingStatusText: "Denied", VettingReason: "\xff", VettingCreatedTime: now},
	}}, after.FetchTime)
	run.Store.Pasts = []evidence.Past{{Evidence: &after, PreviousTime: now.Add(-2 * time.Minute)}, {Evidence: &before, ConfirmedTime: now.Add(-2 * time.Minute)}}

	got := explainBoth(t, run, &eligibilityv1.ExplainEligibilityRequest{CustomerId: strings.ToUpper(apitest.CustomerA)})
	if got.GetCustomerId() != apitest.CustomerA || !got.GetExplainTime().AsTime().Equal(now) || len(got.GetSegments()) != 4 || len(got.GetEvidence()) != 2 || len(got.GetUnread()) != 0 {
		t.Errorf("%v", got)
	}
	commercial, education := got.GetSegments()[0], got.GetSegments()[1]
	if r := commercial.GetResponse(); r.GetDecision() != eligibilityv1.Decision_DECISION_BLOCKED || r.GetAccountStatusText() != hostile || r.GetCorrelationId() != "c2" || r.GetExpireTime() == nil {
		t.Errorf("%v", commercial)
	}
	want := []*eligibilityv1.AppliedRule{
		{
			Facet: eligibilityv1.Facet_FACET_ACCOUNT, Word: hostile, Rule: eligibilityv1.Rule_RULE_ACCOUNT_STATUS,
			Outcome: eligibilityv1.AppliedRule_OUTCOME_BLOCKS, Reason: eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_UNDER_REVIEW,
		},
		{
			Facet: eligibilityv1.Facet_FACET_QUALIFICATIONS, Word: "Denied", Rule: eligibilityv1.Rule_RULE_QUALIFICATION,
			Outcome: eligibilityv1.AppliedRule_OUTCOME_BLOCKS, Reason: eligibilityv1.ReasonCode_REASON_CODE_QUALIFICATION_DENIED,
		},
	}
	if diff := cmp.Diff(want, education.GetRules(), protocmp.Transform()); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	if r := got.GetReviews(); len(r) != 1 || r[0].GetPendingSinceTime().AsTime().UnixMilli() != 1 || r[0].GetCustomerId() != apitest.CustomerA {
		t.Errorf("reviews %v", r)
	}
	if held := got.GetEvidence()[0]; held.GetCorrelationId() != "c2" || held.GetRequestId() != "r2" {
		t.Errorf("evidence %v", held)
	}
	wantHistory := []*eligibilityv1.HistoryEntry{
		{
			Facet: eligibilityv1.Facet_FACET_ACCOUNT, CorrelationId: "c2",
			Before:       &eligibilityv1.Facts{AccountStatus: eligibilityv1.AccountStatus_ACCOUNT_STATUS_ALLOWED, AccountStatusText: "Allowed"},
			After:        &eligibilityv1.Facts{AccountStatus: eligibilityv1.AccountStatus_ACCOUNT_STATUS_UNDER_REVIEW, AccountStatusText: hostile},
			EvidenceTime: timestamppb.New(after.FetchTime), ConfirmedTime: timestamppb.New(after.FetchTime),
		},
		{
			Facet: eligibilityv1.Facet_FACET_ACCOUNT, CorrelationId: "c1",
			After:        &eligibilityv1.Facts{AccountStatus: eligibilityv1.AccountStatus_ACCOUNT_STATUS_ALLOWED, AccountStatusText: "Allowed"},
			EvidenceTime: timestamppb.New(before.FetchTime), ConfirmedTime: timestamppb.New(now.Add(-2 * time.Minute)),
		},
	}
	if diff := cmp.Diff(wantHistory, got.GetHistory(), protocmp.Transform()); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
	renewal := explainBoth(t, run, &eligibilityv1.ExplainEligibilityRequest{CustomerId: apitest.CustomerA, Operation: eligibilityv1.Operation_OPERATION_RENEWAL})
	if s := renewal.GetSegments()[1]; s.GetResponse().GetDecision() != eligibilityv1.Decision_DECISION_ALLOWED || s.GetRules()[0].GetRule() != eligibilityv1.Rule_RULE_REDUCING_OPERATION {
		t.Errorf("a renewal: %v", s)
	}

	// With nanoseconds, at the start of time, and a moment ahead.
	for at, word := range map[time.Time]string{
		after.FetchTime: hostile, after.FetchTime.Add(-time.Nanosecond): "Allowed", before.FetchTime: "Allowed", before.FetchTime.Add(-time.Nanosecond): "",
		time.Unix(0, 0): "", time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC): "", now.Add(time.Second): hostile,
	} {
		then := explainBoth(t, run, &eligibilityv1.ExplainEligibilityRequest{CustomerId: apitest.CustomerA, At: timestamppb.New(at)})
		s := then.GetSegments()[0]
		if s.GetResponse().GetAccountStatusText() != word || (s.GetError().GetReason() == "NOT_KNOWN") != (word == "") || !then.GetExplainTime().AsTime().Equal(at) {
			t.Errorf("%v: %v", at, s)
		}
		if len(then.GetReviews())+len(then.GetObstacles()) > 0 || s.GetResponse().GetExpireTime() != nil || s.GetResponse().GetSource() != 0 {
			t.Errorf("%v: %v has what is of now", at, then)
		}
	}

	run.Store.Unread.Store(true)
	list.err = errors.New("redis is away at 10.0.0.1")
	unread := explainBoth(t, run, &eligibilityv1.ExplainEligibilityRequest{CustomerId: apitest.CustomerA})
	if len(unread.GetUnread()) != 3 || unread.GetSegments()[0].GetResponse() == nil || strings.Contains(unread.String(), "10.0.0.1") {
		t.Errorf("without the shared cache: %v", unread)
	}
}

func TestExplainEligibilityRefuses(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	id := apitest.CustomerA
	for name, row := range map[string]struct {
		req    *eligibilityv1.ExplainEligibilityRequest
		fields []string
	}{
		"no customer":  {&eligibilityv1.ExplainEligibilityRequest{}, []string{"customer_id"}},
		"the future":   {&eligibilityv1.ExplainEligibilityRequest{CustomerId: id, At: timestamppb.New(time.Now().Add(time.Hour))}, []string{"at"}},
		"no time":      {&eligibilityv1.ExplainEligibilityRequest{CustomerId: id, At: &timestamppb.Timestamp{Nanos: -1}}, []string{"at"}},
		"no operation": {&eligibilityv1.ExplainEligibilityRequest{CustomerId: id, Operation: 99}, []string{"operation"}},
		"all of them": {
			&eligibilityv1.ExplainEligibilityRequest{CustomerId: "\x00", Operation: -1, Partner: "other", At: &timestamppb.Timestamp{Seconds: 1 << 60}},
			[]string{"customer_id", "operation", "at", "partner"},
		},
	} {
		_, err := run.Client.ExplainEligibility(t.Context(), row.req)
		if diff := cmp.Diff(row.fields, apitest.ViolatedBy(err)); status.Code(err) != codes.InvalidArgument || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
	path := run.REST + "/v1/customers/" + id + "/eligibility:explain"
	for _, query := range []string{"?at=2999-01-01T00:00:00Z", "?at=yesterday", "?operation=nothing", "?partner=other", "?unknown=1"} {
		if got := run.Do(t, http.MethodGet, path+query, ""); got.StatusCode != http.StatusBadRequest || got.Failure(t).Reason() != "INVALID_ARGUMENT" {
			t.Errorf("%s: %d %s", query, got.StatusCode, got.Body)
		}
	}
	if got := run.Do(t, http.MethodPost, path, "{}"); got.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", got.StatusCode)
	}
}

// An explanation needs the right support, and is of the partners of the caller only.
func TestExplainEligibilityIsForSupport(t *testing.T) {
	t.Parallel()
	callers := apitest.Callers{
		"all but support": {Name: "all but support", Rights: access.Check | access.Batch | access.Prefetch | access.Watch | access.Fresh},
		"support of eu":   {Name: "support of eu", Rights: access.Support, Partners: []string{"eu"}},
	}
	run := servertest.Start(t, servertest.Setup{Partners: twoPartners(), DefaultPartner: "eu", API: api.Config{Access: callers}})
	for _, row := range []struct {
		caller, partner string
		code            codes.Code
		http            int
	}{
		{"all but support", "", codes.PermissionDenied, http.StatusForbidden},
		{"support of eu", "", codes.OK, http.StatusOK},
		{"support of eu", "eu", codes.OK, http.StatusOK},
		{"support of eu", "us", codes.InvalidArgument, http.StatusBadRequest},
	} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", row.caller)
		if _, err := run.Client.ExplainEligibility(ctx, &eligibilityv1.ExplainEligibilityRequest{CustomerId: apitest.CustomerA, Partner: row.partner}); status.Code(err) != row.code {
			t.Errorf("%+v: %v", row, err)
		}
		path := run.REST + "/v1/customers/" + apitest.CustomerA + "/eligibility:explain?partner=" + row.partner
		if got := run.Do(t, http.MethodGet, path, "", "Authorization", row.caller); got.StatusCode != row.http {
			t.Errorf("%+v: %d %s", row, got.StatusCode, got.Body)
		}
	}
}
