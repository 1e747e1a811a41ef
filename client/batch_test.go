package client

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

type (
	batchRequest  = eligibilityv1.BatchCheckEligibilityRequest
	batchResponse = eligibilityv1.BatchCheckEligibilityResponse
	batchResult   = eligibilityv1.BatchCheckEligibilityResult
)

func questions(n int) []Request {
	all := make([]Request, n)
	for i := range all {
		all[i].CustomerID = fmt.Sprintf("c0000000-0000-4000-8000-%012d", i)
	}
	return all
}

func answered(response *eligibilityv1.CheckEligibilityResponse) *batchResult {
	return &batchResult{Result: &eligibilityv1.BatchCheckEligibilityResult_Response{Response: response}}
}

func failed(code codes.Code, reason string, retry time.Duration) *batchResult {
	e := &eligibilityv1.BatchCheckEligibilityError{Code: int32(code), Reason: reason, Message: "A sentence."} //nolint:gosec // gRPC codes end at 16
	if retry > 0 {
		e.RetryAfter = durationpb.New(retry)
	}
	return &batchResult{Result: &eligibilityv1.BatchCheckEligibilityResult_Error{Error: e}}
}

// Batches are split, at most four calls are made at once, and each verdict is at the
// place of its question.
func TestBatchesAreSplit(t *testing.T) {
	t.Parallel()
	const n = 7500
	var mu sync.Mutex
	calls, now, most := 0, 0, 0
	full := make(chan struct{}) // closed when four calls are under way
	c := dial(t, serve(t, far{batch: func(_ context.Context, request *batchRequest) (*batchResponse, error) {
		mu.Lock()
		calls, now = calls+1, now+1
		if most = max(most, now); calls == batchesAtOnce {
			close(full)
		}
		mu.Unlock()
		<-full
		response := new(batchResponse)
		for _, q := range request.GetRequests() {
			decision := eligibilityv1.Decision_DECISION_ALLOWED
			if q.GetCustomerId()[35] == '7' {
				decision = eligibilityv1.Decision_DECISION_BLOCKED
			}
			response.Results = append(response.Results, answered(answer(q.GetCustomerId(), decision)))
		}
		if len(response.GetResults()) > batchSize {
			t.Errorf("%d questions in a call", len(response.GetResults()))
		}
		mu.Lock()
		now--
		mu.Unlock()
		return response, nil
	}}).address, Config{})
	asked := questions(n)
	verdicts := c.CheckBatch(t.Context(), asked)
	for i, v := range verdicts {
		if v.Allowed() == (i%10 == 7) || v.Response().GetCustomerId() != asked[i].CustomerID {
			t.Fatalf("question %d: %v, %v, about %s", i, v.Outcome(), v.Err(), v.Response().GetCustomerId())
		}
	}
	if len(verdicts) != n || calls != 8 || most != batchesAtOnce {
		t.Errorf("%d verdicts by %d calls, %d at once", len(verdicts), calls, most)
	}
	if none := c.CheckBatch(t.Context(), nil); len(none) != 0 || calls != 8 {
		t.Errorf("%d verdicts of nothing, %d calls", len(none), calls)
	}
}

// Only questions that a retry can answer are asked again.
func TestOnlyCurableQuestionsAreAskedAgain(t *testing.T) {
	t.Parallel()
	var calls [][]string
	results := [][]*batchResult{{
		answered(allowed(questions(8)[0].CustomerID)),
		failed(codes.Unavailable, "PARTNER_CENTER_THROTTLED", time.Millisecond),
		failed(codes.InvalidArgument, "INVALID_ARGUMENT", 0),
		failed(codes.Unavailable, "PARTNER_CENTER_THROTTLED", time.Hour),
		failed(codes.Unavailable, "PARTNER_CENTER_CREDENTIALS", 0),
		answered(allowed(fabrikam)),
		failed(codes.Unavailable, "PARTNER_CENTER_UNAVAILABLE", 2*time.Millisecond),
		{},
	}, {
		answered(allowed(questions(8)[1].CustomerID)),
		failed(codes.Unavailable, "PARTNER_CENTER_CREDENTIALS", 0),
	}}
	c := dial(t, serve(t, far{batch: func(_ context.Context, request *batchRequest) (*batchResponse, error) {
		var ids []string
		for _, q := range request.GetRequests() {
			ids = append(ids, q.GetCustomerId())
		}
		calls = append(calls, ids)
		return &batchResponse{Results: results[len(calls)-1]}, nil
	}}).address, Config{})
	asked := questions(8)
	verdicts := c.CheckBatch(t.Context(), asked)
	if len(calls) != 2 || len(calls[1]) != 2 || calls[1][0] != asked[1].CustomerID || calls[1][1] != asked[6].CustomerID {
		t.Errorf("calls: %v", calls)
	}
	for i, want := range []string{"", "", "INVALID_ARGUMENT", "PARTNER_CENTER_THROTTLED", "PARTNER_CENTER_CREDENTIALS", "INVALID_RESPONSE", "PARTNER_CENTER_CREDENTIALS", "INVALID_RESPONSE"} {
		reason := ""
		if verdicts[i].err != nil {
			reason = verdicts[i].err.Reason
		}
		if reason != want || verdicts[i].Allowed() != (want == "") {
			t.Errorf("question %d: %v, %v", i, verdicts[i].Outcome(), verdicts[i].Err())
		}
	}
}

// A call that fails spoils its own thousand, and a call with too few or too many answers
// decides nothing.
func TestABatchCallThatFails(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	for name, respond := range map[string]func() (*batchResponse, error){
		"refused":          func() (*batchResponse, error) { return nil, refusal(codes.PermissionDenied, "PERMISSION_DENIED") },
		"too few answers":  func() (*batchResponse, error) { return &batchResponse{Results: make([]*batchResult, 3)}, nil },
		"too many answers": func() (*batchResponse, error) { return &batchResponse{Results: make([]*batchResult, 1001)}, nil },
		"lost": func() (*batchResponse, error) {
			calls.Add(1)
			return nil, status.Error(codes.Unavailable, "connection reset")
		},
	} {
		c := dial(t, serve(t, far{batch: func(_ context.Context, request *batchRequest) (*batchResponse, error) {
			if request.GetRequests()[0].GetCustomerId() == questions(1)[0].CustomerID {
				return respond()
			}
			response := new(batchResponse)
			for _, q := range request.GetRequests() {
				response.Results = append(response.Results, answered(allowed(q.GetCustomerId())))
			}
			return response, nil
		}}).address, Config{})
		for i, v := range c.CheckBatch(t.Context(), questions(2000)) {
			if v.Allowed() != (i >= 1000) {
				t.Errorf("%s: question %d: %v, %v", name, i, v.Outcome(), v.Err())
				break
			}
		}
	}
	if calls.Load() != 6 {
		t.Errorf("a call that was lost was made %d times", calls.Load())
	}
}
