package pcclient_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

const (
	account        = eligibility.FacetAccount
	qualifications = eligibility.FacetQualifications
)

// fetch asks for a facet as the service does.
func (r *rig) fetch(facet eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
	r.t.Helper()
	id, err := eligibility.ParseCustomerID(customerID)
	if err != nil {
		r.t.Fatal(err)
	}
	return pcclient.NewSource(r.Client).Fetch(r.t.Context(), evidence.Query{Key: eligibility.Key{CustomerID: id, Facet: facet}, Priority: evidence.NewPriority(evidence.LaneCheckout)})
}

// diff compares evidence, but for the id of the fetch.
func diff(want, got eligibility.Evidence) string {
	return cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(eligibility.Evidence{}),
		cmpopts.IgnoreFields(eligibility.Evidence{}, "CorrelationID", "RequestID", "Facet"))
}

// Answers of Partner Center become this evidence. The ids are those of the
// published wire cases.
func TestAnswersAreEvidence(t *testing.T) {
	t.Parallel()
	type evidence = eligibility.Evidence
	word := func(status eligibility.AccountStatus, text string) evidence {
		return evidence{Status: status, StatusText: text}
	}
	holds := func(held ...eligibility.Qualification) evidence { return evidence{Qualifications: held} }
	education := func(status eligibility.VettingStatus, text, reason string) eligibility.Qualification {
		return eligibility.Qualification{
			Type: eligibility.QualificationEducation, TypeText: "Education",
			VettingStatus: status, VettingStatusText: text, VettingReason: reason,
		}
	}
	owned := eligibility.Qualification{Type: eligibility.QualificationStateOwnedEntity, TypeText: "StateOwnedEntity"}
	dated := func(q eligibility.Qualification, date time.Time) eligibility.Qualification {
		q.VettingCreatedTime = date
		return q
	}
	tests := map[string]struct {
		facet  eligibility.Facet
		status int
		body   string
		want   evidence
	}{
		"VS-01":                    {account, 200, allowed, word(eligibility.AccountStatusAllowed, "Allowed")},
		"VS-02":                    {account, 200, `{"type":"account","status":"UnderReview","lastUpdateDateTime":""}`, word(eligibility.AccountStatusUnderReview, "UnderReview")},
		"VS-03":                    {account, 200, `{"type":"account","status":"NotAllowed"}`, word(eligibility.AccountStatusNotAllowed, "NotAllowed")},
		"VS-04":                    {account, 200, `{"type":"account","status":"Unknown"}`, word(eligibility.AccountStatusUnknown, "Unknown")},
		"VS-05":                    {account, 200, `{"type":"account","status":"Not Ready"}`, word(eligibility.AccountStatusNotReady, "Not Ready")},
		"VS-06":                    {account, 200, `{"type":"account","status":"Allowed","lastUpdateDateTime":"2021-07-14T18:02:00"}`, word(eligibility.AccountStatusAllowed, "Allowed")},
		"VS-11":                    {account, 200, `{"status":"under_REVIEW "}`, word(eligibility.AccountStatusUnderReview, "under_REVIEW ")},
		"VS-12":                    {account, 200, `{"status":"Approved"}`, word(eligibility.AccountStatusUnrecognized, "Approved")},
		"VS-12 blank":              {account, 200, `{"status":" "}`, word(eligibility.AccountStatusUnrecognized, " ")},
		"VS-15":                    {account, 200, `{"type":"Account","status":"Allowed"}`, word(eligibility.AccountStatusAllowed, "Allowed")},
		"VS-17":                    {account, 200, `{"status":"許可"}`, word(eligibility.AccountStatusUnrecognized, "許可")},
		"VS-20":                    {account, 404, `{"code":600074,"message":"x","description":"x","errorName":"AccountStatusNotFound","isRetryable":false,"errorMessageExtended":"InternalErrorCode=600074"}`, word(eligibility.AccountStatusNone, "")},
		"VS-20 string":             {account, 404, `{"code":"600074"}`, word(eligibility.AccountStatusNone, "")},
		"VS-24":                    {account, 404, `{"code":60003}`, evidence{Absence: eligibility.AbsenceNotFound}},
		"VS-24 of the other facet": {qualifications, 404, `{"code":"60003"}`, evidence{Absence: eligibility.AbsenceNotFound}},
		"VS-32":                    {account, 403, `{"code":20002}`, evidence{Absence: eligibility.AbsenceNotServed}},
		"A-11":                     {qualifications, 403, `{"code":20002,"description":"x","data":[],"source":"y"}`, evidence{Absence: eligibility.AbsenceNotServed}},
		"B-01":                     {account, 403, `{"code":"20002","description":"x"}`, evidence{Absence: eligibility.AbsenceNotServed}},

		"Q-01": {qualifications, 200, `[]`, holds()},
		"Q-02": {qualifications, 200, `[{"qualification":"Education","vettingStatus":"Approved"}]`, holds(education(eligibility.VettingApproved, "Approved", ""))},
		"Q-03": {
			qualifications, 200, `[{"qualification":"Education","vettingStatus":"InReview","vettingCreatedDate":"2020-12-03T10:37:38.885Z"}]`,
			holds(dated(education(eligibility.VettingInReview, "InReview", ""), time.Date(2020, 12, 3, 10, 37, 38, 885e6, time.UTC))),
		},
		"Q-04": {
			qualifications, 200, `[{"qualification":"Education","vettingStatus":"Denied","vettingReason":"Not an Education Customer"}]`,
			holds(education(eligibility.VettingDenied, "Denied", "Not an Education Customer")),
		},
		"Q-06": {qualifications, 200, `[{"qualification":"Education","vettingStatus":"Denied"}]`, holds(education(eligibility.VettingDenied, "Denied", ""))},
		"Q-07": {qualifications, 200, `[{"qualification":"StateOwnedEntity"}]`, holds(owned)},
		"Q-08": {
			qualifications, 200, `[{"qualification":"Education","vettingStatus":"Approved"},{"qualification":"StateOwnedEntity"}]`,
			holds(education(eligibility.VettingApproved, "Approved", ""), owned),
		},
		"Q-09": {
			qualifications, 200, `[{"qualification":"GovernmentCommunityCloud","vettingStatus":"Approved","vettingCreateDate":"2021-05-06T19:59:56.6832021+00:00"},{"qualification":"StateOwnedEntity"}]`,
			holds(eligibility.Qualification{
				Type: eligibility.QualificationGovernmentCommunityCloud, TypeText: "GovernmentCommunityCloud",
				VettingStatus: eligibility.VettingApproved, VettingStatusText: "Approved",
				VettingCreatedTime: time.Date(2021, 5, 6, 19, 59, 56, 683202100, time.UTC),
			}, owned),
		},
		"Q-10":             {qualifications, 200, `{"qualifications":[{"qualification":"StateOwnedEntity"}]}`, holds(owned)},
		"Q-11 first":       {qualifications, 200, `{"qualifications":[]}`, holds()},
		"one object":       {qualifications, 200, `{"Qualification":"StateOwnedEntity"}`, holds(owned)},
		"Q-13":             {qualifications, 200, `[{"qualification":"None"}]`, holds()},
		"Q-13 with status": {qualifications, 200, `[{"qualification":"none","vettingStatus":"Approved"},{"qualification":"StateOwnedEntity"}]`, holds(owned)},
		"Q-14": {
			qualifications, 200, `[{"qualification":"Nonprofit"}]`,
			holds(eligibility.Qualification{Type: eligibility.QualificationNonprofit, TypeText: "Nonprofit"}),
		},
		"Q-16": {
			qualifications, 200, `[{"qualification":"government_community_cloud"},{"qualification":"GCC"}]`,
			holds(eligibility.Qualification{Type: eligibility.QualificationGovernmentCommunityCloud, TypeText: "government_community_cloud"},
				eligibility.Qualification{TypeText: "GCC"}),
		},
		"Q-18": {qualifications, 200, `[{"qualification":"Education","vettingStatus":"Expired"}]`, holds(education(eligibility.VettingUnrecognized, "Expired", ""))},
		"Q-19": {qualifications, 200, `[{"qualification":"Education"}]`, holds(education(eligibility.VettingUnspecified, "", ""))},
	}
	for name, test := range tests {
		t.Run(name+" "+test.facet.String(), func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{api: responds(test.status, test.body)})
			got, call, err := r.fetch(test.facet)
			if err != nil {
				t.Fatal(err)
			}
			if d := diff(test.want, got); d != "" {
				t.Errorf("evidence (-want +got):\n%s", d)
			}
			if got.Facet != test.facet || got.CorrelationID == "" || got.CorrelationID != call.CorrelationID || got.RequestID == "" || got.RequestID != call.RequestID {
				t.Errorf("got %+v of %+v", got, call)
			}
			if call.Attempts != 1 || call.Status != test.status || call.RequestID == "" {
				t.Errorf("the call is %+v", call)
			}
		})
	}
}

