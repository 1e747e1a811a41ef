package server_test

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/allowance"
	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// limitedTo returns callers who may all ask so much.
func limitedTo(t *testing.T, limit allowance.Limit) *allowance.Callers {
	t.Helper()
	callers, err := allowance.New(allowance.Config{Default: limit})
	if err != nil {
		t.Fatal(err)
	}
	return callers
}

// A caller over its limit is refused with when to ask again, over each transport, and
// no other caller is.
func TestACallerIsLimitedToItsRequests(t *testing.T) {
	t.Parallel()
	callers := apitest.EachRight()
	callers["check2"] = callers["check"]
	other := *callers["check"]
	other.Name = "other"
	callers["other"] = &other
	const burst = 5
	for _, transport := range []string{"grpc", "rest"} {
		run := startFor(t, callers, servertest.Setup{API: api.Config{Limits: limitedTo(t, allowance.Limit{RequestsPerSecond: 1, Burst: burst})}})
		ask := func(token, id string) (reason string, waits bool) {
			if transport == "rest" {
				got := run.Get(t, id, "", "Authorization", token)
				if got.StatusCode == http.StatusOK {
					return "", false
				}
				after, err := strconv.Atoi(got.Header.Get("Retry-After"))
				if got.StatusCode == http.StatusTooManyRequests && (err != nil || after < 1 || after > 2) {
					t.Errorf("%d, Retry-After %q", got.StatusCode, got.Header.Get("Retry-After"))
				}
				return got.Failure(t).Reason(), err == nil
			}
			_, err := run.Client.CheckEligibility(apitest.With(t.Context(), token), apitest.Ask(id))
			outcome := apitest.OutcomeOf(status.Convert(err))
			return outcome.Reason, outcome.Retry > 0
		}
		granted := 0
		for i := range 3 * burst {
			token, id := "check", apitest.CustomerA
			if i%2 == 1 {
				token = "check2" // another token of the same caller
			}
			want := ""
			if i == 1 {
				id, want = "malformed", "INVALID_ARGUMENT" // which counts too
			}
			switch reason, waits := ask(token, id); {
			case reason == want:
				granted++
			case reason != "CALLER_LIMITED" || !waits:
				t.Errorf("%s: request %d: %s, with a time to wait: %v", transport, i, reason, waits)
			}
		}
		if granted < burst || granted > burst+3 { // a slow machine takes seconds
			t.Errorf("%s: %d requests of a burst of %d", transport, granted, burst)
		}
		if reason, _ := ask("other", apitest.CustomerA); reason != "" {
			t.Errorf("%s: another caller: %s", transport, reason)
		}
		for _, want := range []string{`eligibility_caller_requests_total{caller="check",code="RESOURCE_EXHAUSTED"}`, `eligibility_caller_requests_total{caller="other",code="OK"} 1`} {
			if len(run.Scrape(t, want)) != 1 {
				t.Errorf("%s: no %s", transport, want)
			}
		}
	}
}

// A batch counts as its items, and only those over the limit are refused; if none is
// left, the batch is. A prefetch counts as its customers.
func TestABatchCountsAsItsItems(t *testing.T) {
	t.Parallel()
	const burst = 10
	for _, transport := range []string{"grpc", "rest"} {
		run := startFor(t, apitest.EachRight(), servertest.Setup{API: api.Config{Limits: limitedTo(t, allowance.Limit{RequestsPerSecond: 1, Burst: burst})}})
		ask := func(n int) (decided, limited int, reason string) {
			if transport == "rest" {
				items := strings.TrimSuffix(strings.Repeat(`{"customerId":"`+apitest.CustomerA+`"},`, n), ",")
				got := run.Post(t, `{"requests":[`+items+`]}`, "Authorization", "batch")
				if got.StatusCode != http.StatusOK {
					return 0, 0, got.Failure(t).Reason()
				}
				return strings.Count(string(got.Body), `"DECISION_ALLOWED"`), strings.Count(string(got.Body), `"reason":"CALLER_LIMITED","message":"The caller has reached its limit for now.","retryAfter":"`), ""
			}
			req := new(eligibilityv1.BatchCheckEligibilityRequest)
			for range n {
				req.Requests = append(req.Requests, apitest.Ask(apitest.CustomerA))
			}
			resp, err := run.Client.BatchCheckEligibility(apitest.With(t.Context(), "batch"), req)
			for i, result := range resp.GetResults() {
				switch failure := result.GetError(); {
				case failure == nil:
					decided++
					if limited > 0 {
						t.Errorf("item %d was answered after one that was refused", i)
					}
				case failure.GetReason() == "CALLER_LIMITED" && failure.GetRetryAfter().AsDuration() > 0:
					limited++
				}
			}
			return decided, limited, apitest.OutcomeOf(status.Convert(err)).Reason
		}
		if decided, limited, reason := ask(burst / 2); decided != burst/2 || limited != 0 {
			t.Errorf("%s: below the limit: %d decided, %d limited, %s", transport, decided, limited, reason)
		}
		decided, limited, _ := ask(2 * burst)
		if decided < burst/2 || decided > burst/2+3 || decided+limited != 2*burst {
			t.Errorf("%s: over the limit: %d decided, %d limited", transport, decided, limited)
		}
		ask(burst) // takes what a slow machine has added
		if _, _, reason := ask(2 * burst); reason != "CALLER_LIMITED" && transport == "grpc" {
			t.Errorf("%s: with nothing left: %q", transport, reason)
		}
		resp, err := run.Client.PrefetchEligibility(apitest.With(t.Context(), "prefetch"), &eligibilityv1.PrefetchEligibilityRequest{CustomerIds: manyCustomers(3 * burst)})
		if err != nil || int(resp.GetRefusedCount()) < 2*burst-3 || int(resp.GetRefusedCount()) > 2*burst {
			t.Errorf("%s: prefetch: %v, %v", transport, resp, err)
		}
	}
}

