package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// Without the right fresh, a max_age below 30 s counts as 30 s, in each form in which
// it can be asked for.
func TestOnlyTheRightFreshForcesAFetch(t *testing.T) {
	t.Parallel()
	callers := apitest.Callers{
		"plain":  {Name: "plain", Rights: access.AllRights &^ access.Fresh},
		"demand": {Name: "demand", Rights: access.AllRights},
	}
	run := startFor(t, callers, servertest.Setup{})
	const customer = apitest.CustomerA
	hold := func(age time.Duration) {
		at := time.Now().Add(-age)
		run.Store.Hold(customer, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed"}, at)
		run.Store.Hold(customer, eligibility.FacetQualifications, eligibility.Evidence{}, at)
	}
	rest := func(query string, headers ...string) func(token string) string {
		return func(token string) string {
			got := run.Get(t, customer, query, append(headers, "Authorization", token)...)
			source, _ := got.JSON(t)["source"].(string)
			return source
		}
	}
	zero := &eligibilityv1.CheckEligibilityRequest{CustomerId: customer, MaxAge: durationpb.New(0)}
	for name, ask := range map[string]func(token string) string{
		"query":         rest("?max_age=0s"),
		"no-cache":      rest("", "Cache-Control", "no-cache"),
		"max-age":       rest("", "Cache-Control", "max-age=5"),
		"both":          rest("?max_age=20s", "Cache-Control", "no-cache"),
		"just below 30": rest("?max_age=29.999999999s", "X", "y"),
		"batch": func(token string) string {
			got := run.Post(t, `{"requests":[{"customerId":"`+customer+`","maxAge":"0s"}]}`, "Authorization", token)
			_, after, _ := strings.Cut(string(got.Body), `"source":"`)
			source, _, _ := strings.Cut(after, `"`)
			return source
		},
		"batch with no-cache": func(token string) string {
			got := run.Post(t, `{"requests":[{"customerId":"`+customer+`"}]}`, "Authorization", token, "Cache-Control", "no-cache")
			_, after, _ := strings.Cut(string(got.Body), `"source":"`)
			source, _, _ := strings.Cut(after, `"`)
			return source
		},
		"grpc": func(token string) string {
			resp, err := run.Client.CheckEligibility(apitest.With(t.Context(), token), zero)
			if err != nil {
				t.Error(err)
			}
			return resp.GetSource().String()
		},
		"batch over grpc": func(token string) string {
			resp, err := run.Client.BatchCheckEligibility(apitest.With(t.Context(), token), &eligibilityv1.BatchCheckEligibilityRequest{Requests: []*eligibilityv1.CheckEligibilityRequest{zero}})
			if err != nil || len(resp.GetResults()) != 1 {
				t.Fatal(err)
			}
			return resp.GetResults()[0].GetResponse().GetSource().String()
		},
	} {
		age := 10 * time.Second
		if name == "just below 30" {
			age = 29 * time.Second
		}
		hold(age)
		if name != "just below 30" { // a slow machine may pass the 30 s
			if got := ask("plain"); got != "EVIDENCE_SOURCE_LOCAL" {
				t.Errorf("%s, without the right: %s", name, got)
			}
		}
		hold(age)
		if got := ask("demand"); got != "EVIDENCE_SOURCE_PARTNER_CENTER" && name != "just below 30" {
			t.Errorf("%s, with the right: %s", name, got)
		}
		hold(40 * time.Second)
		if got := ask("plain"); got != "EVIDENCE_SOURCE_PARTNER_CENTER" {
			t.Errorf("%s, without the right, evidence of 40 s: %s", name, got)
		}
	}
	if got := run.Get(t, customer, "?max_age=-1s", "Authorization", "plain"); got.StatusCode != http.StatusBadRequest {
		t.Errorf("negative: %d", got.StatusCode)
	}
}

// A partner that the caller may not ask about is one that does not exist, the default
// among them.
func TestAForbiddenPartnerIsAnUnknownOne(t *testing.T) {
	t.Parallel()
	callers := apitest.Callers{
		"eu":   {Name: "eu", Rights: access.AllRights, Partners: []string{"eu"}},
		"none": {Name: "none", Rights: access.AllRights, Partners: []string{}},
		"all":  {Name: "all", Rights: access.AllRights},
	}
	run := startFor(t, callers, servertest.Setup{
		Partners: map[string]apitest.Source{"eu": apitest.Approved(), "us": apitest.Approved()}, DefaultPartner: "us",
	})
	for _, row := range []struct {
		token, partner string
		allowed        bool
	}{
		{"eu", "eu", true},
		{"eu", "us", false},
		{"eu", "", false}, // the default is us
		{"eu", "unknown", false},
		{"none", "eu", false},
		{"none", "", false},
		{"all", "us", true},
		{"all", "", true},
		{"all", "unknown", false},
	} {
		const text = "partner: must name a partner that this service answers for"
		query := ""
		if row.partner != "" {
			query = "?partner=" + row.partner
		}
		got := run.Get(t, apitest.CustomerA, query, "Authorization", row.token)
		if row.allowed != (got.StatusCode == http.StatusOK) || !row.allowed && got.Failure(t).Violations() != text {
			t.Errorf("%+v: %d %s", row, got.StatusCode, got.Body)
		}
		ctx := apitest.With(t.Context(), row.token)
		item := &eligibilityv1.CheckEligibilityRequest{CustomerId: apitest.CustomerA, Partner: row.partner}
		_, err := run.Client.CheckEligibility(ctx, item)
		batch, batchErr := run.Client.BatchCheckEligibility(ctx, &eligibilityv1.BatchCheckEligibilityRequest{Requests: []*eligibilityv1.CheckEligibilityRequest{item}})
		_, prefetchErr := run.Client.PrefetchEligibility(ctx, &eligibilityv1.PrefetchEligibilityRequest{CustomerIds: []string{apitest.CustomerA}, Partner: row.partner})
		if row.allowed {
			if err != nil || batchErr != nil || prefetchErr != nil || batch.GetResults()[0].GetError() != nil {
				t.Errorf("%+v: %v %v %v %v", row, err, batchErr, prefetchErr, batch)
			}
			continue
		}
		if fields := append(apitest.ViolatedBy(err), apitest.ViolatedBy(prefetchErr)...); fmt.Sprint(fields) != "[partner partner]" {
			t.Errorf("%+v: %v, %v", row, err, prefetchErr)
		}
		if failure := batch.GetResults()[0].GetError(); failure.GetMessage() != "The request is not valid. requests[0]."+text {
			t.Errorf("%+v: %v", row, failure)
		}
	}
}

// The caller is in the record, and neither a token nor what was in place of one is.
func TestRecordsNameTheCallerAndNoToken(t *testing.T) {
	t.Parallel()
	callers := apitest.EachRight()
	callers["Bearer very-secret-check"] = callers["check"]
	run := startFor(t, callers, servertest.Setup{})
	for _, token := range []string{"Bearer very-secret-check", "Bearer very-secret-guess"} {
		_, _ = run.Client.CheckEligibility(apitest.With(t.Context(), token), apitest.Ask(apitest.CustomerA))
		_, _ = run.Client.BatchCheckEligibility(apitest.With(t.Context(), token), new(eligibilityv1.BatchCheckEligibilityRequest))
		run.Get(t, apitest.CustomerA, "", "Authorization", token)
		run.Do(t, http.MethodGet, run.REST+"/docs", "", "Authorization", token)
		run.Post(t, "{}", "Authorization", token)
	}
	seen := make(map[string]int)
	for _, record := range run.Logs.FilterMessage("rpc handled").All() {
		fields := record.ContextMap()
		if strings.Contains(fmt.Sprint(fields), "secret") {
			t.Errorf("%v", fields)
		}
		seen[fmt.Sprintf("%v %v %v %v", fields["caller"], fields["code"], fields["via"], fields["error"])]++
	}
	for record, count := range map[string]int{
		"check OK grpc <nil>": 1, "check OK rest <nil>": 1,
		"check PERMISSION_DENIED grpc eligibility: permission_denied":            1,
		"check PERMISSION_DENIED rest eligibility: permission_denied":            1,
		"<nil> UNAUTHENTICATED grpc eligibility: unauthenticated: unknown token": 2,
		"<nil> UNAUTHENTICATED rest eligibility: unauthenticated: unknown token": 3,
	} {
		if seen[record] != count {
			t.Errorf("%d records %q, want %d; all: %v", seen[record], record, count, seen)
		}
	}
	for _, want := range []string{
		`eligibility_caller_requests_total{caller="check",code="OK"} 2`,
		`eligibility_caller_requests_total{caller="check",code="PERMISSION_DENIED"} 2`,
		`eligibility_caller_requests_total{caller="",code="UNAUTHENTICATED"} 5`,
	} {
		if len(run.Scrape(t, want)) != 1 {
			t.Errorf("no %s among %q", want, run.Scrape(t, "eligibility_caller_requests_total"))
		}
	}
}

// Records of refused requests are as few as those of other failures.
func TestRecordsOfRefusedRequestsAreLimited(t *testing.T) {
	t.Parallel()
	run := startFor(t, apitest.EachRight(), servertest.Setup{API: api.Config{FailureRecords: 2}})
	began := time.Now()
	for range 200 {
		run.Get(t, apitest.CustomerA, "")
		_, _ = run.Client.CheckEligibility(t.Context(), apitest.Ask(apitest.CustomerA))
	}
	if got, most := run.Logs.FilterMessage("rpc handled").Len(), 2*(2+int(time.Since(began)/time.Second)); got > most {
		t.Errorf("%d records, want at most %d", got, most)
	}
	if got := run.Scrape(t, `eligibility_caller_requests_total{caller="",code="UNAUTHENTICATED"} 400`); len(got) != 1 {
		t.Errorf("%q", run.Scrape(t, "eligibility_caller_requests_total"))
	}
}

// Health is open, also to watch; reflection needs the right check; a method that does
// not exist is refused after its caller was authenticated.
func TestMethodsBesideTheAPI(t *testing.T) {
	t.Parallel()
	run := startFor(t, apitest.EachRight(), servertest.Setup{})
	health := grpc_health_v1.NewHealthClient(run.Conn)
	if _, err := health.Check(t.Context(), new(grpc_health_v1.HealthCheckRequest)); err != nil {
		t.Error(err)
	}
	watch, err := health.Watch(t.Context(), new(grpc_health_v1.HealthCheckRequest))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Error(err)
	}
	for token, want := range map[string]codes.Code{"": codes.Unauthenticated, "batch": codes.PermissionDenied, "check": codes.OK} {
		stream, err := grpc_reflection_v1.NewServerReflectionClient(run.Conn).ServerReflectionInfo(apitest.With(t.Context(), token))
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}})
		if _, err := stream.Recv(); status.Code(err) != want {
			t.Errorf("reflection, %q: %v, want %v", token, err, want)
		}
	}
	for _, method := range []string{
		"/eligibility.v1.EligibilityService/Nothing", "/none.Such/Method", "//eligibility.v1.EligibilityService/CheckEligibility",
		"/eligibility.v1.eligibilityservice/CheckEligibility", "/grpc.health.v1.Health/Nothing",
	} {
		for token, want := range map[string]codes.Code{"": codes.Unauthenticated, "check": codes.Unimplemented} {
			err := run.Conn.Invoke(apitest.With(t.Context(), token), method, apitest.Ask(apitest.CustomerA), new(eligibilityv1.CheckEligibilityResponse))
			if status.Code(err) != want {
				t.Errorf("%s, %q: %v, want %v", method, token, err, want)
			}
		}
	}
	if got := run.Scrape(t, `eligibility_rpcs_total{code="UNIMPLEMENTED",rpc="other",via="grpc"} 5`); len(got) != 1 {
		t.Errorf("%q", run.Scrape(t, `eligibility_rpcs_total{code="UNIMPLEMENTED"`))
	}
}

// An RPC that is not in the table of rights is refused to every caller.
func TestAnRPCWithoutAnEntryIsRefused(t *testing.T) {
	t.Parallel()
	desc := grpc.ServiceDesc{
		ServiceName: "made.Up", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Call", Handler: grpc_health_v1.Health_ServiceDesc.Methods[0].Handler}},
		Streams: []grpc.StreamDesc{{StreamName: "Stream", ServerStreams: true, ClientStreams: true, Handler: func(any, grpc.ServerStream) error { return nil }}},
	}
	callers := apitest.Callers{"all": {Name: "all", Rights: access.AllRights}}
	run := startFor(t, callers, servertest.Setup{Services: []api.Service{{Desc: &desc, Impl: struct{}{}}}})
	for _, method := range []string{"/made.Up/Call", "/made.Up/Stream"} {
		err := run.Conn.Invoke(apitest.With(t.Context(), "all"), method, new(grpc_health_v1.HealthCheckRequest), new(grpc_health_v1.HealthCheckResponse))
		if status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v", method, err)
		}
	}
}
