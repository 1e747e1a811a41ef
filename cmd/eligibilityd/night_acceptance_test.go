//go:build acceptance

package main

import (
	"bytes"
	"context"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

// docs/scaling.md has the figures of -night.customers 200000 -night.budget 40000, and of the default
// budget of the service with -night.limit 3m.
var (
	nightCustomers = flag.Int("night.customers", 12_000, "customers of the night run")
	nightBudget    = flag.Int("night.budget", 6_000, "budget of the night run, calls a minute")
	nightLimit     = flag.Duration("night.limit", 0, "interrupt the night run after that time; 0 means never")
)

// A long list of customers of whom there is no evidence costs one call for each, and
// every one of them is answered.
func TestAcceptanceNightRun(t *testing.T) {
	for name, redis := range map[string]func() []string{
		"without Redis": func() []string { return nil },
		"with Redis":    func() []string { return redisAt(cachetest.StartRedis(t).Address) },
	} {
		t.Run(name, func(t *testing.T) {
			sim, on := pcsimtest.Start(t)
			customer := regexp.MustCompile(`^/v1/customers/[^/]+/`)
			everyone := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.URL.Path = customer.ReplaceAllString(r.URL.Path, "/v1/customers/"+allowedID+"/")
				on.Config.Handler.ServeHTTP(w, r)
			}))
			t.Cleanup(everyone.Close)
			far := &partnerHost{sim: sim, url: everyone.URL}
			const budget = "ELIGIBILITY_PARTNERS__EU__BUDGET_PER_MINUTE="
			partner := slices.DeleteFunc(far.environ(t, "eu"), func(entry string) bool { return strings.HasPrefix(entry, budget) })
			environ := anyPort(append(slices.Concat(partner, redis()), budget+strconv.Itoa(*nightBudget), "ELIGIBILITY_SERVER__DRAIN=0s")...)
			p := start(t, func(ctx context.Context, out, log io.Writer) error { return serve(ctx, environ, "", false, out, log) })

			ids := nightly(*nightCustomers)
			root := newRootCommand()
			var out bytes.Buffer
			progress := new(output)
			root.SetArgs([]string{"check", "--json", "--partner", "eu", "--address", p.GRPC, "-"})
			root.SetIn(strings.NewReader(strings.Join(ids, "\n")))
			root.SetOut(&out)
			root.SetErr(progress)
			ctx := t.Context()
			if *nightLimit > 0 {
				limited, cancel := context.WithTimeout(ctx, *nightLimit)
				defer cancel()
				ctx = limited
			}
			began := time.Now()
			code := run(ctx, root)
			took := time.Since(began)
			calls, answered := sim.Stats().Account+sim.Stats().Qualifications, strings.Count(out.String(), "DECISION_ALLOWED")
			perCustomer := float64(calls) / float64(answered)
			t.Logf("%d of %d customers answered in %v: %.0f a minute, %d calls (%d of them for qualifications), %.4f a customer\n%s",
				answered, len(ids), took.Round(time.Second), float64(answered)/took.Minutes(), calls, sim.Stats().Qualifications, perCustomer, progress)
			if *nightLimit > 0 {
				return
			}
			if code != 0 || answered != len(ids) || perCustomer > 1.01 {
				t.Errorf("exit code %d, %d of %d customers answered, %.4f calls for each", code, answered, len(ids), perCustomer)
			}
			for i, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
				if !strings.Contains(line, ids[i]) {
					t.Fatalf("line %d is about another customer than %s: %s", i, ids[i], line)
				}
			}
		})
	}
}
