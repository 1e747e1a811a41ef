package rest_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"
)

// routes are targets of requests on both sides of what is served without the gateway.
func routes() []string {
	const id = apitest.CustomerA
	return []string{
		"/v1/customers/" + id + "/eligibility", "/v1/customers/" + id + "/eligibility/", "/v1/customers/" + id + "/eligibility//",
		"/v1/customers/" + id + "/eligibility:explain", "/v1/customers/" + id + "/eligibility:", "/v1/customers/" + id + ":x/eligibility",
		"/v1/customers/%7B" + id + "%7D/eligibility", "/v1/customers/" + id + "%2Feligibility", "/v1/customers%2F" + id + "/eligibility",
		"/v1/customers/a%2Fb/eligibility", "/v1/customers/%2e%2e/eligibility", "/v1/customers/%00/eligibility", "/v1/customers/%ff/eligibility",
		"/v1/customers/%252F/eligibility", "/v1/customers//eligibility", "//v1/customers/" + id + "/eligibility", "/v1//customers/" + id + "/eligibility",
		"/v1/customers/eligibility", "/v1/customers/" + id, "/v1/customers/" + id + "/x/eligibility", "/v1/customers/" + id + "/Eligibility",
		"/v1/customers/" + id + "/eligibilit%79", "/v1/customers/ " + id + "/eligibility", "/v1/customers/x/eligibility", "/V1/customers/x/eligibility",
		"/v1/customers/" + id + "/eligibility?segment=education&max_age=1h", "/v1/customers/" + id + "/eligibility?segmnt=1", "/v1/customers/x/eligibility?%zz",
		"http://other/v1/customers/" + id + "/eligibility", "/v1/customers/" + id + "/eligibility;v=1", "/v1/customers/../customers/" + id + "/eligibility",
		"/v1/customers:batchCheckEligibility", "/v1/customers:batchCheckEligibility/", "/v1/customers%3AbatchCheckEligibility", "/v1/customers:batchcheckeligibility",
		"/v1/customers:batchCheckEligibilityX", "/v1/customers:prefetchEligibility", "/v1/customers:x", "/v1/customers/:batchCheckEligibility", "/v1/customers:batchCheckEligibility?x=1",
		"/v1/eligibility", "/v1/reviews", "/docs", "/docs/", "/openapi.json", "/", "//", "/console", "/console/x", "/v1",
	}
}

// answer is what a request is answered with.
type answer struct {
	Status int
	Header http.Header
	Body   string
}

// sameRoute fails if a request is answered otherwise than by way of the gateway.
func sameRoute(t *testing.T, run *servertest.Running, method, target, body string, headers http.Header) {
	t.Helper()
	at, err := url.ParseRequestURI(target)
	if err != nil {
		return // net/http answers it
	}
	ask := func(serve func(http.ResponseWriter, *http.Request, *access.Caller)) answer {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", strings.NewReader(body))
		asked := *at
		req.Method, req.URL, req.RequestURI, req.Header = method, &asked, target, headers.Clone()
		w := httptest.NewRecorder()
		serve(w, req, access.Anonymous)
		return answer{w.Code, w.Header(), w.Body.String()}
	}
	if diff := cmp.Diff(ask(run.Handler.RouteFor), ask(run.Handler.ServeFor)); diff != "" {
		t.Errorf("%s %s %q %v (-by the gateway +directly):\n%s", method, target, body, headers, diff)
	}
}

// startStill starts a server whose clock stands still: it has evidence of CustomerA, and
// knows no other customer.
func startStill(tb testing.TB) *servertest.Running {
	tb.Helper()
	now := time.Now()
	still := func() time.Time { return now }
	run := servertest.Start(tb, servertest.Setup{
		Source:  apitest.Absent(eligibility.AbsenceNotFound),
		Service: evidence.Config{Now: still},
		API:     api.Config{Logger: zap.NewNop(), Now: still},
	})
	run.Store.Hold(apitest.CustomerA, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed"}, now)
	run.Store.Hold(apitest.CustomerA, eligibility.FacetQualifications, eligibility.Evidence{}, now)
	return run
}

// TestTheDirectRouteIsThatOfTheGateway compares both for each target and method, with and
// without what a header may hold.
func TestTheDirectRouteIsThatOfTheGateway(t *testing.T) {
	t.Parallel()
	run := startStill(t)
	batch := `{"requests":[{"customerId":"` + apitest.CustomerA + `"},{"customerId":"x"}]}`
	for _, target := range routes() {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, "get", "X"} {
			for _, header := range [][2]string{
				{"Accept", "*/*"},
				{"If-None-Match", "*"},
				{"Cache-Control", "max-age=3600"},
				{"Grpc-Timeout", "1H"},
				{"Grpc-Timeout", "x"},
				{"Content-Type", "application/x-www-form-urlencoded"},
				{"Content-Type", "text/xml"},
				{"Content-Encoding", "gzip"},
				{"X-HTTP-Method-Override", "GET"},
				{"Accept-Language", "de"},
				{"Traceparent", apitest.ExampleTrace},
			} {
				sameRoute(t, run, method, target, batch, http.Header{http.CanonicalHeaderKey(header[0]): {header[1]}})
			}
		}
	}
}

// FuzzRoute compares the direct route with that of the gateway.
func FuzzRoute(f *testing.F) {
	for _, target := range routes() {
		f.Add("GET", target, "")
		f.Add("POST", target, `{"requests":[{"customerId":"`+apitest.CustomerA+`"}]}`)
	}
	run := startStill(f)
	f.Fuzz(func(t *testing.T, method, target, body string) {
		sameRoute(t, run, method, target, body, http.Header{})
	})
}