// What is no evidence is an error of a kind; no row may bring a fact.
func TestFailuresAreKinds(t *testing.T) {
	t.Parallel()
	const (
		unavailable = eligibility.KindUnavailable
		throttled   = eligibility.KindThrottled
		credentials = eligibility.KindCredentials
		invalid     = eligibility.KindInvalidResponse
	)
	tests := map[string]struct {
		login, api answerer
		kind       eligibility.Kind
		retryAfter time.Duration
	}{
		"VS-13":                {nil, responds(200, `{"type":"account","status":""}`), invalid, 0},
		"VS-20 as 200":         {nil, responds(200, `{"code":600074}`), invalid, 0},
		"VS-20 as 400":         {nil, responds(400, `{"code":600074}`), invalid, 0},
		"VS-20 by name":        {nil, responds(404, `{"errorName":"AccountStatusNotFound"}`), invalid, 0},
		"VS-20 truncated":      {nil, responds(404, `{"code":600074`), invalid, 0},
		"VS-20 twice":          {nil, responds(404, `{"code":600074,"Code":600074}`), invalid, 0},
		"VS-23":                {nil, responds(404, `{"code":1000}`), invalid, 0},
		"VS-26 HTML":           {nil, responds(404, `<html>`), invalid, 0},
		"VS-26 empty":          {nil, responds(404, ``), invalid, 0},
		"VS-29":                {nil, responds(400, `{"code":3000}`), invalid, 0},
		"VS-33":                {nil, responds(403, `{"code":900329}`), credentials, 0},
		"Q-26":                 {nil, responds(200, `<a/>`, "Content-Type: application/xml"), invalid, 0},
		"Q-28":                 {nil, responds(200, `{"status":"Allowed",}`), invalid, 0},
		"60003 with 403":       {nil, responds(403, `{"code":60003}`), credentials, 0},
		"20002 with 404":       {nil, responds(404, `{"code":20002}`), invalid, 0},
		"A-01":                 {nil, responds(401, ``), credentials, 0},
		"A-02":                 {nil, responds(401, `{"code":900421}`), credentials, 0},
		"A-08":                 {nil, responds(403, `{"code":900308}`), credentials, 0},
		"A-12":                 {nil, responds(403, `{"code":"800039"}`), credentials, 0},
		"B-05":                 {nil, responds(403, `{"statusCode":403,"message":"x"}`), credentials, 0},
		"B-07 HTML":            {nil, responds(403, `<html>`), invalid, 0},
		"B-07 empty":           {nil, responds(403, ``), invalid, 0},
		"B-07 null":            {nil, responds(403, `null`), invalid, 0},
		"B-07 array":           {nil, responds(403, `[{"code":1}]`), invalid, 0},
		"R-01":                 {nil, responds(429, `{"statusCode":429}`, "Retry-After: 57"), throttled, 57 * time.Second},
		"R-03":                 {nil, responds(429, ``), throttled, time.Minute},
		"S-01":                 {nil, responds(500, `{"code":800003,"isRetryable":false}`), unavailable, 0},
		"S-03":                 {nil, responds(503, `{"isRetryable":false}`, "Retry-After: 20"), unavailable, 20 * time.Second},
		"S-07":                 {nil, responds(501, ``), invalid, 0},
		"S-10 HTML":            {nil, responds(200, `<html>`), invalid, 0},
		"S-10 truncated":       {nil, responds(200, `{"status":"Allowed"`), invalid, 0},
		"S-11":                 {nil, reset, unavailable, 0},
		"hang":                 {nil, hang, unavailable, 0},
		"redirect":             {nil, responds(302, ``, "Location: /"), invalid, 0},
		"F-01":                 {entra(400, "invalid_grant", 700082), nil, credentials, 0},
		"F-04":                 {entra(400, "interaction_required", 50076), nil, credentials, 0},
		"F-05":                 {entra(401, "invalid_client", 7000215), nil, credentials, 0},
		"F-10":                 {entra(503, "temporarily_unavailable", 90033), nil, unavailable, 0},
		"F-12":                 {responds(429, ``, "Retry-After: 9"), nil, throttled, 9 * time.Second},
		"F-13":                 {hang, nil, unavailable, 0},
		"F-14":                 {responds(200, `{"token_type":"Bearer"}`), nil, credentials, 0},
		"credentials with 503": {entra(400, "invalid_client", 1), responds(503, ``), credentials, 0},
	}
	for name, test := range tests {
		for _, facet := range []eligibility.Facet{account, qualifications} {
			t.Run(name+" "+facet.String(), func(t *testing.T) {
				t.Parallel()
				r := start(t, setup{login: test.login, api: test.api, config: func(c *pcclient.Config) { c.AttemptTimeout = 200 * time.Millisecond }})
				r.fails(facet, test.kind, test.retryAfter)
			})
		}
	}
}

