package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

// partnerHost is the Partner Center and login host of one partner, which can be made
// to fail.
type partnerHost struct {
	sim  *pcsim.Server
	url  string
	fail atomic.Pointer[http.HandlerFunc] // answers in place of the simulator
}

func startPartnerHost(t *testing.T) *partnerHost {
	t.Helper()
	sim, on := pcsimtest.Start(t)
	f := &partnerHost{sim: sim}
	handler := on.Config.Handler
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fail := f.fail.Load(); fail != nil {
			(*fail)(w, r)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	f.url = front.URL
	return f
}

// hang does not answer until the caller has left.
func hang(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // until it is read, the server does not notice that the caller left
	<-r.Context().Done()
}

// environ returns the variables of a partner of that name at f.
func (f *partnerHost) environ(t *testing.T, name string) []string {
	t.Helper()
	var environ []string
	for _, entry := range []string{
		"BASE_URL=" + f.url, "AUTHORITY=" + f.url, "TENANT_ID=" + pcsim.DefaultTenantID, "CLIENT_ID=" + pcsim.DefaultClientID,
		"CLIENT_SECRET=" + pcsim.DefaultClientSecret, "REFRESH_TOKEN_FILE=" + pcsimtest.TokenFile(t), "BUDGET_PER_MINUTE=100000",
	} {
		environ = append(environ, "ELIGIBILITY_PARTNERS__"+strings.ToUpper(name)+"__"+entry)
	}
	return environ
}

// customers adds allowed customers, and returns their ids.
func (f *partnerHost) customers(t *testing.T, family string, n int) []string {
	t.Helper()
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("%s000000-0000-4000-9000-%012x", family, i)
		if err := f.sim.SetCustomer(pcsim.Customer{ID: ids[i], Account: []pcsim.Step{{Status: "Allowed"}}}); err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

// startPartners serves partners a and b.
func startPartners(t *testing.T, a, b *partnerHost, more ...string) *process {
	t.Helper()
	environ := anyPort(append(slices.Concat(a.environ(t, "a"), b.environ(t, "b"), more), "ELIGIBILITY_SERVER__DRAIN=0s")...)
	return start(t, func(ctx context.Context, out, log io.Writer) error {
		return serve(ctx, environ, "", false, out, log)
	})
}

// failure matches the metrics that show a failure, a refusal or a wait, without
// those of Redis that a busy machine moves.
var failure = regexp.MustCompile(`^eligibility_(partner_center_(breaker_open|pause_seconds|login_.*|credentials_alert|refusals_total|retries_total|budget_refused_total|budget_limit|` +
	`token_renewals_total|refresh_token_store_failures_total|refresh_token_unstored|(fetches_total|request_duration_seconds_count).*outcome="[^o].*)|` +
	`stale_answers_total|cache_(outbox_dropped|lost_writes|write_backs|unreadable_.*)_total|cache_redis_faults_total.*kind="(pool|refused|connection)")`)

// failures returns the series of a partner that match failure.
func failures(t *testing.T, p *process, partner string) map[string]string {
	t.Helper()
	_, _, metrics := get(t, "http://"+p.Admin+"/metrics")
	found := make(map[string]string)
	for line := range strings.SplitSeq(metrics, "\n") {
		if series, value, ok := strings.Cut(line, "} "); ok && strings.Contains(series, `partner="`+partner+`"`) && failure.MatchString(series) {
			found[series+"}"] = value
		}
	}
	return found
}

// One partner fails in each way that a partner can; the other's figures stay the
// same, and its callers notice nothing.
func TestAPartnersFailureDoesNotReachAnother(t *testing.T) {
	t.Parallel()
	refuse := func(status int, header, value, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(header, value)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	throttled := refuse(http.StatusTooManyRequests, "Retry-After", "60", "")
	for name, c := range map[string]struct {
		fail  http.HandlerFunc
		shows string // the series of partner a that proves that it fails
	}{
		"throttled": {throttled, `eligibility_partner_center_pause_seconds{partner="a"}`},
		"its secret refused": {func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/oauth2/") {
				refuse(http.StatusUnauthorized, "Content-Type", "application/json",
					`{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided.","error_codes":[7000215]}`)(w, r)
				return
			}
			w.WriteHeader(http.StatusUnauthorized)
		}, `eligibility_partner_center_credentials_alert{op="token",partner="a"}`},
		"its host hanging": {hang, `eligibility_partner_center_breaker_open{partner="a"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := startPartnerHost(t), startPartnerHost(t)
			redis := cachetest.StartRedis(t)
			p := startPartners(t, a, b, "ELIGIBILITY_CACHE__REDIS__ADDRESSES="+redis.Address,
				"ELIGIBILITY_CACHE__REDIS__READ_TIMEOUT=2s", "ELIGIBILITY_CACHE__REDIS__WRITE_TIMEOUT=2s", // a loaded test machine is slow
				"ELIGIBILITY_PARTNER_DEFAULTS__ATTEMPT_TIMEOUT=300ms", "ELIGIBILITY_PARTNERS__B__ATTEMPT_TIMEOUT=10s")
			ask := askerOf(t, p)
			ofA, ofB := a.customers(t, "aa", 200), b.customers(t, "bb", 220)
			p.awaitReady(t)
			for _, id := range ofB[:20] {
				if _, err := ask("b", id); err != nil {
					t.Fatal(err)
				}
			}
			before := failures(t, p, "b")
			if len(before) < 20 {
				t.Fatalf("too few figures: %v", slices.Sorted(maps.Keys(before)))
			}
			a.fail.Store(&c.fail)
			ctx, cancel := context.WithCancel(t.Context())
			var asking sync.WaitGroup
			for i := range 50 { // as many callers as a shop in trouble has
				asking.Go(func() {
					for n := 0; ctx.Err() == nil; n++ {
						_, _ = ask("a", ofA[(i+50*n)%len(ofA)])
					}
				})
			}
			eventually(t, "partner a to fail", func() bool {
				value, ok := failures(t, p, "a")[c.shows]
				return ok && value != "0"
			})
			var slowest time.Duration
			for _, id := range ofB[20:] {
				began := time.Now()
				answer, err := ask("b", id)
				slowest = max(slowest, time.Since(began))
				if err != nil || answer.GetStale() || answer.GetDecision() != eligibilityv1.Decision_DECISION_ALLOWED ||
					answer.GetSource() != eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_PARTNER_CENTER {
					t.Errorf("partner b about %s: %v, %v", id, answer, err)
				}
			}
			if diff := cmp.Diff(before, failures(t, p, "b")); diff != "" {
				t.Errorf("figures of b (-before +after):\n%s", diff)
			}
			cancel()
			asking.Wait()
			t.Logf("200 cold checks of b beside 50 callers of a: slowest %v", slowest)
			if slowest > 5*time.Second { // far below what a hanging host would cost on top
				t.Errorf("a check of b took %v", slowest)
			}
			if requests := b.sim.Stats(); requests.Account != 220 {
				t.Errorf("partner b was asked %d times about 220 customers", requests.Account)
			}
			separate(t, redis)
		})
	}
}

// askerOf returns a function that asks a partner about a customer, over one
// connection.
func askerOf(t *testing.T, p *process) func(partner, id string) (*eligibilityv1.CheckEligibilityResponse, error) {
	t.Helper()
	conn, err := grpc.NewClient(p.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	client := eligibilityv1.NewEligibilityServiceClient(conn)
	return func(partner, id string) (*eligibilityv1.CheckEligibilityResponse, error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return client.CheckEligibility(ctx, &eligibilityv1.CheckEligibilityRequest{CustomerId: id, Partner: partner})
	}
}

// separate checks that each key in Redis is of one of the partners.
func separate(t *testing.T, redis *cachetest.Redis) {
	t.Helper()
	client := redis.Client()
	defer func() { _ = client.Close() }()
	for _, key := range client.Keys(t.Context(), "*").Val() {
		ofA, ofB := strings.HasPrefix(key, "eligibility:v2:a/"), strings.HasPrefix(key, "eligibility:v2:b/")
		if ofA == ofB || ofA && strings.Contains(key, "bb000000-") || ofB && strings.Contains(key, "aa000000-") {
			t.Errorf("a key of no partner, or of the wrong one: %s", key)
		}
	}
}

// Partners of one tenant at one host share no evidence.
func TestPartnersOfOneTenantShareNothing(t *testing.T) {
	t.Parallel()
	both := startPartnerHost(t)
	redis := cachetest.StartRedis(t)
	p := startPartners(t, both, both, "ELIGIBILITY_CACHE__REDIS__ADDRESSES="+redis.Address,
		"ELIGIBILITY_CACHE__REDIS__READ_TIMEOUT=2s", "ELIGIBILITY_CACHE__REDIS__WRITE_TIMEOUT=2s")
	ask := askerOf(t, p)
	id := both.customers(t, "cc", 1)[0]
	calls := both.sim.Stats().Account
	for _, partner := range []string{"a", "b"} {
		answer, err := ask(partner, id)
		if err != nil || answer.GetSource() != eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_PARTNER_CENTER {
			t.Errorf("partner %s: %v, %v", partner, answer, err)
		}
		calls++
		if both.sim.Stats().Account != calls {
			t.Errorf("%d calls after asking partner %s", both.sim.Stats().Account, partner)
		}
	}
	eventually(t, "two facets of two partners in Redis", func() bool { return keysIn(t, redis) == 4 })
	separate(t, redis)
}

// A partner whose login host hangs delays readiness by no more than the limit,
// and the answers for the others not at all.
func TestADeadLoginHostOfOnePartnerDoesNotPreventReadiness(t *testing.T) {
	t.Parallel()
	a, b := startPartnerHost(t), startPartnerHost(t)
	hanging := http.HandlerFunc(hang)
	a.fail.Store(&hanging)
	began := time.Now()
	p := startPartners(t, a, b)
	if answer, err := askerOf(t, p)("b", b.customers(t, "bb", 1)[0]); err != nil || answer.GetDecision() != eligibilityv1.Decision_DECISION_ALLOWED {
		t.Errorf("partner b: %v, %v", answer, err)
	}
	p.awaitReady(t)
	if took := time.Since(began); took < 9*time.Second {
		t.Errorf("ready after %v, before the partner without a token had its ten seconds", took)
	}
	p.log.await(t, "the warning about partner a", func(printed string) bool {
		return regexp.MustCompile(`no token from the login host yet.*"partner":"a"|"partner":"a".*no token from the login host yet`).MatchString(printed)
	})
	if strings.Contains(p.log.String(), `no token from the login host yet","partner":"b"`) {
		t.Error("partner b has no token")
	}
}
