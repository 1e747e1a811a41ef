package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// recordTo returns a configuration with a decision log, and what reads its records,
// once.
func recordTo(t testing.TB, cfg api.Config, log decisionlog.Config) (_ api.Config, records func() []decisionlog.Record) {
	t.Helper()
	if log.File == "" {
		log.File = filepath.Join(t.TempDir(), "decisions.jsonl")
	}
	log.MaxBytes, log.MaxFiles, log.AllowedSample = 100<<20, 1, 1
	l, err := decisionlog.New(log)
	if err != nil {
		t.Fatal(err)
	}
	go l.Run()
	closed := false
	t.Cleanup(func() {
		if !closed {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = l.Close(ctx)
		}
	})
	cfg.Decisions = l
	cfg.Policies = map[string]*decisionlog.Policy{api.DefaultPartner: decisionlog.NewPolicy(eligibility.Policy{}, eligibility.DefaultAges())}
	return cfg, func() []decisionlog.Record {
		closed = true
		if err := l.Close(context.Background()); err != nil {
			t.Error(err)
		}
		text, err := os.ReadFile(log.File)
		if err != nil {
			t.Fatal(err)
		}
		var all []decisionlog.Record
		for line := range bytes.Lines(text) {
			r, err := decisionlog.Parse(line)
			if err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			all = append(all, r)
		}
		return all
	}
}

// Each answer over gRPC and REST, alone and in a batch, has one record, which states
// the same and from which it can be derived again.
func TestEachAnswerHasOneRecord(t *testing.T) {
	t.Parallel()
	source := func(ctx context.Context, id eligibility.CustomerID, facet eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
		switch id[15] % 5 {
		case 0:
			return apitest.Returns(eligibility.AccountStatusAllowed, "Allowed")(ctx, id, facet)
		case 1:
			return apitest.Returns(eligibility.AccountStatusUnderReview, "UnderReview")(ctx, id, facet)
		case 2:
			return apitest.Absent(eligibility.AbsenceNotFound)(ctx, id, facet)
		case 3:
			return apitest.Fails(eligibility.Error{Kind: eligibility.KindThrottled})(ctx, id, facet)
		default:
			return apitest.Returns(eligibility.AccountStatusNone, "")(ctx, id, facet)
		}
	}
	cfg, records := recordTo(t, api.Config{}, decisionlog.Config{Block: true})
	run := servertest.Start(t, servertest.Setup{Source: source, API: cfg})
	want := make(map[string]string) // decision id → customer, outcome, reasons
	id := func(n int) string { return fmt.Sprintf("aaaaaaaa-0000-4000-8000-%012x", n) }
	answered := func(decision, customer string, answer *eligibilityv1.CheckEligibilityResponse, failure string) {
		outcome := "error " + failure
		if failure == "" {
			outcome = strings.ToLower(strings.TrimPrefix(answer.GetDecision().String(), "DECISION_"))
			for _, reason := range answer.GetReasons() {
				outcome += " " + strings.TrimPrefix(reason.GetCode().String(), "REASON_CODE_")
			}
		}
		want[decision] = customer + " " + outcome
	}
	segments := []eligibilityv1.Segment{eligibilityv1.Segment_SEGMENT_UNSPECIFIED, eligibilityv1.Segment_SEGMENT_EDUCATION, 77}
	batch := new(eligibilityv1.BatchCheckEligibilityRequest)
	for n := range 15 {
		req := apitest.Ask(id(n))
		req.Segment = segments[n/5]
		batch.Requests = append(batch.Requests, req)
		decision := fmt.Sprintf("grpc-%d", n)
		resp, err := run.Client.CheckEligibility(metadata.AppendToOutgoingContext(t.Context(), "x-request-id", decision), req)
		failure := ""
		if err != nil {
			failure = reasonIn(err)
		}
		answered(decision, id(n), resp, failure)

		decision = fmt.Sprintf("rest-%d", n)
		got := run.Get(t, id(n), fmt.Sprintf("?segment=%d", req.GetSegment()), "X-Request-Id", decision)
		if got.StatusCode == http.StatusOK {
			answered(decision, id(n), resp, "") // both transports answer the same
		} else {
			answered(decision, id(n), nil, got.Failure(t).Reason())
		}
	}
	batch.Requests = append(batch.Requests, apitest.Ask("nobody"))
	resp, err := run.Client.BatchCheckEligibility(metadata.AppendToOutgoingContext(t.Context(), "x-request-id", "batch"), batch)
	if err != nil {
		t.Fatal(err)
	}
	for place, result := range resp.GetResults() {
		customer := batch.GetRequests()[place].GetCustomerId()
		answered(fmt.Sprintf("batch/%d", place), strings.TrimPrefix(customer, "nobody"), result.GetResponse(), result.GetError().GetReason())
	}
	body, err := json.Marshal(map[string]any{"requests": []any{map[string]string{"customerId": id(0)}, map[string]string{"customerId": id(1)}, 3}})
	if err != nil {
		t.Fatal(err)
	}
	if got := run.Post(t, string(body), "X-Request-Id", "post"); got.StatusCode != http.StatusOK {
		t.Fatalf("%d: %s", got.StatusCode, got.Body)
	}
	want["post/0"], want["post/1"], want["post/2"] = id(0)+" allowed ACCOUNT_ALLOWED", id(1)+" blocked ACCOUNT_UNDER_REVIEW", " error INVALID_ARGUMENT"
	run.Post(t, `{"requests":[]}`, "X-Request-Id", "empty")
	run.Get(t, "nobody", "", "X-Request-Id", "no-guid")
	want["empty"], want["no-guid"] = " error INVALID_ARGUMENT", " error INVALID_ARGUMENT"

	for _, r := range records() {
		got := r.Question.Customer.String() + " " + r.Outcome.String()
		for _, reason := range r.Reasons {
			got += " " + reason.String()
		}
		if r.Outcome == decisionlog.OutcomeError {
			got += " " + r.Kind.Reason()
		}
		if want[r.DecisionID] != got {
			t.Errorf("%s: recorded %q, answered %q", r.DecisionID, got, want[r.DecisionID])
		}
		delete(want, r.DecisionID)
		if !strings.HasPrefix(r.DecisionID, r.RequestID) || r.Sampled != 1 || r.Question.Invalid != (r.Kind == eligibility.KindInvalidArgument) {
			t.Errorf("%+v", r)
		}
		if r.Basis.Time.IsZero() != r.Question.Invalid {
			t.Errorf("%s: evidence of %v", r.DecisionID, r.Basis.Time)
		}
		if r.Basis.Time.IsZero() {
			continue
		}
		answer, err := eligibility.Decide(r.Policy.Values, r.Question.Segment, r.Question.Operation, r.Basis.Account, r.Basis.Qualifications, r.Basis.Time)
		again := make([]eligibility.ReasonCode, 0, 2)
		for _, reason := range answer.Reasons {
			again = append(again, reason.Code)
		}
		if !slices.Equal(again, r.Reasons) && len(again)+len(r.Reasons) > 0 || (err != nil) != (r.Outcome == decisionlog.OutcomeError) || r.Partner != api.DefaultPartner {
			t.Errorf("%s: again %v, %v", r.DecisionID, answer, err)
		}
	}
	for decision := range want {
		t.Errorf("%s has no record", decision)
	}
}

