package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// twoPartners know every customer, with different answers.
func twoPartners() map[string]apitest.Source {
	return map[string]apitest.Source{
		"eu": apitest.Approved(),
		"us": apitest.Returns(eligibility.AccountStatusNotAllowed, "NotAllowed"),
	}
}

func TestWhatNewPartnersRefuses(t *testing.T) {
	t.Parallel()
	service := new(evidence.Service)
	for name, row := range map[string]struct {
		services  map[string]*evidence.Service
		byDefault string
	}{
		"none":                {nil, ""},
		"no service":          {map[string]*evidence.Service{"eu": nil}, ""},
		"no name":             {map[string]*evidence.Service{"": service}, ""},
		"capitals":            {map[string]*evidence.Service{"EU": service}, ""},
		"a slash":             {map[string]*evidence.Service{"e/u": service}, ""},
		"a long name":         {map[string]*evidence.Service{strings.Repeat("e", 33): service}, ""},
		"an unknown default":  {map[string]*evidence.Service{"eu": service}, "us"},
		"a default of no one": {map[string]*evidence.Service{}, "eu"},
	} {
		if _, err := api.NewPartners(row.services, row.byDefault); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := api.NewPartners(map[string]*evidence.Service{strings.Repeat("e", 32): service, "a-1": service}, ""); err != nil {
		t.Error(err)
	}
}

// A name that is missing, unknown or malformed has the same violation, over both
// transports and in each RPC, which names no partner that exists.
func TestAPartnerThatIsNotKnownIsRefusedWithoutRevealingOthers(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Partners: twoPartners()})
	const want = `{"code":3,"message":"The request is not valid.","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"INVALID_ARGUMENT","domain":"eligibility"},{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"partner","description":"must name a partner that this service answers for"}]}]}`
	for _, name := range []string{"", "uk", "EU", "eu ", "e\x00u", "../eu", strings.Repeat("e", 33), strings.Repeat("e", 100_000)} {
		quoted, err := json.Marshal(name)
		if err != nil {
			t.Fatal(err)
		}
		_, err = run.Client.CheckEligibility(t.Context(), &eligibilityv1.CheckEligibilityRequest{CustomerId: apitest.CustomerA, Partner: name})
		if diff := cmp.Diff([]string{"partner"}, apitest.ViolatedBy(err)); diff != "" || status.Code(err) != codes.InvalidArgument {
			t.Errorf("%.40q: %v", name, err)
		}
		prefetched := run.Do(t, http.MethodPost, run.REST+"/v1/customers:prefetchEligibility", fmt.Sprintf(`{"customerIds":[%q],"partner":%s}`, apitest.CustomerA, quoted))
		if got := compact(t, prefetched.Body); got != want || prefetched.StatusCode != http.StatusBadRequest {
			t.Errorf("%.40q: prefetch: %d %s", name, prefetched.StatusCode, got)
		}
		batch := run.Post(t, fmt.Sprintf(`{"requests":[{"customerId":%q,"partner":%s}]}`, apitest.CustomerA, quoted))
		if got := string(batch.Body); got != `{"results":[{"error":{"code":3,"reason":"INVALID_ARGUMENT","message":"The request is not valid. requests[0].partner: must name a partner that this service answers for"}}]}` {
			t.Errorf("%.40q: batch: %s", name, got)
		}
	}
}

