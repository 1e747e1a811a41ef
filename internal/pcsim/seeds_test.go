package pcsim_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// numbered returns a GUID that no seed has.
func numbered(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

func TestSeedsCoverWhatIsDocumented(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	token := r.userToken()
	var answers []string
	for _, c := range r.Customers() {
		if slices.ContainsFunc(slices.Concat(c.Account, c.Qualifications), func(s pcsim.Step) bool { return s.Latency > 0 }) {
			continue // a test of its own
		}
		for _, got := range []reply{r.account(c.ID, token), r.qualifications(c.ID, token)} {
			answers = append(answers, fmt.Sprint(got.status, " ", got.body))
		}
	}
	for _, want := range []string{
		`200 {"type":"account","status":"Allowed","lastUpdateDateTime":""}`,
		`200 {"type":"account","status":"UnderReview","lastUpdateDateTime":""}`,
		`200 {"type":"account","status":"NotAllowed","lastUpdateDateTime":""}`,
		`200 {"type":"account","status":"Unknown","lastUpdateDateTime":""}`,
		`200 {"type":"account","status":"Not Ready","lastUpdateDateTime":""}`,
		`200 {"type":"account","status":"Suspended","lastUpdateDateTime":""}`,
		`200 {"type":"account","status":"Allowed","lastUpdateDateTime":"2021-07-14T18:02:00"}`,
		`404 {"code":600074,`,
		`200 []`,
		`200 {"qualifications":[]}`,
		`200 {"qualifications":[{"qualification":"Education","vettingStatus":"Approved"}]}`,
		`200 [{"qualification":"Education","vettingStatus":"Approved"}]`,
		`200 [{"qualification":"Education","vettingStatus":"InReview","vettingCreatedDate":"2020-12-03T10:37:38.885Z"}]`,
		`200 [{"qualification":"Education","vettingStatus":"Denied","vettingReason":"Not an Education Customer",` +
			`"vettingCreatedDate":"2020-12-03T10:37:38.885Z"}]`,
		`200 [{"qualification":"StateOwnedEntity"}]`,
		`200 [{"qualification":"Education","vettingStatus":"Approved"},{"qualification":"StateOwnedEntity"}]`,
		`200 [{"qualification":"GovernmentCommunityCloud","vettingStatus":"Approved",` +
			`"vettingCreateDate":"2021-05-06T19:59:56.6832021+00:00"},{"qualification":"StateOwnedEntity"}]`,
		`200 [{"qualification":"Nonprofit","vettingStatus":"Approved"}]`,
		`404 {"code":60003,`, `403 {"code":20002,`,
		`503 <html>`, `429 {"statusCode":429,`,
	} {
		if !slices.ContainsFunc(answers, func(a string) bool { return strings.HasPrefix(a, want) }) {
			t.Errorf("no seed answers %s", want)
		}
	}
	for _, a := range answers { // no documentation artefact is sent
		if body := a[4:]; strings.HasPrefix(body, "{") || strings.HasPrefix(body, "[") {
			if !json.Valid([]byte(body)) {
				t.Errorf("no JSON: %s", a)
			}
		}
	}
}

func TestEverySeedDescribesItsPurpose(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, c := range newServer(t).Customers() {
		s := c.Summary()
		if s.Name == "" || names[s.Name] || !strings.HasSuffix(s.Shows, ".") || s.Account == "" || s.Qualifications == "" {
			t.Errorf("%+v", s)
		}
		names[s.Name] = true
	}
}

func TestSummariesReadAloud(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for id, want := range map[string][2]string{
		"a0000000-0000-4000-8000-000000000001": {"Allowed", "none"},
		"a0000000-0000-4000-8000-000000000007": {"HTTP 200", "none"},
		"d0000000-0000-4000-8000-000000000001": {"UnderReview for 1m0s, then Allowed", "none"},
		"e0000000-0000-4000-8000-000000000007": {"Allowed", "Education Approved + StateOwnedEntity"},
		"f0000000-0000-4000-8000-000000000001": {"404 code 60003", "404 code 60003"},
		"f0000000-0000-4000-8000-000000000002": {"403 code 20002", "403 code 20002"},
		"f0000000-0000-4000-8000-000000000003": {"Allowed after 1.5s", "none after 1.5s"},
		"f0000000-0000-4000-8000-000000000004": {"HTTP 503 once, then Allowed", "HTTP 503 once, then none"},
	} {
		c, _ := s.Customer(id)
		if got := c.Summary(); [2]string{got.Account, got.Qualifications} != want {
			t.Errorf("%s: %q, %q", id, got.Account, got.Qualifications)
		}
	}
	c := pcsim.Customer{Account: []pcsim.Step{
		{Failure: "reset", Times: 2}, {Status: "Allowed", Failure: "hang_body", Latency: time.Second},
	}}
	if got, want := c.Summary().Account, "reset 2 times, then Allowed (hang_body) after 1s"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSeededReviewEndsAfterAMinute(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	const id = "d0000000-0000-4000-8000-000000000001"
	token := r.userToken()
	for _, tc := range []struct {
		after time.Duration
		want  string
	}{{0, "UnderReview"}, {time.Minute - 1, "UnderReview"}, {1, "Allowed"}} {
		r.clock.Advance(tc.after)
		if got := r.account(id, token).body; !strings.Contains(got, `"`+tc.want+`"`) {
			t.Errorf("after %v: %s, want %s", tc.after, got, tc.want)
		}
	}
}
