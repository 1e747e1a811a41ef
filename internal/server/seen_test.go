package server_test

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// seenREST reads an HTTP answer, and holds its headers to what every answer has.
func seenREST(t *testing.T, resp *http.Response, data []byte, batch bool) want {
	t.Helper()
	header := resp.Header
	if header.Get("Content-Type") != "application/json" || header.Get("X-Request-Id") == "" || bytes.Contains(data, []byte("null")) {
		t.Errorf("%d %v %s", resp.StatusCode, header, data)
	}
	var seen want
	switch {
	case resp.StatusCode != http.StatusOK:
		failure := new(rpcstatus.Status)
		if err := protojson.Unmarshal(data, failure); err != nil {
			t.Fatalf("body is no status: %v: %s", err, data)
		}
		seen = seenAnswer(t, nil, status.FromProto(failure))
		if header.Get("Cache-Control") != "no-store" || (header.Get("Retry-After") != "") != seen.Retry {
			t.Errorf("%d %v", resp.StatusCode, header)
		}
		if seen.Retry && header.Get("Retry-After") != strconv.Itoa(int(seen.RetryAfter.Seconds())) {
			t.Errorf("Retry-After %q, RetryInfo %v", header.Get("Retry-After"), seen.RetryAfter)
		}
	case batch:
		answer := new(eligibilityv1.BatchCheckEligibilityResponse)
		if err := protojson.Unmarshal(data, answer); err != nil {
			t.Fatalf("body is no answer: %v: %s", err, data)
		}
		seen = seenBatch(answer, status.New(0, ""))
	default:
		answer := new(eligibilityv1.CheckEligibilityResponse)
		if err := protojson.Unmarshal(data, answer); err != nil {
			t.Fatalf("body is no answer: %v: %s", err, data)
		}
		seen = seenAnswer(t, answer, status.New(0, ""))
		private := answer.GetExpireTime() != nil && !answer.GetStale()
		if header.Get("Etag") == "" || strings.HasPrefix(header.Get("Cache-Control"), "private, max-age=") != private ||
			(header.Get("Age") != "") != (answer.GetEvidenceTime() != nil) {
			t.Errorf("%d %v", resp.StatusCode, header)
		}
	}
	seen.HTTP = resp.StatusCode
	return seen
}

// seenAnswer converts an answer or an error to the corpus's words, and holds it to
// what every answer has.
func seenAnswer(t *testing.T, resp *eligibilityv1.CheckEligibilityResponse, st *status.Status) want {
	t.Helper()
	seen := want{GRPC: code.Code(st.Code()).String()} //nolint:gosec // a gRPC code
	for _, detail := range st.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			seen.Error = detail.GetReason()
			if detail.GetDomain() != "eligibility" {
				t.Errorf("domain %q", detail.GetDomain())
			}
		case *errdetails.RetryInfo:
			seen.Retry, seen.RetryAfter = true, wholeSeconds(detail.GetRetryDelay())
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				seen.Fields = append(seen.Fields, violation.GetField())
			}
		default:
			t.Errorf("unexpected detail %v", detail)
		}
	}
	if resp == nil {
		return seen
	}
	seen.Decision = bare(resp.GetDecision(), "DECISION_")
	seen.Reasons = seenReasons(resp)
	seen.AccountStatus = bare(resp.GetAccountStatus(), "ACCOUNT_STATUS_")
	seen.AccountStatusText = resp.GetAccountStatusText()
	seen.QualificationsUnknown = !resp.GetQualificationsKnown()
	seen.Source = bare(resp.GetSource(), "EVIDENCE_SOURCE_")
	seen.Stale = resp.GetStale()
	for _, held := range resp.GetQualifications() {
		q := qualification{
			Type: bare(held.GetType(), "QUALIFICATION_TYPE_"), TypeText: held.GetTypeText(),
			VettingStatus: bare(held.GetVettingStatus(), "VETTING_STATUS_"), VettingStatusText: held.GetVettingStatusText(),
			VettingReason: held.GetVettingReason(),
		}
		if at := held.GetVettingCreatedTime(); at != nil {
			q.VettingCreatedTime = at.AsTime().Format(time.RFC3339Nano)
		}
		seen.Qualifications = append(seen.Qualifications, q)
	}
	verify(t, resp)
	return seen
}

