package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/health"
	"github.com/eligibilityd/eligibilityd/internal/server"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"
)

func TestReadyzVerbose(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 28, 15, 2, 3, 123456789, time.FixedZone("CET", 3600))
	failing := health.Condition{State: health.Failing, Since: at, Kind: "throttled", Time: at.Add(time.Second)}
	read := func(c health.Condition) func() health.Condition { return func() health.Condition { return c } }
	run := servertest.Start(t, servertest.Setup{Server: server.Config{Components: []health.Source{
		{Name: "partner_center", Partner: "default", Read: read(failing)},
		{Name: "webhook", Partner: "default", Webhook: "erp", Read: read(health.Condition{Since: at})},
		{Name: "issuer", Issuer: "https://issuer.example", Read: read(health.Condition{State: health.OK, Since: at})},
	}}})
	const components = `"components":[` +
		`{"name":"partner_center","partner":"default","state":"failing","since":"2026-11-28T14:02:03.123Z","last_error":{"kind":"throttled","time":"2026-11-28T14:02:04.123Z"}},` +
		`{"name":"webhook","partner":"default","webhook":"erp","state":"unknown","since":"2026-11-28T14:02:03.123Z"},` +
		`{"name":"issuer","issuer":"https://issuer.example","state":"ok","since":"2026-11-28T14:02:03.123Z"}]}` + "\n"
	verify := func(code int, status string) {
		t.Helper()
		for _, base := range []string{run.Admin, run.Probe} {
			for _, query := range []string{"?verbose", "?verbose=1", "?other&verbose="} {
				got := run.Do(t, http.MethodGet, base+"/readyz"+query, "")
				if got.StatusCode != code || string(got.Body) != `{"status":"`+status+`",`+components || got.Header.Get("Content-Type") != "application/json" {
					t.Errorf("%s: %s %s", query, got.Status, got.Body)
				}
			}
			for _, query := range []string{"", "?verbos", "?x=verbose"} {
				if got := run.Do(t, http.MethodGet, base+"/readyz"+query, ""); got.StatusCode != code || string(got.Body) != `{"status":"`+status+`"}`+"\n" {
					t.Errorf("%q: %s %s", query, got.Status, got.Body)
				}
			}
			if got := run.Do(t, http.MethodPost, base+"/readyz?verbose", ""); got.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("POST: %s", got.Status)
			}
		}
	}
	verify(http.StatusServiceUnavailable, "starting")
	run.Server.SetReady()
	verify(http.StatusOK, "ready")
}

// With as many partners as there may be, the answer is bounded.
func TestReadyzVerboseOfManyPartners(t *testing.T) {
	t.Parallel()
	var sources []health.Source
	for i := range 100 {
		for _, name := range []string{"partner_center", "login", "feed", "webhook"} {
			c := health.New(nil)
			c.Failed("refresh_token_store")
			sources = append(sources, health.Source{Name: name, Partner: fmt.Sprintf("%s-%d", strings.Repeat("p", 50), i), Read: c.Read})
		}
	}
	run := servertest.Start(t, servertest.Setup{Server: server.Config{Components: sources}})
	got := run.Do(t, http.MethodGet, run.Probe+"/readyz?verbose", "")
	var answer struct{ Components []any }
	if err := json.Unmarshal(got.Body, &answer); err != nil || len(answer.Components) != len(sources) || len(got.Body) > 128<<10 {
		t.Fatalf("%v: %d components, %d bytes", err, len(answer.Components), len(got.Body))
	}
}