func (r *rig) fails(facet eligibility.Facet, kind eligibility.Kind, retryAfter time.Duration) {
	r.t.Helper()
	got, call, err := r.fetch(facet)
	jitter := time.Duration(0)
	if r.api.count() == 0 {
		jitter = retryAfter / 10 // the login host's
	}
	var fail *eligibility.Error
	if !errors.As(err, &fail) {
		r.t.Fatalf("got %+v and %v, want an error", got, err)
	}
	if fail.Kind != kind || fail.RetryAfter < retryAfter || fail.RetryAfter > retryAfter+jitter || fail.Call != call {
		r.t.Errorf("got kind %v, retry after %v, call %+v of %+v, want %v and %v",
			fail.Kind, fail.RetryAfter, fail.Call, call, kind, retryAfter)
	}
	if d := diff(eligibility.Evidence{}, got); d != "" {
		r.t.Errorf("an error brings evidence (-want +got):\n%s", d)
	}
}

// The other facet's rule about 404 is not this one's.
func TestNoQualificationsIsNeverA404(t *testing.T) {
	t.Parallel()
	for _, code := range []string{`600074`, `"600074"`, `1000`, `404`, `null`} {
		r := start(t, setup{api: responds(http.StatusNotFound, `{"code":`+code+`}`)})
		r.fails(qualifications, eligibility.KindInvalidResponse, 0)
	}
}