// verify holds an answer to what every answer has.
func verify(t *testing.T, resp *eligibilityv1.CheckEligibilityResponse) {
	t.Helper()
	temporary, evidence := resp.GetDecision() == eligibilityv1.Decision_DECISION_BLOCKED, false
	for _, reason := range resp.GetReasons() {
		if reason.GetMessage() == "" || reason.GetRemedy() == eligibilityv1.Remedy_REMEDY_UNSPECIFIED {
			t.Errorf("reason %v", reason)
		}
		if reason.GetRemedy() != eligibilityv1.Remedy_REMEDY_NONE && !reason.GetTemporary() {
			temporary = false
		}
		evidence = evidence || reason.GetCode() != eligibilityv1.ReasonCode_REASON_CODE_UNDECIDABLE
	}
	undecidable := slices.ContainsFunc(resp.GetReasons(), func(r *eligibilityv1.Reason) bool {
		return r.GetCode() == eligibilityv1.ReasonCode_REASON_CODE_UNDECIDABLE
	})
	known := resp.GetAccountStatus() != eligibilityv1.AccountStatus_ACCOUNT_STATUS_UNSPECIFIED
	for what, ok := range map[string]bool{
		"customer_id is canonical":                    resp.GetCustomerId() == corpusCustomer,
		"recheck_time is for a temporary block":       (resp.GetRecheckTime() != nil) == temporary,
		"evidence_time is there where evidence is":    (resp.GetEvidenceTime() != nil) == evidence,
		"expire_time is there where evidence decided": (resp.GetExpireTime() != nil) == (evidence && !undecidable),
		"correlation_id is the account fetch's":       (resp.GetCorrelationId() != "") == known,
		"evidence stops being fresh after its fetch":  !evidence || undecidable || resp.GetExpireTime().AsTime().After(resp.GetEvidenceTime().AsTime()),
		"rechecking is worthwhile some time from now": !temporary || resp.GetRecheckTime().AsTime().After(time.Now()),
		"nothing is listed where nothing is known":    resp.GetQualificationsKnown() || len(resp.GetQualifications()) == 0,
	} {
		if !ok {
			t.Errorf("it does not hold that %s: %v", what, resp)
		}
	}
}

func seenBatch(resp *eligibilityv1.BatchCheckEligibilityResponse, st *status.Status) want {
	seen := want{GRPC: code.Code(st.Code()).String()} //nolint:gosec // a gRPC code
	for _, detail := range st.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			seen.Error = detail.GetReason()
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				seen.Fields = append(seen.Fields, violation.GetField())
			}
		}
	}
	for _, item := range resp.GetResults() {
		if failure := item.GetError(); failure != nil {
			seen.Results = append(seen.Results, result{
				GRPC: code.Code(failure.GetCode()).String(), Error: failure.GetReason(),
				Retry: failure.GetRetryAfter() != nil, RetryAfter: wholeSeconds(failure.GetRetryAfter()),
			})
			continue
		}
		seen.Results = append(seen.Results, result{
			Decision: bare(item.GetResponse().GetDecision(), "DECISION_"), Reasons: seenReasons(item.GetResponse()),
		})
	}
	return seen
}

func seenReasons(resp *eligibilityv1.CheckEligibilityResponse) []reason {
	var seen []reason
	for _, r := range resp.GetReasons() {
		remedy := strings.TrimPrefix(bare(r.GetRemedy(), "REMEDY_"), "NONE")
		seen = append(seen, reason{Code: bare(r.GetCode(), "REASON_CODE_"), Temporary: r.GetTemporary(), Remedy: remedy})
	}
	return seen
}

// bare is a word of the API without the prefix of its enumeration.
func bare(word fmt.Stringer, prefix string) string {
	return strings.TrimPrefix(word.String(), prefix)
}

func wholeSeconds(d *durationpb.Duration) time.Duration {
	return (d.AsDuration() + time.Second - 1).Truncate(time.Second)
}