func compact(t *testing.T, body []byte) string {
	t.Helper()
	var b strings.Builder
	quoted := false
	for i, c := range body {
		if c == '"' && (i == 0 || body[i-1] != '\\') {
			quoted = !quoted
		}
		if quoted || c != ' ' {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// The record of an RPC names its partner and its operation, that of a batch for
// several the number of partners.
func TestARecordNamesThePartner(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Partners: twoPartners(), DefaultPartner: "eu"})
	for _, row := range []struct {
		ask  func()
		want map[string]any
	}{
		{func() { run.Get(t, apitest.CustomerA, "") }, map[string]any{"partner": "eu"}},
		{func() { run.Get(t, apitest.CustomerA, "?partner=us&operation=purchase") }, map[string]any{"partner": "us"}},
		{func() { run.Get(t, apitest.CustomerA, "?partner=us&operation=renewal") }, map[string]any{"partner": "us", "operation": "RENEWAL"}},
		{func() { run.Get(t, apitest.CustomerA, "?partner=uk&operation=renewal") }, map[string]any{}},
		{func() { run.Post(t, `{"requests":[{"customerId":"`+apitest.CustomerA+`","partner":"us"}]}`) }, map[string]any{"partner": "us"}},
		{
			func() {
				run.Post(t, `{"requests":[{"customerId":"`+apitest.CustomerA+`","partner":"us"},{"customerId":"`+apitest.CustomerA+`"},{"customerId":"`+apitest.CustomerA+`","partner":"us"}]}`)
			},
			map[string]any{"partners": int64(2)},
		},
		{
			func() {
				_, _ = run.Client.PrefetchEligibility(t.Context(), &eligibilityv1.PrefetchEligibilityRequest{CustomerIds: []string{apitest.CustomerA}, Partner: "us"})
			},
			map[string]any{"partner": "us", "fresh": int64(1), "fetching": int64(0), "refused": int64(0)},
		},
	} {
		row.ask()
		record, got := run.Record(t), make(map[string]any)
		for _, key := range []string{"partner", "partners", "operation", "fresh", "fetching", "refused"} {
			if value, ok := record[key]; ok {
				got[key] = value
			}
		}
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", record["rpc"], diff)
		}
	}
}

// A panic in the group of one partner is the call's, as in a batch for one.
func TestAPanicInAGroupOfABatchIsRecovered(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Partners: twoPartners(), DefaultPartner: "eu"})
	run.Stores["us"].Broken = true
	got := run.Post(t, `{"requests":[{"customerId":"`+apitest.CustomerA+`"},{"customerId":"`+apitest.CustomerA+`","partner":"us"}]}`)
	if got.StatusCode != http.StatusInternalServerError {
		t.Errorf("%d %s", got.StatusCode, got.Body)
	}
	if got := run.Get(t, apitest.CustomerA, ""); got.StatusCode != http.StatusOK {
		t.Errorf("then: %d %s", got.StatusCode, got.Body)
	}
}