// A question that is refused before it is asked has a record, too.
func TestRefusalsHaveRecords(t *testing.T) {
	t.Parallel()
	started := make(chan struct{}, 2)
	cfg, records := recordTo(t, api.Config{MaxConcurrent: 1}, decisionlog.Config{})
	run := servertest.Start(t, servertest.Setup{Source: apitest.Noticed(started, apitest.Silent()), API: cfg})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = run.Client.CheckEligibility(ctx, apitest.Ask(apitest.CustomerA))
	}()
	<-started
	outgoing := func(id string) context.Context {
		return metadata.AppendToOutgoingContext(t.Context(), "x-request-id", id)
	}
	if _, err := run.Client.CheckEligibility(outgoing("one"), apitest.Ask(apitest.CustomerB)); reasonIn(err) != "OVERLOADED" {
		t.Error(err)
	}
	batch := &eligibilityv1.BatchCheckEligibilityRequest{Requests: []*eligibilityv1.CheckEligibilityRequest{apitest.Ask(apitest.CustomerA), apitest.Ask(apitest.CustomerB)}}
	if _, err := run.Client.BatchCheckEligibility(outgoing("two"), batch); reasonIn(err) != "OVERLOADED" {
		t.Error(err)
	}
	cancel()
	<-ended
	run.Stop()
	if err := <-run.Ended; err != nil {
		t.Error(err)
	}
	got := make(map[string]string)
	for _, r := range records() {
		got[r.DecisionID] = r.Question.Customer.String() + " " + r.Kind.Reason()
	}
	for id, want := range map[string]string{"one": apitest.CustomerB, "two/0": apitest.CustomerA, "two/1": apitest.CustomerB} {
		if got[id] != want+" OVERLOADED" {
			t.Errorf("%s: %q", id, got[id])
		}
	}
	if len(got) != 4 {
		t.Errorf("%v", got)
	}
}