func manyCustomers(n int) []string {
	var ids []string
	for i := range n {
		ids = append(ids, "eeeeeeee-0000-4000-8000-"+strconv.Itoa(100_000_000_000+i))
	}
	return ids
}

// A batch is one of the calls in progress. Those of one caller take none from
// another.
func TestACallerIsLimitedToItsCallsInProgress(t *testing.T) {
	t.Parallel()
	callers := apitest.EachRight()
	both := *callers["check"]
	both.Name, both.Rights = "both", both.Rights|callers["batch"].Rights
	callers["both"] = &both
	started := make(chan struct{}, 1000)
	run := startFor(t, callers, servertest.Setup{
		Source: apitest.Noticed(started, apitest.Silent()),
		API:    api.Config{Limits: limitedTo(t, allowance.Limit{Concurrent: 2})},
	})
	ctx, cancel := context.WithCancel(apitest.With(t.Context(), "both"))
	var calls sync.WaitGroup
	t.Cleanup(func() { cancel(); calls.Wait() })
	ids := manyCustomers(6)
	calls.Go(func() { _, _ = run.Client.CheckEligibility(ctx, apitest.Ask(ids[0])) })
	calls.Go(func() {
		_, _ = run.Client.BatchCheckEligibility(ctx, &eligibilityv1.BatchCheckEligibilityRequest{Requests: []*eligibilityv1.CheckEligibilityRequest{
			apitest.Ask(ids[1]), apitest.Ask(ids[2]), apitest.Ask(ids[3]),
		}})
	})
	for range 8 {
		<-started
	}
	for _, id := range ids[:2] {
		_, err := run.Client.CheckEligibility(ctx, apitest.Ask(id))
		if got := apitest.OutcomeOf(status.Convert(err)); got.Reason != "CALLER_LIMITED" || got.Retry == 0 {
			t.Errorf("over gRPC: %v", err)
		}
		if got := run.Get(t, id, "", "Authorization", "both"); got.StatusCode != http.StatusTooManyRequests || got.Failure(t).Reason() != "CALLER_LIMITED" || got.Header.Get("Retry-After") != "1" {
			t.Errorf("over REST: %d %s", got.StatusCode, got.Body)
		}
	}
	brief, end := context.WithCancel(apitest.With(t.Context(), "check"))
	calls.Go(func() { _, _ = run.Client.CheckEligibility(brief, apitest.Ask(ids[5])) })
	<-started // another caller's call has begun
	end()
	cancel()
	calls.Wait()
	got := run.Get(t, ids[4], "", "Authorization", "both", "Grpc-Timeout", "50m")
	if reason := got.Failure(t).Reason(); reason != "DEADLINE_EXCEEDED" {
		// The calls over gRPC end a moment after their callers left.
		for reason == "CALLER_LIMITED" && t.Context().Err() == nil {
			reason = run.Get(t, ids[4], "", "Authorization", "both", "Grpc-Timeout", "50m").Failure(t).Reason()
		}
		if reason != "DEADLINE_EXCEEDED" {
			t.Errorf("after its calls have ended: %s", reason)
		}
	}
}