func TestRefusalsOfOurOwnAreKinds(t *testing.T) {
	t.Parallel()
	t.Run("budget", func(t *testing.T) {
		t.Parallel()
		r := start(t, setup{config: withBudget(10)})
		r.ask()
		r.fails(account, eligibility.KindThrottled, 6100*time.Millisecond)
	})
	t.Run("pause", func(t *testing.T) {
		t.Parallel()
		r := start(t, setup{api: responds(429, "", "Retry-After: 57")})
		r.fails(qualifications, eligibility.KindThrottled, 57*time.Second)
		r.clock.advance(time.Second)
		r.fails(account, eligibility.KindThrottled, 56*time.Second)
	})
	t.Run("app-only", func(t *testing.T) {
		t.Parallel()
		r := start(t, setup{config: appOnly})
		r.fails(account, eligibility.KindCredentials, 0)
	})
	t.Run("no refresh token", func(t *testing.T) {
		t.Parallel()
		r := start(t, setup{})
		remove(t, r.file)
		r.fails(account, eligibility.KindCredentials, 0)
	})
}

// One resource may be refused while the other answers.
func TestFacetsFailApart(t *testing.T) {
	t.Parallel()
	r := start(t, setup{api: func(w http.ResponseWriter, req *http.Request, n int) {
		if req.URL.Query().Has("type") {
			responds(http.StatusForbidden, `{"code":900308}`)(w, req, n)
			return
		}
		responds(http.StatusOK, `[]`)(w, req, n)
	}})
	r.fails(account, eligibility.KindCredentials, 0)
	if _, _, err := r.fetch(qualifications); err != nil {
		t.Error(err)
	}
	if !r.shows(`credentials_alert{op="validation_status"} 1`) || !r.shows(`credentials_alert{op="qualifications"} 0`) {
		t.Errorf("metrics:\n%s", r.scrape())
	}
}

// The fetch has started when its first request is sent, behind every queue.
func TestAFetchReportsItsStartBeforeItsFirstRequest(t *testing.T) {
	t.Parallel()
	started := 0
	r := start(t, setup{
		login: func(w http.ResponseWriter, req *http.Request, n int) {
			if started != 0 {
				t.Error("started while it waited for a token")
			}
			grants(w, req, n)
		},
		api: func(w http.ResponseWriter, req *http.Request, n int) {
			if started != 1 {
				t.Errorf("started %d times at request %d", started, n)
			}
			status := http.StatusOK
			if n == 1 {
				status = http.StatusBadGateway
			}
			responds(status, allowed)(w, req, n)
		},
		config: withBudget(20),
	})
	id, err := eligibility.ParseCustomerID(customerID)
	if err != nil {
		t.Fatal(err)
	}
	query := evidence.Query{
		Key: eligibility.Key{CustomerID: id}, Priority: evidence.NewPriority(evidence.LaneCheckout), Started: func() { started++ },
	}
	source := pcclient.NewSource(r.Client)
	if _, call, err := source.Fetch(t.Context(), query); err != nil || call.Attempts != 2 {
		t.Fatalf("%d attempts, %v", call.Attempts, err)
	}
	if _, _, err := source.Fetch(t.Context(), query); err == nil || started != 1 {
		t.Errorf("started %d times, error %v: the budget was spent", started, err)
	}
}