// With block, no answer leaves without a record: a caller without time gets an error.
func TestNoAnswerWithoutARecord(t *testing.T) {
	t.Parallel()
	cfg, _ := recordTo(t, api.Config{DefaultTimeout: 200 * time.Millisecond}, decisionlog.Config{File: "/dev/full", Block: true})
	for range 10_000 { // the queue
		if err := cfg.Decisions.Write(t.Context(), new(decisionlog.Record)); err != nil {
			t.Fatal(err)
		}
	}
	run := servertest.Start(t, servertest.Setup{Source: apitest.Returns(eligibility.AccountStatusAllowed, "Allowed"), API: cfg})
	if resp, err := run.Client.CheckEligibility(t.Context(), apitest.Ask(apitest.CustomerA)); reasonIn(err) != "DEADLINE_EXCEEDED" {
		t.Errorf("%v, %v", resp, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	batch := &eligibilityv1.BatchCheckEligibilityRequest{Requests: []*eligibilityv1.CheckEligibilityRequest{apitest.Ask(apitest.CustomerA), apitest.Ask("nobody")}}
	resp, err := run.Client.BatchCheckEligibility(ctx, batch)
	if err == nil {
		for place, want := range []string{"DEADLINE_EXCEEDED", "INVALID_ARGUMENT"} {
			if result := resp.GetResults()[place]; result.GetError().GetReason() != want {
				t.Errorf("item %d: %v", place, result)
			}
		}
	} else if ctx.Err() == nil {
		t.Error(err)
	}
	// A refusal needs no room, and is returned as it is.
	if _, err := run.Client.CheckEligibility(t.Context(), apitest.Ask("nobody")); reasonIn(err) != "INVALID_ARGUMENT" {
		t.Error(err)
	}
	// No caller is to blame.
	if got := run.Scrape(t, `eligibility_questions_total{outcome="abandoned"} 0`); len(got) != 1 {
		t.Errorf("outcomes: %v", run.Scrape(t, "eligibility_questions_total"))
	}
	if got := run.Scrape(t, `eligibility_questions_total{outcome="failed"} `); len(got) != 1 || strings.HasSuffix(got[0], " 0") {
		t.Errorf("failed: %v", got)
	}
}

// reasonIn returns the reason of an RPC's error.
func reasonIn(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// If customers are hashed in the decision log, the access log has no id of them either.
func TestTheAccessLogNamesCustomersAsTheDecisionLogDoes(t *testing.T) {
	t.Parallel()
	key := []byte(strings.Repeat("k", 32))
	cfg, _ := recordTo(t, api.Config{}, decisionlog.Config{HashKey: func() []byte { return key }})
	run := servertest.Start(t, servertest.Setup{Source: apitest.Fails(eligibility.Error{Kind: eligibility.KindUnavailable}), API: cfg})
	run.Store.Hold(apitest.CustomerA, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusNotAllowed}, time.Now())
	run.Store.Hold(apitest.CustomerA, eligibility.FacetQualifications, eligibility.Evidence{}, time.Now())
	named := func(text string) string {
		id, err := eligibility.ParseCustomerID(text)
		if err != nil {
			t.Fatal(err)
		}
		return decisionlog.HashedCustomer(key, id).String()
	}
	run.Get(t, apitest.CustomerA, "")
	if got := run.Record(t)["customer_id"]; got != named(apitest.CustomerA) {
		t.Errorf("a single check: %v", got)
	}
	run.Post(t, `{"requests":[{"customerId":"`+apitest.CustomerA+`"},{"customerId":"`+apitest.CustomerB+`"}]}`)
	record := run.Record(t)
	if fmt.Sprint(record["blocked_ids"], record["failed_ids"]) != fmt.Sprint([]string{named(apitest.CustomerA)}, []string{named(apitest.CustomerB)}) {
		t.Errorf("a batch: %v, %v", record["blocked_ids"], record["failed_ids"])
	}
}

// What a user of the console asks is recorded with the user's name.
func TestTheRecordNamesThePerson(t *testing.T) {
	t.Parallel()
	cfg, records := recordTo(t, api.Config{}, decisionlog.Config{Block: true})
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved(), API: cfg})
	in := &api.Inbound{RequestID: "of-the-page"}
	in.Admit(&access.Caller{Name: "console", Person: "anna@contoso.example", Rights: access.AllRights})
	ctx := context.WithValue(t.Context(), api.InboundKey{}, in)
	if _, err := run.Handler.Client().CheckEligibility(ctx, &eligibilityv1.CheckEligibilityRequest{CustomerId: apitest.CustomerA}); err != nil {
		t.Fatal(err)
	}
	if _, err := run.Client.CheckEligibility(t.Context(), &eligibilityv1.CheckEligibilityRequest{CustomerId: apitest.CustomerA}); err != nil {
		t.Fatal(err)
	}
	run.Stop()
	all := records()
	if len(all) != 2 || all[0].Caller != "console" || all[0].Person != "anna@contoso.example" || all[0].DecisionID != "of-the-page" {
		t.Fatalf("records %+v", all)
	}
	if all[1].Person != "" {
		t.Errorf("another caller's record names %q", all[1].Person)
	}
}
