package server

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestNoWebPageCanDriveALoopbackListener sends what a page in a browser can: by
// DNS rebinding under its own name, and from its own origin.
func TestNoWebPageCanDriveALoopbackListener(t *testing.T) {
	t.Parallel()
	run := start(t, setup{source: approved()})
	const batch = "/v1/customers:batchCheckEligibility"
	for name, row := range map[string]struct {
		method, url, host string
		headers           []string
		want              int
	}{
		"a check by another name":       {"GET", run.rest + "/v1/customers/" + customerA + "/eligibility", "rebound.example:8080", nil, 403},
		"the documentation by another":  {"GET", run.rest + "/docs", "rebound.example", nil, 403},
		"a form of another site":        {"POST", run.rest + batch, "", []string{"Sec-Fetch-Site", "cross-site", "Content-Type", "application/x-www-form-urlencoded"}, 403},
		"an older browser's form":       {"POST", run.rest + batch, "", []string{"Origin", "https://evil.example"}, 403},
		"a link to a check":             {"GET", run.rest + "/v1/customers/" + customerA + "/eligibility?max_age=0s", "", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, 403},
		"a link to the documentation":   {"GET", run.rest + "/docs", "", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, 200},
		"the documentation's own call":  {"POST", run.rest + batch, "", []string{"Sec-Fetch-Site", "same-origin"}, 200},
		"curl by the name localhost":    {"POST", run.rest + batch, "localhost:1234", nil, 200},
		"metrics by another name":       {"GET", run.admin + "/metrics", "rebound.example", nil, 403},
		"a profile from another site":   {"GET", run.admin + "/debug/pprof/heap", "", []string{"Sec-Fetch-Site", "same-site"}, 403},
		"metrics by a loopback address": {"GET", run.admin + "/metrics", "127.0.0.9:1", nil, 200},
	} {
		req, err := http.NewRequestWithContext(t.Context(), row.method, row.url, strings.NewReader(`{"requests":[{}]}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = row.host
		for i := 0; i < len(row.headers); i += 2 {
			req.Header.Set(row.headers[i], row.headers[i+1])
		}
		resp, err := run.http.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != row.want {
			t.Errorf("%s: %d %.200s, %v", name, resp.StatusCode, body, err)
		}
		if got := (reply{resp, body}); row.want == 403 && strings.HasPrefix(row.url, run.rest) &&
			(got.status(t).reason() != "PERMISSION_DENIED" || resp.Header.Get("X-Request-Id") == "") {
			t.Errorf("%s: %v %s", name, resp.Header, body)
		}
	}
	if got := run.scrape(t, `eligibility_rpcs_total{code="OK",rpc="BatchCheckEligibility",via="rest"}`); len(got) != 1 || !strings.HasSuffix(got[0], " 2") {
		t.Errorf("batches that were asked: %q, want 2", got)
	}
}
