package server_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"
)

// TestNoWebPageCanDriveALoopbackListener sends what a page in a browser can: by
// DNS rebinding under its own name, and from its own origin.
func TestNoWebPageCanDriveALoopbackListener(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	const batch = "/v1/customers:batchCheckEligibility"
	for name, row := range map[string]struct {
		method, url, host string
		headers           []string
		want              int
	}{
		"a check by another name":       {"GET", run.REST + "/v1/customers/" + apitest.CustomerA + "/eligibility", "rebound.example:8080", nil, 403},
		"the documentation by another":  {"GET", run.REST + "/docs", "rebound.example", nil, 403},
		"a form of another site":        {"POST", run.REST + batch, "", []string{"Sec-Fetch-Site", "cross-site", "Content-Type", "application/x-www-form-urlencoded"}, 403},
		"an older browser's form":       {"POST", run.REST + batch, "", []string{"Origin", "https://evil.example"}, 403},
		"a link to a check":             {"GET", run.REST + "/v1/customers/" + apitest.CustomerA + "/eligibility?max_age=0s", "", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, 403},
		"a link to the documentation":   {"GET", run.REST + "/docs", "", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, 200},
		"the documentation's own call":  {"POST", run.REST + batch, "", []string{"Sec-Fetch-Site", "same-origin"}, 200},
		"curl by the name localhost":    {"POST", run.REST + batch, "localhost:1234", nil, 200},
		"metrics by another name":       {"GET", run.Admin + "/metrics", "rebound.example", nil, 403},
		"a profile from another site":   {"GET", run.Admin + "/debug/pprof/heap", "", []string{"Sec-Fetch-Site", "same-site"}, 403},
		"metrics by a loopback address": {"GET", run.Admin + "/metrics", "127.0.0.9:1", nil, 200},
	} {
		req, err := http.NewRequestWithContext(t.Context(), row.method, row.url, strings.NewReader(`{"requests":[{}]}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = row.host
		for i := 0; i < len(row.headers); i += 2 {
			req.Header.Set(row.headers[i], row.headers[i+1])
		}
		resp, err := run.HTTP.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != row.want {
			t.Errorf("%s: %d %.200s, %v", name, resp.StatusCode, body, err)
		}
		if got := (servertest.Reply{Response: resp, Body: body}); row.want == 403 && strings.HasPrefix(row.url, run.REST) &&
			(got.Failure(t).Reason() != "PERMISSION_DENIED" || resp.Header.Get("X-Request-Id") == "") {
			t.Errorf("%s: %v %s", name, resp.Header, body)
		}
	}
	if got := run.Scrape(t, `eligibility_rpcs_total{code="OK",rpc="BatchCheckEligibility",via="rest"}`); len(got) != 1 || !strings.HasSuffix(got[0], " 2") {
		t.Errorf("batches that were asked: %q, want 2", got)
	}
}