// A conditional request with the tag of another partner's answer is confirmed only
// if the bodies are the same but for the source.
func TestATagOfAnotherPartnerConfirmsNothing(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Partners: twoPartners(), DefaultPartner: "eu"})
	at := time.Now().Truncate(time.Millisecond)
	for name, store := range run.Stores {
		store.Hold(apitest.CustomerA, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed", CorrelationID: name}, at)
		store.Hold(apitest.CustomerA, eligibility.FacetQualifications, eligibility.Evidence{}, at)
		store.Hold(apitest.CustomerB, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed"}, at)
		store.Hold(apitest.CustomerB, eligibility.FacetQualifications, eligibility.Evidence{}, at)
	}
	for customer, want := range map[string]int{apitest.CustomerA: http.StatusOK, apitest.CustomerB: http.StatusNotModified} {
		eu := run.Get(t, customer, "?partner=eu")
		us := run.Get(t, customer, "?partner=us", "If-None-Match", eu.Header.Get("Etag"))
		if us.StatusCode != want || eu.StatusCode != http.StatusOK {
			t.Errorf("%s: %d, want %d", customer, us.StatusCode, want)
		}
		if own := run.Get(t, customer, "?partner=us", "If-None-Match", us.Header.Get("Etag")); own.StatusCode != http.StatusNotModified {
			t.Errorf("%s: its own tag: %d", customer, own.StatusCode)
		}
	}
}

func TestWhatAPrefetchRefuses(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	ids := func(n int) []string {
		ids := make([]string, n)
		for i := range ids {
			ids[i] = fmt.Sprintf("cccccccc-0000-4000-8000-%012x", i)
		}
		return ids
	}
	for name, row := range map[string]struct {
		req  *eligibilityv1.PrefetchEligibilityRequest
		want []string
	}{
		"none":                       {&eligibilityv1.PrefetchEligibilityRequest{}, []string{"customer_ids"}},
		"too many":                   {&eligibilityv1.PrefetchEligibilityRequest{CustomerIds: ids(1001)}, []string{"customer_ids"}},
		"as many":                    {&eligibilityv1.PrefetchEligibilityRequest{CustomerIds: ids(1000)}, nil},
		"no GUID":                    {&eligibilityv1.PrefetchEligibilityRequest{CustomerIds: []string{apitest.CustomerA, "x", ""}}, []string{"customer_ids[1]", "customer_ids[2]"}},
		"an unknown segment":         {&eligibilityv1.PrefetchEligibilityRequest{CustomerIds: ids(1), Segment: 9}, []string{"segment"}},
		"an unknown partner":         {&eligibilityv1.PrefetchEligibilityRequest{CustomerIds: ids(1), Partner: "eu"}, []string{"partner"}},
		"everything":                 {&eligibilityv1.PrefetchEligibilityRequest{CustomerIds: []string{"x"}, Segment: -1, Partner: "eu"}, []string{"customer_ids[0]", "segment", "partner"}},
		"more faults than are named": {&eligibilityv1.PrefetchEligibilityRequest{CustomerIds: make([]string, 1000)}, nil},
	} {
		_, err := run.Client.PrefetchEligibility(t.Context(), row.req)
		got := apitest.ViolatedBy(err)
		if name == "more faults than are named" {
			if len(got) != 101 || got[100] != "" {
				t.Errorf("%s: %d fields", name, len(got))
			}
			continue
		}
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for body, want := range map[string]string{
		``:                     "customer_ids",
		`{"customerIds":"x"}`:  "request",
		`{"customerIds":[1]}`:  "request",
		`{"customerIdz":[]}`:   "request",
		`{"customerIds":[]}{}`: "request",
	} {
		got := run.Do(t, http.MethodPost, run.REST+"/v1/customers:prefetchEligibility", body)
		if fields := got.Failure(t).Fields(); got.StatusCode != http.StatusBadRequest || len(fields) != 1 || fields[0] != want {
			t.Errorf("%s: %d %s", body, got.StatusCode, got.Body)
		}
	}
}

// Prefetching returns at once, also if Partner Center never answers, and counts a
// customer that is named twice, in any form, once.
func TestAPrefetchWaitsForNothing(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Silent()})
	run.Store.Hold(apitest.CustomerB, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed}, time.Now())
	run.Store.Hold(apitest.CustomerB, eligibility.FacetQualifications, eligibility.Evidence{}, time.Now())
	body := fmt.Sprintf(`{"customerIds":[%q,"{%s}",%q,%q],"segment":"SEGMENT_EDUCATION"}`,
		apitest.CustomerA, strings.ToUpper(apitest.CustomerA), apitest.CustomerB, strings.ReplaceAll(apitest.CustomerA, "-", ""))
	began := time.Now()
	for range 2 {
		got := run.Do(t, http.MethodPost, run.REST+"/v1/customers:prefetchEligibility", body)
		if want := `{"freshCount":1,"fetchingCount":1,"refusedCount":0}`; string(got.Body) != want {
			t.Errorf("%d %s, want %s", got.StatusCode, got.Body, want)
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

// A batch over gRPC that needed Partner Center for one partner states the partner's
// budget; one that was answered from the cache, or is for several, does not.
func TestABatchThatNeededPartnerCenterStatesTheBudget(t *testing.T) {
	t.Parallel()
	sources := twoPartners()
	sources["down"] = apitest.Fails(eligibility.Error{Kind: eligibility.KindThrottled})
	run := servertest.Start(t, servertest.Setup{Partners: sources, API: api.Config{Budgets: map[string]int{"eu": 400, "us": 90, "down": 1}}})
	for _, row := range []struct {
		name     string
		partners []string
		want     []string
	}{
		{"cold", []string{"eu"}, []string{"400"}},
		{"warm", []string{"eu"}, nil},
		{"another partner", []string{"us"}, []string{"90"}},
		{"throttled", []string{"down"}, []string{"1"}},
		{"several", []string{"eu", "down"}, nil},
		{"refused", []string{"uk"}, nil},
	} {
		req := new(eligibilityv1.BatchCheckEligibilityRequest)
		for _, name := range row.partners {
			req.Requests = append(req.Requests, &eligibilityv1.CheckEligibilityRequest{CustomerId: apitest.CustomerA, Partner: name})
		}
		var trailer metadata.MD
		if _, err := run.Client.BatchCheckEligibility(t.Context(), req, grpc.Trailer(&trailer)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(row.want, trailer.Get(api.TrailerBudget)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, diff)
		}
	}
}
